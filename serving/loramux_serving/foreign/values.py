"""How the values of LMI's and TGI's variables are read: text in, what the setting takes out. Pure.

Each reader raises `ValueError` with words that go on from "must be".
"""

from ipaddress import ip_address
from typing import get_args

from loramux_serving.settings import LoraRank, Value

EVERY_ACCELERATOR = "max"
"""`OPTION_TENSOR_PARALLEL_DEGREE=max`: all accelerators that the engine may use; counted where it starts."""

_DTYPES = {
    "auto": "auto",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
    "fp32": "float32",
    "float32": "float32",
}
_YES = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_BATCHING = ("auto", "vllm", "lmi-dist", "disable")


def text(given: str) -> Value:
    return given


def model(given: str) -> Value:
    """A place, without a slash at its end."""
    stripped = given.rstrip("/")
    return given if stripped.endswith(":") else stripped or given


def count(given: str) -> Value:
    """A whole number from 1."""
    if not given.isascii() or not given.isdecimal() or int(given) < 1:
        raise ValueError("a whole number from 1")
    return int(given)


def count_or_max(given: str) -> Value:
    if given.lower() == EVERY_ACCELERATOR:
        return EVERY_ACCELERATOR
    try:
        return count(given)
    except ValueError:
        raise ValueError("a whole number from 1, or max") from None


def port(given: str) -> Value:
    if not given.isascii() or not given.isdecimal() or int(given) > 65535:
        raise ValueError("a port from 0 to 65535")
    return int(given)


def lora_rank(given: str) -> Value:
    rank = count(given)
    if rank not in get_args(LoraRank):
        raise ValueError(f"one of {', '.join(str(choice) for choice in get_args(LoraRank))}")
    return rank


def share(given: str) -> Value:
    """A part of one."""
    try:
        number = float(given)
    except ValueError:
        number = 0.0
    if not 0.0 < number <= 1.0:
        raise ValueError("a number above 0 and at most 1")
    return number


def yes_or_no(given: str) -> Value:
    found = _YES.get(given.lower())
    if found is None:
        raise ValueError("true or false")
    return found


def dtype(given: str) -> Value:
    """LMI's, TGI's and vLLM's words for a data type, as vLLM's."""
    found = _DTYPES.get(given.lower())
    if found is None:
        raise ValueError(f"one of {', '.join(_DTYPES)}")
    return found


def rolling_batch(given: str) -> Value:
    """`lmi-dist` is LMI's name for vLLM with a door of its own; `disable` is what its asynchronous mode asks for, in
    which vLLM batches by itself. Other libraries and no batching at all are nothing that vLLM could do."""
    if given.lower() not in _BATCHING:
        raise ValueError("auto, vllm, lmi-dist or disable, since vLLM answers here and batches by itself")
    return given.lower()


def lora_on(given: str) -> Value:
    """False stops the start. Whoever turned LoRA off would not expect that adapters can be added all the same, and that
    slots for them take the accelerator's memory; and a gateway that refused every adapter would not be this one. The
    base alone is served without a difference by an engine with empty slots, so nothing else has to change."""
    if yes_or_no(given) is not True:
        raise ValueError("true, since loramux serves adapters; leave it out to serve the base alone")
    return True


def is_address(given: str) -> bool:
    """Whether it is one to listen on, and no machine's name."""
    try:
        ip_address(given)
    except ValueError:
        return False
    return True
