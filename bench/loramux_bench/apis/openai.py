"""OpenAI's interfaces: chat, and completions of a prompt.

Source: https://platform.openai.com/docs/api-reference/chat-streaming, and what vLLM, SGLang and others send beyond it.
"""

from typing import Any, Literal

import msgspec

from loramux_bench.apis.http import HttpClient
from loramux_bench.apis.port import Ask, Trace
from loramux_bench.apis.refusal import UNREADABLE, note_broken
from loramux_bench.bearer import bearer

_DONE = b"[DONE]"


class OpenAiApi:
    """`kind` picks the interface. `url` is without `/v1`. Raises `ScenarioError` for a URL or key that is none."""

    def __init__(self, url: str, key: str, kind: Literal["chat", "completions"]) -> None:
        self._client = HttpClient(url)
        self._headers = bearer(key)
        self._chat = kind == "chat"
        self._path = "/v1/chat/completions" if self._chat else "/v1/completions"

    def open(self) -> None:
        self._client.open()

    def ask(self, ask: Ask, trace: Trace) -> None:
        body = openai_body(ask, chat=self._chat)
        self._client.stream(
            self._path,
            msgspec.json.encode({"model": ask.model, **body} if ask.model else body),
            headers=bearer(ask.key) or self._headers,
            timeout_s=ask.timeout_s,
            trace=trace,
            reader=ChunkReader(trace),
        )

    def close(self) -> None:
        self._client.close()


def openai_body(ask: Ask, *, chat: bool) -> dict[str, Any]:
    """Without the model. `Ask.extra` comes last, and may replace anything."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": ask.prompt}]} if chat else {"prompt": ask.prompt}
    body |= {"max_tokens": ask.max_tokens, "stream": True, "stream_options": {"include_usage": True}}
    if ask.temperature is not None:
        body["temperature"] = ask.temperature
    if ask.ignore_eos:
        body["ignore_eos"] = True
    return body | dict(ask.extra)


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Said(msgspec.Struct):
    """A `delta` of a stream, or a `message`."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    """Only what is needed of it: what is not named here is passed over unread."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: str | None = None


class ChunkReader:
    """Makes a trace of the chunks of one answer, or of one that is not streamed."""

    _decode = msgspec.json.Decoder(_Chunk).decode

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._chunks = 0
        self._done = False

    def event(self, data: bytes, at: float) -> None:
        if data == _DONE or data.strip() == _DONE:
            self._done = True
            return
        try:
            chunk = self._decode(data)
        except UNREADABLE as error:
            self._trace.fail("bad_answer", f"A chunk can not be read ({error}): {_start(data)}")
            return
        self._chunks += 1
        if chunk.choices:
            text = "".join([_text(choice) for choice in chunk.choices])
            if text:
                self._trace.token(text, at)
            for choice in chunk.choices:
                if choice.finish_reason:
                    self._trace.finish_reason = choice.finish_reason
        if chunk.usage is not None:
            self._count(chunk.usage)
        if chunk.error is not None or chunk.object == "error":
            note_broken(self._trace, data)

    def whole(self, body: bytes, at: float) -> None:
        """As one chunk: an endpoint that does not stream, or streamed nothing but an error."""
        self.event(body, at)
        self._done = True

    def end(self) -> None:
        trace = self._trace
        if not (self._done or trace.finish_reason) and self._chunks:
            trace.fail("broken_stream", "The stream ended without a finish reason and without [DONE].")
        elif not trace.chunks and not trace.finish_reason:
            trace.fail("bad_answer", "The answer holds no token and no finish reason.")

    def _count(self, usage: _Usage) -> None:
        if usage.prompt_tokens is not None:
            self._trace.prompt_tokens = usage.prompt_tokens
        if usage.completion_tokens is not None:
            self._trace.output_tokens = usage.completion_tokens


def _text(choice: _Choice) -> str:
    """Empty where the choice carries no token."""
    if choice.text:
        return choice.text
    said = choice.delta or choice.message
    if said is None:
        return ""
    # Some endpoints give the same reasoning under both names.
    parts = [said.reasoning or said.reasoning_content, said.content, said.refusal]
    for call in said.tool_calls or ():
        if call.function is not None:
            parts += [call.function.name, call.function.arguments]
    return "".join([part for part in parts if part])


def _start(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")
