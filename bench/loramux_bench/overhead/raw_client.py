"""A caller on a socket of its own: when each piece of its answer came, and how the answer ended."""

import asyncio
import socket
import time
from array import array
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import cast

import httptools
import msgspec

DONE = b"data: [DONE]\n\n"
_ERROR = b'data: {"error"'
_CONNECT_S = 10.0


class End(StrEnum):
    """How a request ended, as its caller saw it."""

    WHOLE = "whole"
    """Status 200, and all of the answer; of a stream, up to `[DONE]`."""
    ERROR_FRAME = "error frame"
    """A stream that began, and that says in its last frame that it failed."""
    STATUS = "error status"
    """A whole answer of another status."""
    CUT = "cut"
    """The connection was closed in the middle of the answer, or the answer ended without `[DONE]`."""
    CLOSED = "closed"
    """The connection was closed before any byte of an answer."""
    REFUSED = "refused"
    """There was no connection."""
    LEFT = "left"
    """The caller went."""
    HUNG = "hung"
    """Not over when nobody wanted to wait any longer."""


class Answer:
    """Of one request. Times are of `time.perf_counter()`."""

    __slots__ = ("began_at", "body", "end", "ended_at", "id", "pieces_at", "status", "streamed")

    def __init__(self, id: str, *, streamed: bool) -> None:
        self.id = id
        self.streamed = streamed
        self.began_at = time.perf_counter()
        self.ended_at = 0.0
        self.status = 0
        self.end: End | None = None
        """None while it is under way."""
        self.body = bytearray()
        self.pieces_at = array("d")
        """When each piece of the body was read."""

    @property
    def took_s(self) -> float:
        return self.ended_at - self.began_at

    def settle(self, end: End) -> None:
        if self.end is None:
            self.end = end
            self.ended_at = time.perf_counter()


def request(
    address: tuple[str, int],
    headers: Mapping[str, str],
    model: str,
    id: str,
    *,
    tokens: int,
    stream: bool,
    prompt: str = "Tell me more.",
) -> bytes:
    """Of the chat interface, whole, with `id` as its request id."""
    body = msgspec.json.encode(
        {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
        }
    )
    host, port = address
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        f"host: {host}:{port}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        f"x-request-id: {id}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Reading:
    """One answer as it is read, by httptools."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.keep_alive = True
        """Whether the connection carries another request; known when the answer has settled."""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """What came of it."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.keep_alive = False
            self.answer.settle(End.CUT)

    def closed(self) -> None:
        """Nothing more will come."""
        self.keep_alive = False
        self.answer.settle(End.CUT if self.answer.status else End.CLOSED)

    def on_headers_complete(self) -> None:
        self.answer.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self.answer.end is None:
            self.answer.pieces_at.append(time.perf_counter())
            self.answer.body += body

    def on_message_complete(self) -> None:
        self.keep_alive = self._parser.should_keep_alive()
        self.answer.settle(end_of(self.answer))


class Caller(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reading: Reading | None = None
        self._heard: Callable[[], None] = lambda: None
        self._over: asyncio.Future[None] | None = None

    @classmethod
    async def connected(cls, address: tuple[str, int]) -> "Caller":
        """Raises `OSError`; `TimeoutError` is one."""
        async with asyncio.timeout(_CONNECT_S):
            _, caller = await asyncio.get_running_loop().create_connection(cls, *address)
        return caller

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def ask(
        self, asked: bytes, answer: Answer, *, timeout_s: float, heard: Callable[[], None] = lambda: None
    ) -> None:
        """Returns when `answer` has settled, which it has within `timeout_s`. `heard` is called whenever something
        came."""
        if self._transport is None or not self.open:
            answer.settle(End.CLOSED)
            return
        self._reading = Reading(answer)
        self._heard = heard
        over = self._over = asyncio.get_running_loop().create_future()
        self._transport.write(asked)
        try:
            async with asyncio.timeout(timeout_s):
                await over
        except TimeoutError:
            answer.settle(End.HUNG)
            self.reset()
        finally:
            self._over = None

    def close(self) -> None:
        """As a client ends in order: FIN."""
        self._leave()
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """As a client ends that has crashed: RST."""
        self._leave()
        if self._transport is not None:
            found = self._transport.get_extra_info("socket")
            if found is not None:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # of uvloop, which does not derive it

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._reading is not None:
            self._reading.closed()
            self._settled()

    def data_received(self, data: bytes) -> None:
        if self._reading is None:
            return
        self._reading.feed(data)
        self._heard()
        if self._reading is None:
            return  # who heard it has left
        if self._reading.answer.end is not None:
            keep_alive = self._reading.keep_alive
            self._settled()
            if not keep_alive and self._transport is not None:
                self._transport.close()

    def _leave(self) -> None:
        if self._reading is not None:
            self._reading.answer.settle(End.LEFT)
            self._settled()

    def _settled(self) -> None:
        self._reading = None
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


_NO_LINGER = b"\1\0\0\0\0\0\0\0"
"""`struct linger` with a time of 0: a close is a reset."""


def end_of(answer: Answer) -> End:
    """Of an answer that came to its end as HTTP has it."""
    if answer.status != 200:
        return End.STATUS
    if not answer.streamed or answer.body.endswith(DONE):
        return End.ERROR_FRAME if _ERROR in answer.body else End.WHOLE
    return End.ERROR_FRAME if _ERROR in answer.body else End.CUT
