"""How answers look in TGI's words: a document, or a stream with a frame for each token. Pure."""

from typing import Literal

import msgspec

from loramux_adapters.errors import EngineFailed, LoramuxError
from loramux_serving.relay.dialects.completion_answer import (
    Answer,
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
from loramux_serving.relay.dialects.tgi_errors import (
    GENERATION,
    INCOMPLETE,
    INCOMPLETE_STREAM,
    TgiError,
    of_fault,
    told,
)
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.headers import caller_headers, untyped

FinishReason = Literal["length", "eos_token", "stop_sequence"]

_BROKEN_OFF = "the engine broke off"
_UNNAMED = "The engine does not name its tokens."
_JSON = b"content-type: application/json\r\n"


class PrefillToken(msgspec.Struct, frozen=True, gc=False):
    id: int
    text: str
    logprob: float | None


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """TGI's, and with `generated_text` its `BestOfSequence`."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    best_of_sequences: "list[BestOf] | None" = None


class BestOf(msgspec.Struct, frozen=True):
    generated_text: str
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]


class GenerateResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """TGI's."""

    generated_text: str
    details: Details | None = None


class StreamDetails(msgspec.Struct, frozen=True, gc=False):
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamResponse(msgspec.Struct, frozen=True, gc=False):
    """TGI's; the last one has the text."""

    index: int
    token: Token
    generated_text: str | None = None
    details: StreamDetails | None = None


class Shape(msgspec.Struct, frozen=True, gc=False):
    """What one request wants of its answer."""

    prompt: str
    full_text: bool
    """The text begins with the prompt."""
    detailed: bool
    listed: bool
    """The document is a list with one answer."""
    seed: int | None
    """Of the first sequence; None where the choice was greedy or no seed is known."""

    def text(self, generated: str) -> str:
        return self.prompt + generated if self.full_text else generated


class TgiForm:
    """`relay.dialect.AnswerForm`."""

    __slots__ = ("_engine_name", "_model", "_shape")

    def __init__(self, shape: Shape, engine_name: str, model: str) -> None:
        self._shape = shape
        self._engine_name = engine_name
        self._model = model

    def headers(self, status: int, engine: Headers, own: bytes, *, streamed: bool) -> bytes:
        further = b"x-accel-buffering: no\r\ncontent-type: text/event-stream\r\n" if streamed else _JSON
        characters = b"x-compute-characters: %d\r\n" % len(self._shape.prompt)
        return caller_headers(untyped(engine), own) + characters + further

    def stream(self) -> "TgiStream":
        return TgiStream(self._shape, self._engine_name, self._model)

    def document(self, status: int, body: bytes) -> tuple[int, bytes]:
        if status >= 400:
            status, error = of_fault(read_fault(status, body), self._engine_name, self._model)
            return status, msgspec.json.encode(error)
        answer = read_answer(body)
        reasons = [finish_reason(sequence.ending) for sequence in answer.sequences]
        if None in reasons:
            return INCOMPLETE.status, msgspec.json.encode(INCOMPLETE.said(_BROKEN_OFF))
        response = _response(answer, self._shape)
        return status, msgspec.json.encode([response] if self._shape.listed else response)

    def pieces(self) -> None:
        return None


class TgiStream(TokenStream):
    """Frames."""

    def __init__(self, shape: Shape, engine_name: str, model: str) -> None:
        super().__init__(CompletionStream())
        self._shape = shape
        self._engine_name = engine_name
        self._model = model
        self._texts: list[str] = []
        self._index = 0
        self._last_id = 0

    def _fault(self, fault: EngineFault) -> bytes:
        return self._fail(of_fault(fault, self._engine_name, self._model)[1])

    def _broken(self, error: LoramuxError) -> bytes:
        return self._fail(told(error)[1])

    def _delta(self, piece: Delta) -> bytes:
        tokens = piece.tokens
        if piece.text and not tokens:
            return self._fail(GENERATION.said(_UNNAMED))
        ending = piece.ending
        reason = None if ending is None else finish_reason(ending)
        if reason is not None and not tokens:
            # TGI's last frame has a token, and vLLM has ended without a new one.
            tokens = [Token(self._last_id, "", None, special=True)]
        self._texts.append(piece.text)
        frames = [self._frame(token, None) for token in (tokens if reason is None else tokens[:-1])]
        if reason is not None:
            frames.append(self._frame(tokens[-1], reason))
            self._ended = True
        elif ending is not None:
            frames.append(self._incomplete())
        return b"".join(frames)

    def _frame(self, token: Token, reason: FinishReason | None) -> bytes:
        self._index += 1
        self._last_id = token.id
        self.tokens_seen = True
        if reason is None:
            return _event(StreamResponse(self._index, token))
        details = None
        if self._shape.detailed:
            details = StreamDetails(reason, self._index, self._shape.seed, self._reader.prompt_length or 0)
        return _event(StreamResponse(self._index, token, self._shape.text("".join(self._texts)), details))

    def _incomplete(self) -> bytes:
        return self._fail(INCOMPLETE_STREAM.said(_BROKEN_OFF))

    def _fail(self, error: TgiError) -> bytes:
        self.failed = self._ended = True
        return _event(error)


def finish_reason(ending: Ending) -> FinishReason | None:
    """TGI's word; None for a sequence that did not end by itself."""
    match ending.cause:
        case "length":
            return "length"
        case "eos" | "stop_token":
            return "eos_token"
        case "stop_string":
            return "stop_sequence"
        case "broken_off":
            return None


def _response(answer: Answer, shape: Shape) -> GenerateResponse:
    """The sequence with the highest mean logprob, and the others in its details."""
    best = max(range(len(answer.sequences)), key=lambda place: _mean_logprob(answer.sequences[place]))
    text = shape.text(answer.sequences[best].text)
    if not shape.detailed:
        return GenerateResponse(text)
    prefill = [PrefillToken(token.id, token.text, token.logprob) for token in answer.prompt]
    all_of_them = [
        BestOf(
            generated_text=shape.text(sequence.text),
            finish_reason=finish_reason(sequence.ending) or "length",
            generated_tokens=len(_named(sequence.tokens, sequence.text)),
            seed=None if shape.seed is None else shape.seed + place,
            prefill=prefill,
            tokens=sequence.tokens,
        )
        for place, sequence in enumerate(answer.sequences)
    ]
    chosen = all_of_them.pop(best)
    return GenerateResponse(
        text,
        Details(
            finish_reason=chosen.finish_reason,
            generated_tokens=chosen.generated_tokens,
            seed=chosen.seed,
            prefill=prefill,
            tokens=chosen.tokens,
            best_of_sequences=all_of_them or None,
        ),
    )


def _named(tokens: list[Token], text: str) -> list[Token]:
    """`tokens`, which brought `text`. Raises `EngineFailed` where there are none, though they were asked for."""
    if text and not tokens:
        raise EngineFailed(_UNNAMED)
    return tokens


def _mean_logprob(sequence: Generated) -> float:
    """Minus infinity where there are none."""
    logprobs = [token.logprob for token in sequence.tokens if token.logprob is not None]
    return sum(logprobs) / len(logprobs) if logprobs else float("-inf")


def _event(said: StreamResponse | TgiError) -> bytes:
    return b"data:%b\n\n" % one_line(msgspec.json.encode(said))
