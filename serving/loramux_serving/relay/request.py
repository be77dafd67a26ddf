"""What the relay reads of an inference request's body, and the body that goes to the engine. Pure.

Only `model`, `stream` and `stream_options` are looked at. Every other value keeps its bytes, whatever it is, so that
a parameter that the engine learns tomorrow passes today. Of a key that comes twice the last one counts, here as in
vLLM, and only that one is sent on.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

import msgspec

from loramux_adapters.errors import RequestInvalid
from loramux_serving.relay.dialect import ModelName, shown
from loramux_serving.relay.dialects.openai_form import OpenAIForm, form_of

_T = TypeVar("_T")

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES)
"""The routes that the relay serves itself, for POST."""

_WITH_USAGE_OPTION = frozenset({CHAT, COMPLETIONS})
_TRUE = msgspec.Raw(b"true")

_encode = msgspec.json.Encoder().encode
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)
_flag = msgspec.json.Decoder(bool | None)
_options = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


class OpenAIRequest(msgspec.Struct, frozen=True):
    """A decoded body. `path` is where it is asked for, here and at the engine. `fields` holds all of it, undecoded;
    `options` is `stream_options`, None where it is absent."""

    path: str
    model: ModelName
    stream: bool
    fields: Mapping[str, msgspec.Raw]
    options: Mapping[str, msgspec.Raw] | None = None
    usage_asked: bool = False

    @property
    def injects_usage(self) -> bool:
        """True where `body` asks the engine for a usage frame that the caller did not ask for."""
        return self.stream and not self.usage_asked and self.path in _WITH_USAGE_OPTION

    def body(self, engine_name: str) -> bytes:
        """The body for the engine: `model` is its name there, and a stream asks for usage so that tokens can be
        counted."""
        fields = dict(self.fields)
        if engine_name != self.model:
            fields["model"] = _raw(engine_name)
        if self.stream and self.injects_usage:
            # `continuous_usage_stats` has no effect in vLLM without `include_usage`; it must not get one through ours.
            options = {key: value for key, value in (self.options or {}).items() if key != "continuous_usage_stats"}
            options["include_usage"] = _TRUE
            fields["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
        return _encode(fields)

    def form(self, engine_name: str) -> OpenAIForm:
        return form_of(engine_name, shown(self.model), self.stream and self.injects_usage)


def decode(path: str, body: bytes, named: ModelName | None = None) -> OpenAIRequest:
    """`named`: the model, where something else than the body names it; then the body's is not read. Raises
    `RequestInvalid` with `details["param"]` where one parameter is at fault."""
    try:
        fields = _fields.decode(body)
    except _NOT_JSON as error:
        raise RequestInvalid(f"The body must be a JSON object: {error}.") from error
    if named is None:
        try:
            model: ModelName = _text.decode(fields["model"])
        except (KeyError, *_NOT_JSON):
            model = ""
        if not model:
            raise _no_model(fields)
    else:
        model = named
        if isinstance(named, str):
            fields["model"] = msgspec.Raw(msgspec.json.encode(named))
    stream = "stream" in fields and bool(_value(_flag, fields, "stream", "a boolean"))
    if "stream_options" not in fields:
        return OpenAIRequest(path, model, stream, fields)
    options = _value(_options, fields, "stream_options", "an object")
    asked = options is not None and bool(_value(_flag, options, "include_usage", "a boolean"))
    return OpenAIRequest(path, model, stream, fields, options, asked)


@lru_cache(maxsize=4096)
def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(text))


def _no_model(fields: Mapping[str, msgspec.Raw]) -> RequestInvalid:
    if "model" not in fields:
        return RequestInvalid("The parameter `model` is missing.", details={"param": "model"})
    try:
        _value(_text, fields, "model", "a string")
    except RequestInvalid as error:
        return error
    return RequestInvalid("The parameter `model` must not be empty.", details={"param": "model"})


def _value(decoder: msgspec.json.Decoder[_T], fields: Mapping[str, msgspec.Raw], name: str, kind: str) -> _T | None:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except _NOT_JSON as error:
        raise RequestInvalid(f"The parameter `{name}` must be {kind}.", details={"param": name}) from error
