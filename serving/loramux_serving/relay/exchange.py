"""The caller's side of one inference request: its body as it comes, its answer as it goes."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from loramux_adapters.errors import LoramuxError
from loramux_serving.relay.dialect import Asked, Route
from loramux_serving.relay.eager import Cancellable
from loramux_serving.relay.framing import Framing, Headers
from loramux_serving.relay.headers import CONTENT_LENGTH, STICKY, joined
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

    def on_response_complete(self) -> None:
        """As `exchange_ended`, for one after which the connection stays."""
        ...

    def exchange_ended(self, exchange: "Exchange") -> None:
        """The answer is written: go on with the next request, or close."""
        ...


class KnownHead(msgspec.Struct, frozen=True, gc=False):
    """What follows from a head whatever its Content-Length is: what the engine gets of its headers, and what the caller
    shows, where that is no signature."""

    engine_lines: bytes
    credentials: str | None
    sticky: str | None


class RequestHead(Asked, frozen=True):
    """A head that passed `framing.check_head`, at one of the relay's doors. `known` has what follows from it, None
    where that was not found out yet."""

    route: Route
    framing: Framing
    http_10: bool
    keep_alive: bool
    known: "KnownHead | None" = None

    def with_length(self, length: int) -> "RequestHead":
        """The same with a Content-Length of `length`, where it has one."""
        value = b"%d" % length
        return RequestHead(
            self.method,
            self.target,
            [(name, value) if name == CONTENT_LENGTH else (name, other) for name, other in self.headers],
            {**self.told, CONTENT_LENGTH: value},
            self.route,
            Framing(length),
            self.http_10,
            self.keep_alive,
            self.known,
        )


def sticky_of(head: RequestHead) -> str | None:
    value = head.told.get(STICKY)
    return None if value is None else value.decode("latin-1")


class Exchange(msgspec.Struct, eq=False):
    """One request and its answer. uvicorn's protocol takes it for one of its own request-response cycles: it reads
    `response_complete` and sets `keep_alive`, and runs `run_asgi` as the request's task when its turn has come.

    Bodies are held in memory, up to `max_body_bytes`. Nothing is written before `start`.
    """

    head: RequestHead
    connection: CallerConnection
    work: "Callable[[Exchange], Coroutine[Any, Any, None]]"
    """The request's way."""
    max_body_bytes: int
    keep_alive: bool
    response_started: bool = False
    response_complete: bool = False
    body_complete: bool = False
    disconnected: bool = False
    waiting_task: Cancellable | None = None
    """Its task, until that makes its first step. Set by the connection."""
    task: Cancellable | None = None
    """What is cancelled where the request must end."""
    received_bytes: int = 0
    """Bytes of the body that have come."""
    _pieces: list[bytes] = []
    _refusal: Refusal | None = None
    _arrival: asyncio.Future[None] | None = None
    _source: Source | None = None
    _pending: bytes = b""
    _chunked: bool = False

    # Called by the connection.

    async def run_asgi(self, app: object) -> None:
        """The request's task."""
        await self.run(self.work(self))

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """The outermost frame of a request's task: whatever happens, the caller gets an end."""
        # A task that is cancelled before its first step makes none, and the request would not be told of.
        self.task, self.waiting_task = self.waiting_task, None
        if self.disconnected and self.task is not None:
            self.task.cancel()
        try:
            await work
        except Exception:
            self.fail()
        finally:
            if not self.response_complete:
                self.abort()

    def fail(self) -> None:
        """To be called where something was raised that nobody thought of."""
        route = self.head.route
        _log.exception("request failed unexpectedly", endpoint=route.label)
        if not self.response_started and not self.disconnected:
            words = route.dialect.error(LoramuxError("The gateway failed. Its log says why."))
            self.answer(words.status, words.headers, words.body)
        if not self.response_complete:
            self.abort()

    def body_received(self, data: bytes) -> None:
        if self._refusal is not None or self.response_complete:
            return
        self.received_bytes += len(data)
        if self.received_bytes > self.max_body_bytes:
            self.refuse(body_too_large(self.max_body_bytes))
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
        if self.task is not None and not self.response_complete:
            self.task.cancel()

    def end_now(self) -> None:
        """The request has outlasted its time."""
        if self.task is not None and not self.response_complete:
            self.task.cancel("the adapter's version was taken away")

    def writing_paused(self) -> None:
        if self._source is not None:
            self._source.pause()

    def writing_resumed(self) -> None:
        if self._source is not None:
            self._source.resume()

    # Called by the request's task.

    async def arrival(self) -> None:
        """Wait until the body is there, or will not come. Lets the caller send it where it asked first."""
        if self._refusal is None and not self.body_complete:
            if self.head.framing.expects_continue and not self.received_bytes and not self.head.http_10:
                self.connection.transport.write(_CONTINUE)
            self._arrival = self.connection.loop.create_future()
            await self._arrival

    def body_now(self) -> bytes | None:
        """As `take_body`, where nothing has to be waited for or raised."""
        return self.take_body() if self.body_complete and self._refusal is None else None

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
        self.connection.transport.write(data)

    def end(self) -> None:
        """The answer is whole."""
        if self.disconnected:
            return
        if self._chunked:
            self.connection.transport.write(self._pending + b"0\r\n\r\n")
        elif self._pending:
            self.connection.transport.write(self._pending)
        self._source = None
        self.response_complete = True
        self.connection.exchange_ended(self)

    def pass_whole(self, status: int, headers: bytes, body: bytes) -> None:
        """`start`, `write` and `end` in one."""
        if self.keep_alive and self.body_complete and status not in (204, 304) and not self.disconnected:
            self.response_started = self.response_complete = True
            self.connection.transport.write(
                b"%b%bcontent-length: %d\r\n\r\n%b" % (STATUS_LINE[status], headers, len(body), body)
            )
            self.connection.on_response_complete()
            return
        self.start(status, headers, len(body))
        self.write(body)
        self.end()

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer of the gateway's own."""
        self.start(status, joined([*self.connection.default_headers, *headers]), len(body))
        self.write(body)
        self.end()

    def abort(self) -> None:
        """Break off, so that the caller can not take what it has for a whole answer."""
        self._source = None
        self.connection.transport.abort()

    def draw_from(self, source: Source) -> None:
        """From now on `source` is paused while the caller does not read."""
        self._source = source
        if self.connection.write_paused:
            source.pause()

    def _arrived(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
