"""How answers look in LMI's words: a document, or a stream of JSON lines with one for each token. Pure.

Source: "LMI handlers Inference API Schema", rolling batch.
"""

from dataclasses import dataclass

import msgspec

from loramux_adapters.errors import EngineFailed, LoramuxError
from loramux_serving.relay.dialects.completion_answer import (
    CompletionStream,
    Delta,
    Ending,
    EngineFault,
    Generated,
    read_answer,
    read_fault,
)
from loramux_serving.relay.dialects.completion_form import TokenStream
from loramux_serving.relay.dialects.completion_tokens import Token
from loramux_serving.relay.dialects.one_line import one_line
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.headers import headers_as

JSON = b"application/json"
JSON_LINES = b"application/jsonlines"

_FINISH = {
    "length": "length",
    "eos": "eos_token",
    "stop_token": "eos_token",
    "stop_string": "stop_sequence",
    "broken_off": "abort",
}
_ERROR = "error"


class LmiToken(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    id: int
    text: str
    log_prob: float | None
    special_token: bool = False
    error_msg: str = ""


class Sequence(msgspec.Struct, frozen=True):
    """LMI's `BestOfSequence`."""

    generated_text: str
    finish_reason: str
    generated_tokens: int
    tokens: list[LmiToken]


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    finish_reason: str
    generated_tokens: int | None
    inputs: str | None
    tokens: list[LmiToken] | None = None
    prefill: list[LmiToken] | None = None
    best_of_sequences: list[Sequence] | None = None
    beam_sequences: list[Sequence] | None = None


class Generation(msgspec.Struct, frozen=True, omit_defaults=True):
    generated_text: str
    details: Details | None = None


class Line(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Of a stream. The last one has the text."""

    token: LmiToken
    generated_text: str | None = None
    details: Details | None = None


class LmiError(msgspec.Struct, frozen=True):
    error: str
    code: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What one request wants of its answer."""

    prompts: list[str]
    listed: bool
    """The document is a list, with an answer for each prompt."""
    full_text: bool
    """The text begins with the prompt."""
    detailed: bool
    sequences: int
    beams: bool
    lagging: bool
    """Stop strings are not kept in the text, so that vLLM holds text back."""


class LmiForm:
    """`relay.dialect.AnswerForm`."""

    __slots__ = ("_caller_name", "_engine_name", "_shape")

    def __init__(self, shape: Shape, engine_name: str, caller_name: str) -> None:
        self._shape = shape
        self._engine_name = engine_name
        self._caller_name = caller_name

    def headers(self, status: int, engine: Headers, own: bytes, *, streamed: bool) -> bytes:
        return headers_as(JSON_LINES if streamed else JSON, engine, own)

    def stream(self) -> "LmiStream":
        return LmiStream(self._shape, self._engine_name, self._caller_name)

    def document(self, status: int, body: bytes) -> tuple[int, bytes]:
        if status >= 400:
            return status, error_document(status, body, self._engine_name, self._caller_name)
        return status, _document(body, self._shape)

    def pieces(self) -> None:
        return None


class LmiStream(TokenStream):
    """Lines."""

    def __init__(self, shape: Shape, engine_name: str, caller_name: str) -> None:
        super().__init__(CompletionStream(lagging=shape.lagging))
        self._shape = shape
        self._engine_name = engine_name
        self._caller_name = caller_name
        self._texts = [shape.prompts[0]] if shape.full_text else []
        self._count = 0

    def _fault(self, fault: EngineFault) -> bytes:
        return self._fail(fault.told(self._engine_name, self._caller_name))

    def _broken(self, error: LoramuxError) -> bytes:
        return self._fail(error.message)

    def _incomplete(self) -> bytes:
        return self._fail("The engine ended the stream before the last token.")

    def _delta(self, piece: Delta) -> bytes:
        ending = piece.ending
        told = [_told(token) for token in piece.tokens]
        self._texts.append(piece.text)
        self._count += len(told)
        if told or piece.text:
            self.tokens_seen = True
        if ending is None:
            return b"".join([_line(Line(token)) for token in told])
        if not told:
            # LMI's last line has a token too, where vLLM has ended without a new one.
            told = [LmiToken(-1, piece.text, None)]
        self._ended = True
        return b"".join([*[_line(Line(token)) for token in told[:-1]], _line(self._last(told[-1], ending))])

    def _last(self, token: LmiToken, ending: Ending) -> Line:
        text = "".join(self._texts)
        if not self._shape.detailed:
            return Line(token, text)
        return Line(token, text, Details(_FINISH[ending.cause], self._count, self._shape.prompts[0]))

    def _fail(self, message: str) -> bytes:
        """LMI's last line of a stream that failed."""
        self.failed = self._ended = True
        token = LmiToken(-1, "", -1, special_token=True, error_msg=message)
        return _line(Line(token, "", Details(_ERROR, None, None)))


def error_document(status: int, body: bytes, engine_name: str, caller_name: str) -> bytes:
    """What the engine refused with, in LMI's shape."""
    fault = read_fault(status, body)
    return msgspec.json.encode(LmiError(fault.told(engine_name, caller_name), status))


def _document(body: bytes, shape: Shape) -> bytes:
    answer = read_answer(body)
    count = shape.sequences
    if len(answer.sequences) != count * len(shape.prompts):
        raise EngineFailed(f"The engine gave {len(answer.sequences)} sequences in place of {count} for each prompt.")
    prefill = [_told(token) for token in answer.prompt] or None
    found = [
        _generation(prompt, answer.sequences[place * count : (place + 1) * count], prefill, shape)
        for place, prompt in enumerate(shape.prompts)
    ]
    return msgspec.json.encode(found if shape.listed else found[0])


def _generation(prompt: str, sequences: list[Generated], prefill: list[LmiToken] | None, shape: Shape) -> Generation:
    """With the likeliest sequence; beams come in that order."""
    before = prompt if shape.full_text else ""
    best = 0 if shape.beams else max(range(len(sequences)), key=lambda place: _logprob(sequences[place]))
    text = before + sequences[best].text
    if not shape.detailed:
        return Generation(text)
    told = [
        Sequence(before + one.text, _FINISH[one.ending.cause], len(one.tokens), [_told(token) for token in one.tokens])
        for one in sequences
    ]
    chosen = told.pop(best)
    return Generation(
        text,
        Details(
            chosen.finish_reason,
            chosen.generated_tokens,
            prompt,
            chosen.tokens,
            prefill,
            best_of_sequences=None if shape.beams else told or None,
            beam_sequences=told or None if shape.beams else None,
        ),
    )


def _logprob(sequence: Generated) -> float:
    return sum([token.logprob or 0.0 for token in sequence.tokens])


def _told(token: Token) -> LmiToken:
    return LmiToken(token.id, token.text, token.logprob, token.special)


def _line(line: Line) -> bytes:
    return one_line(msgspec.json.encode(line)) + b"\n"
