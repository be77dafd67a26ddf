"""vLLM's answers to `/v1/completions`, read: whole, or as a stream. Pure and incremental."""

import re
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec

from loramux_adapters.errors import EngineFailed
from loramux_serving.relay.dialects.completion_tokens import Token, tokens_of
from loramux_serving.relay.stream import MAX_FRAME_BYTES
from loramux_serving.relay.token_usage import Usage

_T = TypeVar("_T")

_END = re.compile(rb"\n\r?\n")

Cause = Literal["length", "eos", "stop_string", "stop_token", "broken_off"]
"""Why a sequence ended. `eos`: the model ended it. `broken_off`: the engine did, without saying why."""


class Ending(msgspec.Struct, frozen=True, gc=False):
    """`stop` is the string or the token's id that ended the sequence, where one did."""

    cause: Cause
    stop: str | int | None = None


class Generated(msgspec.Struct, frozen=True):
    """One generated text; `tokens` is empty where they were not asked for."""

    text: str
    tokens: list[Token]
    ending: Ending


class Answer(msgspec.Struct, frozen=True):
    """A whole answer. `prompt` has the prompt's tokens where they were asked for; the first has no logprob."""

    sequences: list[Generated]
    prompt: list[Token]
    usage: Usage


class Delta(msgspec.Struct, frozen=True):
    """What one frame brought; `ending` is that of the last one with text or tokens."""

    text: str
    tokens: list[Token]
    ending: Ending | None


class EngineFault(msgspec.Struct, frozen=True):
    """The engine's own word that a request failed. `status` is an HTTP status."""

    status: int
    message: str
    param: str | None = None

    def told(self, engine_name: str, caller_name: str) -> str:
        """The message, with the caller's name of the model in place of the engine's."""
        return self.message.replace(engine_name, caller_name)


class _Logprobs(msgspec.Struct):
    tokens: list[str] = []
    token_logprobs: list[float | None] = []


class _Choice(msgspec.Struct):
    index: int = 0
    text: str = ""
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class _Fault(msgspec.Struct):
    message: str = ""
    code: int | str | None = None
    param: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Usage | None = None
    error: _Fault | None = None


class _Refused(msgspec.Struct):
    """What vLLM answers with a status of 400 and more: `error`, or `detail` where FastAPI refused."""

    error: _Fault | str | None = None
    detail: Any = None
    message: str | None = None


_completion = msgspec.json.Decoder(_Completion)
_refused = msgspec.json.Decoder(_Refused)


def read_answer(document: bytes) -> Answer:
    """Raises `EngineFailed` for what is no completion."""
    completion = _read(_completion, document)
    if not completion.choices:
        raise EngineFailed("The engine's answer has no choices.")
    first = completion.choices[0]
    return Answer(
        sequences=[_sequence(choice) for choice in sorted(completion.choices, key=lambda choice: choice.index)],
        prompt=_prompt(first),
        usage=completion.usage or Usage(),
    )


def read_fault(status: int, document: bytes) -> EngineFault:
    """What the engine said when it refused."""
    try:
        said = _refused.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return EngineFault(status, document[:500].decode("utf-8", "replace").strip() or f"The engine said {status}.")
    if isinstance(said.error, _Fault):
        return EngineFault(status, said.error.message, said.error.param)
    words = said.error or said.message or said.detail
    if words and not isinstance(words, str):
        words = msgspec.json.encode(words)[:500].decode("utf-8", "replace")
    return EngineFault(status, words or f"The engine said {status}.")


