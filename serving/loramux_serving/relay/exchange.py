"""The caller's side of one inference request: its body as it comes, its answer as it goes."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from loramux_adapters.errors import LoramuxError
from loramux_serving.relay.dialect import Asked, Route
from loramux_serving.relay.eager import Cancellable
from loramux_serving.relay.framing import Framing, Headers
from loramux_serving.relay.headers import joined
from loramux_serving.relay.refusal import Refusal, body_too_large

_log = structlog.get_logger(__name__)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Source(Protocol):
    """What an answer's bytes come from, as far as back-pressure goes."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class CallerConnection(Protocol):
    """The connection that an exchange is one of many on."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def transport(self) -> asyncio.Transport: ...

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]: ...

    @property
    def write_paused(self) -> bool: ...

    def exchange_ended(self, exchange: "Exchange") -> None:
        """The answer is written: go on with the next request, or close."""
        ...


class RequestHead(Asked, frozen=True):
    """A head that passed `framing.check_head`, at one of the relay's doors."""

    route: Route
    framing: Framing
    http_10: bool
    keep_alive: bool


class Exchange:
    """One request and its answer. uvicorn's protocol takes it for one of its own request-response cycles: it reads
    `response_complete` and sets `keep_alive`, and runs `run_asgi` as the request's task when its turn has come.

    Bodies are held in memory, up to `max_body_bytes`. Nothing is written before `start`.
    """

    __slots__ = (
        "_arrival",
        "_chunked",
        "_connection",
        "_max_body_bytes",
        "_pending",
        "_pieces",
        "_received_bytes",
        "_refusal",
        "_source",
        "_task",
        "_work",
        "body_complete",
        "disconnected",
        "head",
        "keep_alive",
        "response_complete",
        "response_started",
        "waiting_task",
    )

    def __init__(
        self,
        head: RequestHead,
        connection: CallerConnection,
        work: "Callable[[Exchange], Coroutine[Any, Any, None]]",
        max_body_bytes: int,
    ) -> None:
        self.head = head
        self.keep_alive = head.keep_alive
        self.response_started = False
        self.response_complete = False
        self.body_complete = False
        self.disconnected = False
        self._connection = connection
        self._work = work
        self._max_body_bytes = max_body_bytes
        self._pieces: list[bytes] = []
        self._received_bytes = 0
        self._refusal: Refusal | None = None
        self._arrival: asyncio.Future[None] | None = None
        self.waiting_task: Cancellable | None = None
        """Its task, until that makes its first step. Set by the connection."""
        self._task: Cancellable | None = None
        self._source: Source | None = None
        self._pending = b""
        self._chunked = False
        length = head.framing.length
        if length is not None and length > max_body_bytes:
            self._refusal = body_too_large(max_body_bytes)

    # Called by the connection.

    async def run_asgi(self, app: object) -> None:
        """The request's task, and its outermost frame: whatever happens, the caller gets an end."""
        # A task that is cancelled before its first step makes none, and the request would not be told of.
        self._task, self.waiting_task = self.waiting_task, None
        if self.disconnected and self._task is not None:
            self._task.cancel()
        try:
            await self._work(self)
        except Exception:
            route = self.head.route
            _log.exception("request failed unexpectedly", endpoint=route.label)
            if not self.response_started and not self.disconnected:
                words = route.dialect.error(LoramuxError("The gateway failed. Its log says why."))
                self.answer(words.status, words.headers, words.body)
        finally:
            if not self.response_complete:
                self.abort()

    def body_received(self, data: bytes) -> None:
        if self._refusal is not None or self.response_complete:
            return
        self._received_bytes += len(data)
        if self._received_bytes > self._max_body_bytes:
            self.refuse(body_too_large(self._max_body_bytes))
            return
        self._pieces.append(data)

    def body_ended(self) -> None:
        self.body_complete = True
        if self._arrival is not None:
            self._arrived()

    def refuse(self, refusal: Refusal) -> None:
        """The rest of the body will not come, or must not."""
        self._refusal = self._refusal or refusal
        self._pieces.clear()
        self._arrived()

    def left(self) -> None:
        """The caller has gone: the request's task is cancelled, unless all that is left to it is to clean up."""
        self.disconnected = True
        if self._task is not None and not self.response_complete:
            self._task.cancel()

    def end_now(self) -> None:
        """The request has outlasted its time."""
        if self._task is not None and not self.response_complete:
            self._task.cancel("the adapter's version was taken away")

    def writing_paused(self) -> None:
        if self._source is not None:
            self._source.pause()

    def writing_resumed(self) -> None:
        if self._source is not None:
            self._source.resume()

    # Called by the request's task.

    @property
    def received_bytes(self) -> int:
        """Bytes of the body that have come."""
        return self._received_bytes

    async def arrival(self) -> None:
        """Wait until the body is there, or will not come. Lets the caller send it where it asked first."""
        if self._refusal is None and not self.body_complete:
            if self.head.framing.expects_continue and not self._received_bytes and not self.head.http_10:
                self._connection.transport.write(_CONTINUE)
            self._arrival = self._connection.loop.create_future()
            await self._arrival

    def take_body(self) -> bytes:
        """The whole body, after `arrival`. Raises `Refusal`: too large, too slow, or malformed."""
        if self._refusal is not None:
            raise self._refusal
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def start(self, status: int, headers: bytes, length: int | None = None) -> None:
        """The answer's head; it is written with the first bytes of the body. Without `length` the body is chunked, or
        for HTTP/1.0 ends with the connection. `headers` are lines, without framing and `Connection`."""
        self.response_started = True
        head = [STATUS_LINE[status], headers]
        if status in (204, 304):
            pass  # neither has a body, and a length would be another answer's (RFC 9110, section 8.6)
        elif length is not None:
            head.append(b"content-length: %d\r\n" % length)
        elif self.head.http_10:
            self.keep_alive = False
        else:
            self._chunked = True
            head.append(b"transfer-encoding: chunked\r\n")
        if not self.body_complete:
            self.keep_alive = False
        if not self.keep_alive:
            head.append(b"connection: close\r\n")
        head.append(b"\r\n")
        self._pending = b"".join(head)

    def write(self, data: bytes) -> None:
        if not data or self.disconnected:
            return
        if self._chunked:
            data = b"%b%x\r\n%b\r\n" % (self._pending, len(data), data)
        elif self._pending:
            data = self._pending + data
        self._pending = b""
        self._connection.transport.write(data)

    def end(self) -> None:
        """The answer is whole."""
        if self.disconnected:
            return
        if self._chunked:
            self._connection.transport.write(self._pending + b"0\r\n\r\n")
        elif self._pending:
            self._connection.transport.write(self._pending)
        self._source = None
        self.response_complete = True
        self._connection.exchange_ended(self)

    def pass_whole(self, status: int, headers: bytes, body: bytes) -> None:
        """`start`, `write` and `end` in one."""
        if self.keep_alive and self.body_complete and status not in (204, 304) and not self.disconnected:
            self.response_started = self.response_complete = True
            self._connection.transport.write(
                b"%b%bcontent-length: %d\r\n\r\n%b" % (STATUS_LINE[status], headers, len(body), body)
            )
            self._connection.exchange_ended(self)
            return
        self.start(status, headers, len(body))
        self.write(body)
        self.end()

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer of the gateway's own."""
        self.start(status, joined([*self._connection.default_headers, *headers]), len(body))
        self.write(body)
        self.end()

    def abort(self) -> None:
        """Break off, so that the caller can not take what it has for a whole answer."""
        self._source = None
        self._connection.transport.abort()

    def draw_from(self, source: Source) -> None:
        """From now on `source` is paused while the caller does not read."""
        self._source = source
        if self._connection.write_paused:
            source.pause()

    def _arrived(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
