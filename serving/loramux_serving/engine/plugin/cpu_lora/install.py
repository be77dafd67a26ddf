"""Puts the CPU engine's faster LoRA in place of vLLM's, where it can.

`install` belongs to the entry point of `vllm.general_plugins`, which vLLM calls in each of its processes. It only
changes which class the platform names; all else happens when a worker with LoRA asks for that name.
"""

import functools
import importlib
import inspect
import logging
import os
from typing import Any

from vllm.platforms import current_platform

from loramux_serving.engine.plugin.cpu_lora.slot_notes import watch

SWITCH = "LORAMUX_CPU_LORA_KERNELS"
"""0 in the environment leaves vLLM as it is."""

_STOCK = "vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU"
_OURS = "loramux_serving.engine.plugin.cpu_lora.wrapper.SegmentedPunicaWrapperCPU"
_INSTALLED = "_loramux_installed"

_LAYERS = (
    "vllm.lora.layers.base_linear.BaseLinearLayerWithLoRA",
    "vllm.lora.layers.LogitsProcessorWithLoRA",
    "vllm.lora.layers.VocabParallelEmbeddingWithLoRA",
)

NEEDS: dict[str, tuple[str, ...]] = {
    _STOCK + ".update_metadata": ("mapping", "lora_index_to_id", "max_loras", "vocab_size"),
    _STOCK + ".add_shrink": ("y", "x", "lora_a_stacked", "scale"),
    _STOCK + ".add_expand": ("y", "x", "lora_b_stacked", "output_slices", "offset_start", "add_inputs"),
    _STOCK + ".add_lora_embedding": ("y", "x", "lora_b_stacked", "add_inputs"),
    _STOCK + ".add_lora_linear": (*("y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "output_slices", "buffer"),),
    _STOCK + ".add_lora_logits": ("y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "buffer"),
    "vllm.lora.layers.LoRAMapping": ("index_mapping", "prompt_mapping"),
} | {
    f"{layer}.{method}": parameters
    for layer in _LAYERS
    for method, parameters in (("set_lora", ("index", "lora_a", "lora_b")), ("reset_lora", ("index",)))
}
"""What is relied on, and with which first parameters; seen so in vLLM 0.26 to 0.32."""

_logger = logging.getLogger("vllm.plugins.loramux")


def install() -> None:
    """May be called again. Does nothing off the CPU platform, or where the switch is off."""
    platform = type(current_platform)
    if os.environ.get(SWITCH, "1") == "0" or not current_platform.is_cpu():
        return
    named = platform.get_punica_wrapper
    if hasattr(named, _INSTALLED):
        return

    @functools.wraps(named)
    def get_punica_wrapper(cls: type) -> str:
        return choose(str(named()))

    setattr(get_punica_wrapper, _INSTALLED, True)
    platform.get_punica_wrapper = classmethod(get_punica_wrapper)


def installed() -> bool:
    """Whether what is in a slot has to be noted."""
    return hasattr(type(current_platform).get_punica_wrapper, _INSTALLED)


def choose(stock: str) -> str:
    """The name of the class to use where vLLM would use `stock`. Where it is ours, vLLM's layers note from here on what
    they put into slots."""
    lacks = missing() if stock == _STOCK else [_STOCK]
    if lacks:
        _logger.warning("loramux: CPU LoRA kernels are off, since this vLLM has no %s", ", ".join(lacks))
        return stock
    watch([_resolve(layer) for layer in _LAYERS])
    return _OURS


def missing() -> list[str]:
    """Of `NEEDS`, what this vLLM does not have, or has with other parameters. Imports vLLM's LoRA layers, which takes
    seconds in a process that has not."""
    return [name for name, parameters in NEEDS.items() if not _has(name, parameters)]


def _has(name: str, parameters: tuple[str, ...]) -> bool:
    found = _resolve(name)
    if found is None:
        return False
    known = [parameter for parameter in inspect.signature(found).parameters if parameter != "self"]
    return tuple(known[: len(parameters)]) == parameters


def _resolve(name: str) -> Any:
    """What a dotted name means: the longest part of it that is a module, and attributes of that."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found
    return None
