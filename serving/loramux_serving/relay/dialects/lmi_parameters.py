"""LMI's generation parameters, for its vLLM backend, as what vLLM is asked. Pure.

Sources: "LMI handlers Inference API Schema" (https://docs.djl.ai, LMI's user guides), and for what it leaves open the
handlers of djl-serving 0.32. What LMI ignores is ignored; what it would do and vLLM can not is refused.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from loramux_adapters.errors import RequestInvalid
from loramux_serving.relay.dialects.completion import GREEDY, Generation, Sampling

DEFAULT_NEW_TOKENS = 30

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Parameters(msgspec.Struct, frozen=True):
    """`parameters` of a body. One that is null counts as absent. Others are unknown to LMI, and so ignored, but for
    `further`'s."""

    do_sample: bool | None = None
    seed: int | str | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_new_tokens: int | None = None
    details: bool | None = None
    return_full_text: bool | None = None
    stop_sequences: list[str] | None = None
    stop: list[str] | str | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos_token: bool | None = None
    skip_special_tokens: bool | None = None
    decoder_input_details: bool | None = None
    top_n_tokens: int | None = None
    """LMI asks vLLM for so many alternatives, and does not tell them. Nor is `logprobs` seen in an answer."""
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    n: int | None = None
    best_of: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    truncate: int | None = None
    typical_p: float | None = None
    watermark: bool | None = None
    stream: bool | None = None

    @property
    def sequences(self) -> int:
        """How many are told. As in LMI, `best_of` counts above `n`: all of them are."""
        return self.num_beams or self.best_of or self.n or 1

    @property
    def beams(self) -> bool:
        return (self.num_beams or 1) > 1

    @property
    def tokens_told(self) -> bool:
        """More sequences than one always come with details."""
        return bool(self.details) or self.sequences > 1

    def generation(self, prompts: Sequence[str], further: dict[str, Any], *, stream: bool) -> Generation:
        """What vLLM is asked. `further` are fields of vLLM's own."""
        if len(prompts) > 1:
            further = further | {"prompt": list(prompts)}
        if self.beams:
            further = further | {"use_beam_search": True}
            if self.length_penalty is not None:
                further["length_penalty"] = self.length_penalty
        return Generation(
            prompt=prompts[0],
            max_new_tokens=DEFAULT_NEW_TOKENS if self.max_new_tokens is None else self.max_new_tokens,
            sampling=self._sampling(),
            sequences=self.sequences,
            stop=self._stop(),
            keep_stop=bool(self.include_stop_str_in_output),
            stop_token_ids=self.stop_token_ids or (),
            ignore_eos=bool(self.ignore_eos_token),
            truncate=self.truncate,
            skip_special_tokens=self.skip_special_tokens is not False,
            tokens=stream or self.tokens_told,
            prompt_tokens=self.tokens_told and bool(self.decoder_input_details),
            stream=stream,
            further=further,
        )

    def _sampling(self) -> Sampling:
        """LMI samples where `do_sample` says so, or, where it says nothing, where a temperature is given."""
        greedy = self.temperature is None if self.do_sample is None else not self.do_sample
        given: dict[str, float | int | None] = {
            "temperature": GREEDY.temperature if greedy else self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": None if self.seed is None else int(self.seed),
        }
        return Sampling(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    def _stop(self) -> Sequence[str]:
        stop = self.stop if self.stop_sequences is None else self.stop_sequences
        return [stop] if isinstance(stop, str) else stop or ()


_decode = msgspec.json.Decoder(Parameters).decode
_all = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_PASSED = (
    "allowed_token_ids",
    "bad_words",
    "logit_bias",
    "min_tokens",
    "response_format",
    "spaces_between_special_tokens",
    "structured_outputs",
)
"""vLLM's own, which LMI hands on."""


def read_parameters(raw: bytes) -> tuple[Parameters, dict[str, Any]]:
    """The parameters, and those of vLLM's own. Raises `RequestInvalid` with `details["param"]`."""
    try:
        found = _decode(raw)
        every = _all(raw)
    except _UNREADABLE as error:
        _, at, path = str(error).rpartition("$")
        name = path.strip("`").lstrip(".") if at else ""
        where = f"The parameter `parameters.{name}`" if name else "The parameter `parameters`"
        raise RequestInvalid(f"{where} is not valid: {error}.", details={"param": name or "parameters"}) from error
    _check(found)
    return found, {name: every[name] for name in _PASSED if name in every and every[name] != b"null"}


def _check(found: Parameters) -> None:
    if isinstance(found.seed, str) and _INTEGER.fullmatch(found.seed) is None:
        raise _refusal("seed", "must be an integer")
    for name in ("n", "best_of", "num_beams"):
        value = getattr(found, name)
        if value is not None and value < 1:
            raise _refusal(name, "must be 1 or more")
    if found.typical_p not in (None, 1.0):
        raise _refusal("typical_p", "is not supported by vLLM")
    if found.watermark:
        raise _refusal("watermark", "is not supported")
    if found.early_stopping and found.beams:
        raise _refusal("early_stopping", "is not supported by vLLM")


def _refusal(name: str, what: str) -> RequestInvalid:
    return RequestInvalid(f"The parameter `{name}` {what}.", details={"param": name})
