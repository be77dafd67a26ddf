"""The three bodies that an LMI container takes at one door: LMI's own, and OpenAI's for chat and completions. Pure."""

from typing import Any

import msgspec

from loramux_adapters.errors import RequestInvalid
from loramux_serving.relay.dialect import InferenceRequest, ModelName, shown
from loramux_serving.relay.dialects.completion import completion_body
from loramux_serving.relay.dialects.lmi_form import JSON, LmiForm, Shape, error_document
from loramux_serving.relay.dialects.lmi_parameters import Parameters, read_parameters
from loramux_serving.relay.dialects.openai_form import OpenAIForm, OpenAIStream
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.headers import headers_as
from loramux_serving.relay.renaming import IncrementalRenaming
from loramux_serving.relay.request import CHAT, COMPLETIONS, OpenAIRequest, decode

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class LmiRequest(msgspec.Struct, frozen=True):
    """`relay.dialect.InferenceRequest`, of LMI's own body."""

    model: ModelName
    stream: bool
    shape: Shape
    parameters: Parameters
    further: dict[str, Any]

    @property
    def path(self) -> str:
        return COMPLETIONS

    def body(self, engine_name: str) -> bytes:
        generation = self.parameters.generation(self.shape.prompts, self.further, stream=self.stream)
        return completion_body(generation, engine_name)

    def form(self, engine_name: str) -> LmiForm:
        return LmiForm(self.shape, engine_name, shown(self.model))


class LmiOpenAIRequest(msgspec.Struct, frozen=True):
    """`relay.dialect.InferenceRequest`, of one of OpenAI's bodies: only errors are LMI's."""

    asked: OpenAIRequest

    @property
    def model(self) -> ModelName:
        return self.asked.model

    @property
    def stream(self) -> bool:
        return self.asked.stream

    @property
    def path(self) -> str:
        return self.asked.path

    def body(self, engine_name: str) -> bytes:
        return self.asked.body(engine_name)

    def form(self, engine_name: str) -> "LmiOpenAIForm":
        return LmiOpenAIForm(self.asked.form(engine_name), engine_name, shown(self.asked.model))


class LmiOpenAIForm:
    """`relay.dialect.AnswerForm`."""

    __slots__ = ("_caller_name", "_engine_name", "_form")

    def __init__(self, form: OpenAIForm, engine_name: str, caller_name: str) -> None:
        self._form = form
        self._engine_name = engine_name
        self._caller_name = caller_name

    def headers(self, status: int, engine: Headers, own: bytes, *, streamed: bool) -> bytes:
        if status >= 400:
            return headers_as(JSON, engine, own)
        return self._form.headers(status, engine, own, streamed=streamed)

    def stream(self) -> OpenAIStream:
        return self._form.stream()

    def document(self, status: int, body: bytes) -> tuple[int, bytes]:
        if status >= 400:
            return status, error_document(status, body, self._engine_name, self._caller_name)
        return self._form.document(status, body)

    def pieces(self) -> IncrementalRenaming:
        return self._form.pieces()


class Body:
    """A body whose fields are known, and not yet what they mean."""

    def __init__(self, raw: bytes) -> None:
        """Raises `RequestInvalid` where it is no JSON object."""
        try:
            self._fields = _fields(raw)
        except _UNREADABLE as error:
            raise RequestInvalid(f"The body must be a JSON object: {error}.") from error
        self._raw = raw

    @property
    def adapter(self) -> str | None:
        """What the body's `adapters` names: LMI's own way, one name, or a list with one for each input. Empty: the
        base. None where there is no such field. Raises `RequestInvalid`."""
        if (raw := self._fields.get("adapters")) is None:
            return None
        named = self._value(_adapters, raw, "adapters", "a string or a list of strings")
        if isinstance(named, str) or named is None:
            return named
        if len(set(named)) > 1:
            raise RequestInvalid("All `adapters` of one request must be the same.", details={"param": "adapters"})
        return named[0] if named else None

    @property
    def model(self) -> str | None:
        """What the body's `model` names; None where it says nothing. Raises `RequestInvalid`."""
        raw = self._fields.get("model")
        return None if raw is None else self._value(_text, raw, "model", "a string") or None

    def read(self, named: ModelName) -> InferenceRequest:
        """The request, for the model that is `named`. Raises `RequestInvalid`."""
        if "prompt" in self._fields:
            return LmiOpenAIRequest(self._openai(COMPLETIONS, named))
        if "inputs" in self._fields:
            return self._lmi(named)
        if "messages" in self._fields:
            return LmiOpenAIRequest(self._openai(CHAT, named))
        raise RequestInvalid("The body must have one of `inputs`, `messages` and `prompt`.")

    def _openai(self, path: str, named: ModelName) -> OpenAIRequest:
        request = decode(path, self._raw, named)
        return msgspec.structs.replace(
            request, fields={name: value for name, value in request.fields.items() if name != "adapters"}
        )

    def _lmi(self, named: ModelName) -> LmiRequest:
        inputs = self._value(_inputs, self._fields["inputs"], "inputs", "a string or a list of strings")
        prompts = [inputs] if isinstance(inputs, str) else inputs
        if not prompts:
            raise RequestInvalid("The parameter `inputs` must not be an empty list.", details={"param": "inputs"})
        raw = self._fields.get("parameters")
        parameters, further = read_parameters(b"{}" if raw is None or raw == b"null" else bytes(raw))
        stream = self._value(_flag, self._fields.get("stream", _NULL), "stream", "a boolean")
        streamed = bool(parameters.stream if stream is None else stream)
        _check_together(parameters, len(prompts), streamed=streamed)
        shape = Shape(
            prompts=prompts,
            listed=not isinstance(inputs, str) and not streamed,
            full_text=bool(parameters.return_full_text),
            detailed=parameters.tokens_told,
            sequences=parameters.sequences,
            beams=parameters.beams,
            lagging=not parameters.include_stop_str_in_output and bool(parameters.stop_sequences or parameters.stop),
        )
        return LmiRequest(named, streamed, shape, parameters, further)

    def _value(self, decoder: "msgspec.json.Decoder[Any]", raw: msgspec.Raw, name: str, kind: str) -> Any:
        try:
            return decoder.decode(raw)
        except _UNREADABLE as error:
            raise RequestInvalid(f"The parameter `{name}` must be {kind}.", details={"param": name}) from error


def _check_together(parameters: Parameters, prompts: int, *, streamed: bool) -> None:
    """Of what each is allowed, but not with the others. Raises `RequestInvalid`."""
    if prompts > 1 and (streamed or parameters.decoder_input_details):
        what = "stream" if streamed else "decoder_input_details"
        raise RequestInvalid(f"With `{what}` there can be only one of `inputs`.", details={"param": "inputs"})
    if streamed and parameters.sequences > 1:
        raise RequestInvalid("A stream can not have more than one sequence.", details={"param": "stream"})
    if streamed and parameters.decoder_input_details:
        raise RequestInvalid(
            "The parameter `decoder_input_details` can not be used with streaming.",
            details={"param": "decoder_input_details"},
        )


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text = msgspec.json.Decoder(str | None)
_flag = msgspec.json.Decoder(bool | None)
_adapters = msgspec.json.Decoder(str | list[str] | None)
_inputs = msgspec.json.Decoder(str | list[str])
_NULL = msgspec.Raw(b"null")