class CompletionStream:
    """Reads the frames of a stream with one sequence. What comes out, joined, does not depend on how the input was cut
    into pieces."""

    def __init__(self, *, lagging: bool = False) -> None:
        """`lagging`: text may come later than its tokens, since stop strings are not kept in it. Then a token without
        text counts as special only where it ended the sequence."""
        self._lagging = lagging
        self._held = bytearray()
        self._usage: Usage | None = None
        self._counted = 0
        self._unreadable = False
        self.prompt_length: int | None = None
        """Tokens of the prompt, from the first frame on, where tokens were asked for."""
        self.done = False
        """The engine has said that nothing more comes."""

    @property
    def usage(self) -> Usage | None:
        """As the engine says at the end; before that, as counted so far. None while no token has come."""
        if self._usage is not None:
            return self._usage
        if not self._counted:
            return None
        return Usage(prompt_tokens=self.prompt_length, completion_tokens=self._counted)

    def feed(self, data: bytes) -> list[Delta | EngineFault]:
        """What the frames that are complete now bring. One that can not be read, or is over `MAX_FRAME_BYTES`, is the
        engine's fault, and what follows it is nothing: so what came before it is not lost."""
        if self._unreadable:
            return []
        held = self._held
        if not held and 0 <= data.find(b"\n\n") == len(data) - 2 and b"\r" not in data:
            # Most often a read is a frame.
            piece = self._frame(data[:-2])
            return [] if piece is None else [piece]
        looked_at = max(0, len(held) - 2)
        held += data
        brought: list[Delta | EngineFault] = []
        start = 0
        for match in _END.finditer(held, looked_at):
            if (piece := self._frame(bytes(held[start : match.start()]))) is not None:
                brought.append(piece)
            start = match.end()
            if self._unreadable:
                break
        del held[:start]
        if len(held) > MAX_FRAME_BYTES and not self._unreadable:
            brought.append(self._fault(f"The engine sent a frame larger than {MAX_FRAME_BYTES} bytes."))
        return brought

    def finish(self) -> list[Delta | EngineFault]:
        """What is left when the engine's stream has ended, though its last frame did not end."""
        if self._unreadable:
            return []
        rest = bytes(self._held)
        self._held.clear()
        piece = self._frame(rest)
        return [] if piece is None else [piece]

    def _fault(self, message: str) -> EngineFault:
        self._unreadable = True
        self._held.clear()
        return EngineFault(502, message)

    def _frame(self, frame: bytes) -> Delta | EngineFault | None:
        try:
            return self._read(frame)
        except EngineFailed as error:
            self._unreadable = True
            return EngineFault(502, error.message)

    def _read(self, frame: bytes) -> Delta | EngineFault | None:
        payload = _payload(frame)
        if not payload:
            return None
        if payload == b"[DONE]":
            self.done = True
            return None
        completion = _read(_completion, payload)
        if completion.error is not None:
            code = completion.error.code
            return EngineFault(code if isinstance(code, int) else 500, completion.error.message)
        if completion.usage is not None:
            self._usage = completion.usage
        if not completion.choices:
            return None
        choice = completion.choices[0]
        if choice.prompt_token_ids is not None:
            self.prompt_length = len(choice.prompt_token_ids)
        ending = _ending(choice)
        tokens = self._tokens(choice, ending)
        self._counted += len(tokens) if choice.token_ids is not None else 1 if choice.text else 0
        return Delta(choice.text, tokens, ending)

    def _tokens(self, choice: _Choice, ending: Ending | None) -> list[Token]:
        if not self._lagging or choice.text:
            return _generated(choice)
        ends_it = ending is not None and ending.cause in ("eos", "stop_token")
        tokens = _generated(choice)
        last = len(tokens) - 1
        return [
            token if ends_it and place == last else Token(token.id, "", token.logprob)
            for place, token in enumerate(tokens)
        ]


def _sequence(choice: _Choice) -> Generated:
    return Generated(choice.text, _generated(choice), _ending(choice) or Ending("broken_off"))


def _ending(choice: _Choice) -> Ending | None:
    stop = choice.stop_reason
    match choice.finish_reason:
        case None:
            return None
        case "length":
            return Ending("length")
        case "stop" if stop is None:
            return Ending("eos")
        case "stop":
            return Ending("stop_string" if isinstance(stop, str) else "stop_token", stop)
        case _:
            return Ending("broken_off")


def _generated(choice: _Choice) -> list[Token]:
    """With `echo` the logprobs are those of the prompt and of what was generated, and `token_ids` only the latter."""
    ids = choice.token_ids
    if not ids:
        return []
    alone, logprobs = _told(choice)
    if len(alone) < len(ids):
        raise EngineFailed("The engine named tokens without their logprobs.")
    begin = len(alone) - len(ids)
    return tokens_of(ids, alone[begin:], logprobs[begin:], choice.text)


def _prompt(choice: _Choice) -> list[Token]:
    ids = choice.prompt_token_ids or ()
    alone, logprobs = _told(choice)
    if len(alone) != len(ids) + len(choice.token_ids or ()):
        return []
    return [Token(one, own, logprob) for one, own, logprob in zip(ids, alone, logprobs, strict=False)]


def _told(choice: _Choice) -> tuple[Sequence[str], Sequence[float | None]]:
    told = choice.logprobs
    return ((), ()) if told is None else (told.tokens, told.token_logprobs)


def _payload(frame: bytes) -> bytes:
    """The value of the frame's `data` field; blank where it has none."""
    if frame.startswith(b"data:") and b"\n" not in frame:
        return frame[5:].strip()
    return b"\n".join(line[5:].strip() for line in frame.splitlines() if line.startswith(b"data:"))


def _read(decoder: msgspec.json.Decoder[_T], document: bytes) -> _T:
    try:
        return decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        start = document[:200].decode("utf-8", "replace")
        raise EngineFailed(f"The engine's answer can not be read ({error}): {start}") from error
