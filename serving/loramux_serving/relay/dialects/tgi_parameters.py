"""TGI's request, read and validated as TGI does it, with its sentences. Pure.

What TGI can do and vLLM can not is an error of the same kind. Fields that TGI does not know are ignored, as there.
"""

from typing import Annotated, Any, Literal

import msgspec

from loramux_adapters.errors import RequestInvalid

MAX_BEST_OF = 4
MAX_STOP_SEQUENCES = 16
MAX_SEED = 2**64 - 1

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Count32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Whole32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Float32 = Annotated[float, msgspec.Meta(ge=-3.4e38, le=3.4e38)]


class Grammar(msgspec.Struct, frozen=True):
    type: Literal["json", "json_object", "regex", "json_schema"]
    value: Any


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """TGI's `GenerateParameters`: its fields, types and defaults."""

    best_of: _Count | None = None
    temperature: _Float32 | None = None
    repetition_penalty: _Float32 | None = None
    frequency_penalty: _Float32 | None = None
    top_k: _Whole32 | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: _Count32 | None = None
    return_full_text: bool | None = None
    stop: list[str] = []
    truncate: _Count | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    seed: Annotated[int, msgspec.Meta(ge=0)] | None = None
    top_n_tokens: _Count32 | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None

    @property
    def samples(self) -> bool:
        """As TGI's servers decide it: `do_sample`, or anything that changes how a token is drawn."""
        warps = (self.temperature or 1.0) != 1.0 or self.top_k is not None or self.top_p is not None
        return self.do_sample or warps


class Generate(msgspec.Struct, frozen=True):
    """TGI's `CompatGenerateRequest`; `stream` counts at `/` only. Without any `parameters` TGI samples."""

    inputs: str
    parameters: Parameters = msgspec.field(default_factory=lambda: Parameters(do_sample=True))
    stream: bool = False


_generate = msgspec.json.Decoder(Generate)


def decode(body: bytes) -> Generate:
    """Raises `RequestInvalid`."""
    try:
        return _generate.decode(body)
    except msgspec.ValidationError as error:
        place = str(error).rpartition(" - at `$.")[2].rstrip("`").removeprefix("parameters.")
        raise RequestInvalid(
            f"Failed to deserialize the JSON body into the target type: {error}", details={"param": place}
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid(f"Failed to parse the request body as JSON: {error}") from error


def validate(request: Generate, *, streamed: bool) -> None:
    """TGI's rules, in TGI's order. Raises `RequestInvalid`."""
    asked = request.parameters
    best_of = 1 if asked.best_of is None else asked.best_of
    if streamed:
        _require(best_of == 1, "best_of", "`best_of` != 1 is not supported when streaming tokens")
        _require(
            not asked.decoder_input_details,
            "decoder_input_details",
            "`decoder_input_details` == true is not supported when streaming tokens",
        )
    _require(best_of <= MAX_BEST_OF, "best_of", f"`best_of` must be > 0 and <= {MAX_BEST_OF}. Given: {best_of}")
    drawn = (asked.temperature, asked.top_k, asked.top_p, asked.typical_p)
    sampling = asked.do_sample or any(value is not None for value in drawn)
    _require(best_of <= 1 or sampling, "best_of", "you must use sampling when `best_of` is > 1")
    _validate_sampling(asked)
    _require(asked.max_new_tokens != 0, "max_new_tokens", "`max_new_tokens` must be strictly positive")
    _require(
        len(asked.stop) <= MAX_STOP_SEQUENCES,
        "stop",
        f"`stop` supports up to {MAX_STOP_SEQUENCES} stop sequences. Given: {len(asked.stop)}",
    )
    _require(all(asked.stop), "stop", "`stop` must not have an empty sequence")
    _require(best_of <= 1 or asked.seed is None, "seed", "`seed` must not be set when `best_of` > 1")
    _require((asked.seed or 0) <= MAX_SEED, "seed", "`seed` must have 64 bits at most")
    _require(not asked.top_n_tokens, "top_n_tokens", "`top_n_tokens` != 0 is not allowed for this endpoint")
    _require(bool(request.inputs), "inputs", "`inputs` cannot be empty")
    _require(asked.truncate != 0, "truncate", "`truncate` must be strictly positive. Given: 0")
    _require(asked.adapter_id != "", "adapter_id", "`adapter_id` must not be empty")


def _validate_sampling(asked: Parameters) -> None:
    temperature, penalty = asked.temperature, asked.repetition_penalty
    _require(temperature is None or temperature > 0.0, "temperature", "`temperature` must be strictly positive")
    _require(penalty is None or penalty > 0.0, "repetition_penalty", "`repetition_penalty` must be strictly positive")
    _require(
        -2.0 <= (asked.frequency_penalty or 0.0) <= 2.0,
        "frequency_penalty",
        "`frequency_penalty` must be >= -2.0 and <= 2.0",
    )
    for name, value in (("top_p", asked.top_p), ("typical_p", asked.typical_p)):
        _require(value is None or 0.0 < value < 1.0, name, f"`{name}` must be > 0.0 and < 1.0")
    _require(asked.top_k is None or asked.top_k > 0, "top_k", "`top_k` must be strictly positive")
    _require(asked.typical_p is None, "typical_p", "`typical_p` is not supported by this endpoint's engine")
    _require(not asked.watermark, "watermark", "`watermark` is not supported by this endpoint's engine")


def constraint(grammar: Grammar | None) -> dict[str, Any] | None:
    """As vLLM's `structured_outputs`. Raises `RequestInvalid`."""
    if grammar is None:
        return None
    value = grammar.value
    if grammar.type == "regex":
        _require(isinstance(value, str), "grammar", "grammar is not valid: a regex must be a string")
        return {"regex": value}
    if grammar.type == "json_schema":
        value = value.get("schema") if isinstance(value, dict) else None
    elif isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _invalid("grammar", f"grammar is not valid: {error}") from error
    _require(isinstance(value, dict), "grammar", "grammar is not valid: a JSON schema must be an object")
    return {"json": value}


def _require(holds: bool, param: str, message: str) -> None:
    if not holds:
        raise _invalid(param, message)


def _invalid(param: str, message: str) -> RequestInvalid:
    return RequestInvalid(message, details={"param": param})
