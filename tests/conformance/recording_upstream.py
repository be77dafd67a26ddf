"""An engine that keeps every byte it gets, reads requests with h11, and answers with whatever bytes it is told to."""

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, cast

import h11

MAX_HEAD_BYTES = 256 * 1024


class Step(Enum):
    """What an engine does between two pieces of its answer."""

    CLOSE = auto()
    RESET = auto()
    STALL = auto()
    """Wait until `RecordingUpstream.release`, or until the gateway has left."""
    STOP_READING = auto()


@dataclass(frozen=True)
class Script:
    """What one request meets. `early`: the answer begins at the end of the request's head."""

    steps: tuple[bytes | Step, ...]
    early: bool = False


@dataclass(frozen=True)
class Received:
    """A request as h11 reads it. Names of headers are in lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.headers}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RecordingUpstream:
    """Of one event loop. What no script is left for gets a healthy answer that repeats the request's id."""

    scripts: deque[Script] = field(default_factory=deque)
    requests: list[Received] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What of the gateway's bytes h11 does not take for one request after another, each answered before the next."""
    raw: list[bytearray] = field(default_factory=list)
    """All bytes that came, one item for each connection."""
    left_early: int = 0
    """Connections that the gateway closed while an answer was under way."""
    port: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    live: "set[_Connection]" = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bytes_seen(self) -> bytes:
        return b"\n--\n".join(map(bytes, self.raw))

    def reset(self) -> None:
        """Forget everything, and break all connections."""
        for connection in list(self.live):
            connection.transport.abort()
        self.live.clear()
        self.gate.set()
        self.gate = asyncio.Event()
        self.scripts.clear()
        self.requests.clear()
        self.faults.clear()
        self.raw.clear()
        self.left_early = 0

    def release(self) -> None:
        self.gate.set()


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, upstream: RecordingUpstream) -> None:
        self._upstream = upstream
        self._gate = upstream.gate
        self._parser = _parser()
        self._head: h11.Request | None = None
        self._body = b""
        self._answer: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._raw = bytearray()
        self._begun = False
        self._early = False

    @property
    def busy(self) -> bool:
        """An answer is under way, and its first bytes are out."""
        return self._begun and self._answer is not None and not self._answer.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._upstream.live.add(self)
        self._upstream.raw.append(self._raw)

    def data_received(self, data: bytes) -> None:
        if self not in self._upstream.live:
            return
        self._raw += data
        if self._answer is not None and not self._answer.done() and self._parser.their_state is h11.DONE:
            self._upstream.faults.append(f"bytes before the answer was whole: {data!r}")
        self._parser.receive_data(data)
        try:
            while self._read_event():
                pass
        except h11.RemoteProtocolError as error:
            self._upstream.faults.append(f"{error}: {bytes(self._raw)!r}")
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        if self in self._upstream.live:
            self._upstream.live.discard(self)
            self._upstream.left_early += self._answer is not None and not self._answer.done()

    def _read_event(self) -> bool:
        event = self._parser.next_event()
        if event in (h11.NEED_DATA, h11.PAUSED):
            return False
        if isinstance(event, h11.Request):
            self._head, self._body = event, b""
            self._early = bool(self._upstream.scripts) and self._upstream.scripts[0].early
            if self._early:
                self._play()
        elif isinstance(event, h11.Data):
            self._body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            self._request_ended()
        return not isinstance(event, h11.ConnectionClosed)

    def _request_ended(self) -> None:
        assert self._head is not None
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._head.headers)
        received = Received(self._head.method.decode(), self._head.target.decode("latin-1"), headers, self._body)
        self._upstream.requests.append(received)
        rest, _ = self._parser.trailing_data
        if rest:
            self._upstream.faults.append(f"bytes after a request: {rest!r}")
        self._parser = _parser()
        if not self._early:
            self._play(received)
        self._early = False

    def _play(self, received: Received | None = None) -> None:
        script = self._upstream.scripts.popleft() if self._upstream.scripts else Script((_echo(received),))
        self._begun = False
        self._answer = asyncio.get_running_loop().create_task(self._perform(script))

    async def _perform(self, script: Script) -> None:
        for step in script.steps:
            match step:
                case bytes():
                    self.transport.write(step)
                    self._begun = True
                    await asyncio.sleep(0)
                case Step.CLOSE:
                    self.transport.close()
                case Step.RESET:
                    raw: socket.socket = self.transport.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.transport.abort()
                case Step.STOP_READING:
                    self.transport.pause_reading()
                case Step.STALL:
                    waits = [asyncio.create_task(event.wait()) for event in (self._gate, self._lost)]
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    for wait in waits:
                        wait.cancel()


def _parser() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)


def _echo(received: Received | None) -> bytes:
    """A chat completion, as far as the gateway reads it."""
    identity = received.all("x-request-id") if received is not None else []
    body = json.dumps({"id": "".join(identity), "object": "chat.completion", "choices": []}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@asynccontextmanager
async def recording_upstream() -> AsyncIterator[RecordingUpstream]:
    """One that listens, in this loop."""
    upstream = RecordingUpstream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(upstream), "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        upstream.reset()
        server.close()
        await server.wait_closed()
