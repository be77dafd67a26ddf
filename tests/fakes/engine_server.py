"""An engine that speaks vLLM's HTTP forms over a real socket, and misbehaves when told to."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

WORDS = ("The", " answer", " is", " forty", "-two", ".")


@dataclass(frozen=True)
class Received:
    """A request as its bytes came. `headers` have names in lower case."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw_head: bytes

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Behaviour:
    """What the next requests meet. The default is a healthy vLLM."""

    words: tuple[str, ...] = WORDS
    status: int = 200
    body: bytes | None = None
    """Sent as it is, in place of the answer's JSON."""
    raw: bytes | None = None
    """Sent as it is, in place of a response; then the connection closes."""
    headers: tuple[tuple[str, str], ...] = ()
    die_before_head: bool = False
    die_after_head: bool = False
    die_after_frames: int | None = None
    stall_before_head: bool = False
    stall_after_frames: int | None = None
    error_frame_after: int | None = None
    close_delimited: bool = False
    spaced_json: bool = False
    dead_core: bool = False
    """The API server lives, the engine process behind it does not."""
    refuse_models: frozenset[str] = frozenset()


@dataclass
class EngineServer:
    """Started by `engine_server`. `requests` are those to inference routes."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    once: list[Behaviour] = field(default_factory=list)
    """What the next requests meet, one each, before `behaviour` is back."""
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0
    sent_bytes: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets those go on that stall."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    """A caller left in the middle of an answer."""
    port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        """What came before; connections stay."""
        self.requests.clear()
        self.arrived.clear()
        self.sent_bytes = 0

    def kill(self) -> None:
        """What `kill -9` does to its connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_connections += 1
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._serve(reader, writer):
                pass
        self._writers.discard(writer)
        self.open_connections -= 1
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        raw_head = await reader.readuntil(b"\r\n\r\n")
        lines = raw_head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = tuple(
            (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:-2])
        )
        length = int(dict(headers).get("content-length", "0"))
        received = Received(method, path, headers, await reader.readexactly(length), raw_head)
        if path == "/health":
            await self._send_json(writer, 200, {})
        elif path == "/v1/models":
            await self._send_json(writer, 200, {"object": "list", "data": []})
        elif method == "POST" and path.startswith("/v1/") and "lora_adapter" not in path:
            self.requests.append(received)
            self.arrived.set()
            return await self._infer(received, reader, writer)
        else:
            await self._send_json(writer, 200, {})
        return True

    async def _infer(self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        behaviour = self.once.pop(0) if self.once else self.behaviour
        watch = asyncio.create_task(self._watch(reader))
        try:
            return await self._answer(behaviour, received, writer)
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """Notice that the caller left, as uvicorn does."""
        with suppress(ConnectionError):
            assert not await reader.read(1), "the gateway sends one request at a time"
        self.disconnected.set()
        self.gate.set()

    async def _answer(self, behaviour: Behaviour, received: Received, writer: asyncio.StreamWriter) -> bool:
        if behaviour.die_before_head:
            writer.transport.abort()
            return False
        if behaviour.stall_before_head:
            await self.gate.wait()
        if behaviour.raw is not None:
            writer.write(behaviour.raw)
            await writer.drain()
            return False
        request = received.json
        if request["model"] in behaviour.refuse_models:
            await self._send_json(writer, 404, _not_found(request["model"]))
        elif behaviour.dead_core and not request.get("stream"):
            await self._send_json(writer, 500, _dead())
        elif behaviour.body is not None:
            await self._send(writer, behaviour.status, behaviour.body, behaviour.headers)
        elif request.get("stream"):
            return await self._stream(behaviour, received, writer)
        elif behaviour.die_after_frames is not None:
            self._write(writer, b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99999\r\n\r\n")
            self._write(writer, b'{"object":')
            await writer.drain()
            writer.transport.abort()
            return False
        else:
            await self._send_json(writer, behaviour.status, _document(received), spaced=behaviour.spaced_json)
        return True

    async def _stream(self, behaviour: Behaviour, received: Received, writer: asyncio.StreamWriter) -> bool:
        framing = b"connection: close\r\n" if behaviour.close_delimited else b"transfer-encoding: chunked\r\n"
        self._write(
            writer, b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n" + framing + b"\r\n"
        )
        await writer.drain()
        if behaviour.die_after_head:
            writer.transport.abort()
            return False
        frames = [_frame(_dead()), b"data: [DONE]\n\n"] if behaviour.dead_core else list(_frames(behaviour, received))
        for number, frame in enumerate(frames):
            if behaviour.die_after_frames == number:
                writer.transport.abort()
                return False
            if behaviour.stall_after_frames == number:
                await self.gate.wait()
            if behaviour.error_frame_after == number:
                frame = _frame(_dead())
            self._write(writer, frame if behaviour.close_delimited else b"%x\r\n%b\r\n" % (len(frame), frame))
            await writer.drain()
        if not behaviour.close_delimited:
            self._write(writer, b"0\r\n\r\n")
            await writer.drain()
        return not behaviour.close_delimited

    def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.transport.is_closing():
            writer.write(data)
            self.sent_bytes += len(data)

    async def _send_json(self, writer: asyncio.StreamWriter, status: int, value: Any, *, spaced: bool = False) -> None:
        separators = (", ", ": ") if spaced else (",", ":")
        await self._send(writer, status, json.dumps(value, separators=separators).encode(), ())

    async def _send(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, headers: tuple[tuple[str, str], ...]
    ) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
        self._write(writer, head.encode() + body)
        await writer.drain()


@asynccontextmanager
async def engine_server(port: int = 0) -> AsyncIterator[EngineServer]:
    engine = EngineServer()
    server = await asyncio.start_server(engine._connected, "127.0.0.1", port)
    engine.port = server.sockets[0].getsockname()[1]
    try:
        yield engine
    finally:
        engine.gate.set()
        server.close()
        engine.kill()
        await server.wait_closed()


def _frame(value: Any, *, spaced: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return b"data: " + json.dumps(value, separators=separators).encode() + b"\n\n"


def _usage(words: tuple[str, ...] = WORDS) -> dict[str, int]:
    return {"prompt_tokens": 7, "total_tokens": 7 + len(words), "completion_tokens": len(words)}


def _frames(behaviour: Behaviour, received: Received) -> Iterator[bytes]:
    request = received.json
    chat = received.path == "/v1/chat/completions"
    base = {"id": "x-1", "object": "chunk", "created": 1, "model": request["model"]}
    for index, word in enumerate(behaviour.words):
        last = index == len(behaviour.words) - 1
        content = {"delta": {"role": "assistant", "content": word}} if chat else {"text": word}
        told = _told((word,), first=index) if request.get("return_token_ids") else {}
        choice = {"index": 0, **content, **told, "finish_reason": "stop" if last else None}
        yield _frame({**base, "choices": [choice]}, spaced=behaviour.spaced_json)
    if (request.get("stream_options") or {}).get("include_usage"):
        yield _frame({**base, "choices": [], "usage": _usage(behaviour.words)}, spaced=behaviour.spaced_json)
    yield b"data: [DONE]\n\n"


def _document(received: Received) -> dict[str, Any]:
    request = received.json
    base = {"id": "x-1", "created": 1, "model": request["model"]}
    text = "".join(WORDS)
    match received.path:
        case "/v1/chat/completions":
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return {**base, "object": "chat.completion", "choices": [choice], "usage": _usage()}
        case "/v1/embeddings":
            datum = {"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}
            return {**base, "object": "list", "data": [datum], "usage": {"prompt_tokens": 7, "total_tokens": 7}}
        case "/v1/responses":
            return {**base, "object": "response", "output": [], "usage": {"input_tokens": 7, "output_tokens": 6}}
        case _:
            told = _told(WORDS, first=0) if request.get("return_token_ids") else {}
            choice = {"index": 0, "text": text, **told, "finish_reason": "stop"}
            return {**base, "object": "text_completion", "choices": [choice], "usage": _usage()}


def _told(words: tuple[str, ...], *, first: int) -> dict[str, Any]:
    """The words as tokens; the prompt's come with the first."""
    return {
        "logprobs": {"tokens": list(words), "token_logprobs": [-0.5] * len(words)},
        "token_ids": [100 + first + index for index in range(len(words))],
        "prompt_token_ids": list(range(7)) if first == 0 else None,
    }


def _not_found(model: str) -> dict[str, Any]:
    message = f"The model `{model}` does not exist."
    return {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}}


def _dead() -> dict[str, Any]:
    message = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    return {"error": {"message": message, "type": "InternalServerError", "param": None, "code": 500}}
