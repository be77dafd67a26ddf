"""The gateway's HTTP server side: uvicorn's httptools protocol, with the inference routes taken out of ASGI.

Keep-alive, pipelining and flow control are uvicorn's. Added to it, for every route: limits and time-outs of heads and
bodies, checks of framing, and answers that reach a caller who is still sending. One at a time, a connection's requests
are answered in the order in which they came.
"""

import asyncio
import contextvars
from collections.abc import Mapping
from typing import Any, ClassVar

import httptools
import msgspec
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from loramux_adapters.errors import LoramuxError
from loramux_serving.relay.deadline import Awaits, Deadline
from loramux_serving.relay.exchange import Exchange, KnownHead, RequestHead, sticky_of
from loramux_serving.relay.framing import Framing, check_head
from loramux_serving.relay.handler import Relay
from loramux_serving.relay.headers import REQUEST_ID, engine_lines, first_of_each
from loramux_serving.relay.known_heads import cut
from loramux_serving.relay.refusal import Refusal, body_too_large, head_too_large, malformed

_log = structlog.get_logger(__name__)

LINGER_S = 2.0
"""How long a caller that is still sending is read from after its answer: were the connection closed on unread data,
TCP would reset it, and the answer could be lost."""
LINGER_BYTES = 4 * 1024 * 1024
MAX_PIPELINED = 16
"""Requests read ahead of the one that is answered. Reading on is how it is noticed that a caller has left."""

PLAIN: Mapping[str, Any] = {"ws": "none", "log_config": None, "access_log": False, "server_header": False}
"""How uvicorn is configured in all of the gateway's processes."""

_HEAD, _REST_OF_HEAD, _BODY = Awaits


def relay_protocol(relay: Relay) -> type[asyncio.Protocol]:
    """The class to give to `uvicorn.Config(http=…)`."""
    return type("BoundRelayProtocol", (RelayProtocol,), {"relay": relay})


class RelayProtocol(HttpToolsProtocol):
    """One connection of a caller. Use `relay_protocol`."""

    # uvicorn's own attributes are in the instance's dictionary; with these it would be too large to be a fast one.
    __slots__ = (
        "_ahead_bytes",
        "_arriving",
        "_awaits",
        "_beside_bytes",
        "_context",
        "_current",
        "_deadline",
        "_discarded_bytes",
        "_framing",
        "_head_bytes",
        "_idle_since",
        "_idle_timer",
        "_limits",
        "_linger_timer",
        "_max_body_bytes",
        "_max_head_bytes",
        "_piece_bytes",
        "_refusal",
        "_resuming",
        "_stall_timer",
    )

    relay: ClassVar[Relay]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        limits = self._limits = self.relay.settings
        # What each request needs: a setting of pydantic's takes long to read.
        self._max_head_bytes, self._max_body_bytes = limits.max_head_bytes, limits.max_body_bytes
        self._awaits = _HEAD
        self._head_bytes = 0
        """Bytes that came since the head began, but for the piece of `_piece_bytes` that is read now."""
        self._piece_bytes = 0
        self._beside_bytes = 0
        """Bytes since the last ones of a body: of a chunk's extension, or of trailers."""
        self._framing = Framing()
        self._deadline = Deadline(self.loop, self._limits, excused=self._excused, overdue=self._overdue)
        self._stall_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._refusal: Refusal | None = None
        self._discarded_bytes: int | None = None
        self._resuming = False
        self._ahead_bytes = 0
        self._current: Exchange | RequestResponseCycle | None = None
        self._arriving: Exchange | None = None
        """Its head has come, and nothing is before it."""

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._context = contextvars.copy_context()
        self._deadline.watch(self._awaits)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.stop()
        for timer in (self._stall_timer, self._linger_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self.pipeline.clear()
        if isinstance(self._current, Exchange):
            self._current.left()
        elif self._current is not None:
            self._current.disconnected = True
            self._current.message_event.set()
        if isinstance(self.cycle, Exchange):
            self.cycle = None  # type: ignore[assignment]  # uvicorn would treat it as one of its own
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self._discarded_bytes is not None:
            self._discard(data)
            return
        whole = None
        before: Any = self.cycle
        if self._awaits is _HEAD and (before is None or (before.response_complete and before.keep_alive)):
            whole = cut(data)
            if whole is not None and self._take_known(data, *whole):
                return
        length = self._piece_bytes = len(data)
        self._beside_bytes += length
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, Refusal) else malformed(f"The request can not be read: {cause}."))
        except httptools.HttpParserError as error:
            self._refuse(malformed(f"The request is not HTTP: {error}."))
        else:
            if self._awaits is _HEAD and self._arriving is not None:
                if self._deadline.runs:
                    self._deadline.stop()
            else:
                self._rest_follows(length)
        exchange = self._arriving
        if exchange is not None:
            self._arriving = None
            self._current = exchange
            self._ahead_bytes = 0
            body = exchange.body_now()
            if whole is not None and body is not None:
                self._keep_head(exchange.head, data, body, *whole)
            self.relay.begin(exchange, body, self.loop, self.tasks)

    def _take_known(self, data: bytes, cut_head: bytes, length: int, begin: int) -> bool:
        """A whole request with a head that was read before."""
        relay = self.relay
        head = relay.heads.get(cut_head)
        if head is None or length > self._max_body_bytes or begin > self._max_head_bytes:
            return False
        if head.framing.length != length:
            head = head.with_length(length)
            relay.heads.keep(cut_head, head)
        if self._deadline.runs:
            self._deadline.stop()
        exchange: Any = Exchange(head, self, relay.handle, self._max_body_bytes, True, body_complete=True)
        self.cycle = self._current = exchange
        self._ahead_bytes = 0
        relay.begin(exchange, data[begin:], self.loop, self.tasks)
        return True

    def _keep_head(self, head: RequestHead, data: bytes, body: bytes, cut_head: bytes, length: int, begin: int) -> None:
        """A request that came in one piece was read, and so was its head."""
        framing, told, dialect = head.framing, head.told, head.route.dialect
        if body != data[begin:] or framing.length != length or framing.expects_continue or not head.keep_alive:
            return
        if b"upgrade" in told or REQUEST_ID in told or dialect.signed(head):
            return
        try:
            credentials = dialect.credentials(head, body)
            lines = engine_lines(dialect.engine_headers(head.headers))
        except (LoramuxError, Refusal):
            return
        if isinstance(credentials, str | None):
            known = KnownHead(lines, credentials, sticky_of(head))
            self.relay.heads.keep(cut_head, msgspec.structs.replace(head, known=known))

    def _rest_follows(self, length: int) -> None:
        """So many bytes have come, and no request is to begin, or the next one's first bytes have come too."""
        awaits = self._awaits
        if awaits is _REST_OF_HEAD:
            self._head_bytes += length
            if self._head_bytes > self._max_head_bytes + HIGH_WATER_LIMIT:
                self._refuse(head_too_large(self._max_head_bytes))
                return
        elif awaits is _BODY and self._beside_bytes > self._max_head_bytes + HIGH_WATER_LIMIT:
            self._refuse(malformed("A chunk's extension or the trailers are too large."))
            return
        if awaits is _HEAD and self._busy():
            self._deadline.stop()
        else:
            self._deadline.watch(awaits)

    def _discard(self, data: bytes) -> None:
        if self._discarded_bytes is not None:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > LINGER_BYTES:
                self.transport.abort()

    def _decline_upgrade(self, rest: bytes) -> None:
        """No protocol is switched to, so the request is served as it stands (RFC 9110, section 7.8); Java's HTTP
        client offers h2c with each first request. llhttp stopped before the body: a new parser takes over there."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        framing = self._framing
        line = b"transfer-encoding: chunked" if framing.chunked else b"content-length: %d" % (framing.length or 0)
        self._resuming = True
        self.data_received(b"POST / HTTP/1.1\r\n%b\r\n\r\n%b" % (line, rest))

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        if self._resuming:
            return
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._awaits = _REST_OF_HEAD
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        if self._resuming:
            return
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._awaits is _BODY:
            return  # trailers are read and dropped: what is no part of the checked head must not count as one
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._resuming:
            self._resuming = False
            return
        parser, headers = self.parser, self.headers
        method = parser.get_method()
        version = parser.get_http_version()
        head_bytes = self._head_bytes + self._piece_bytes
        if head_bytes > self._max_head_bytes:  # of which some may be none of the head's
            head_bytes = len(self.url) + sum([len(name) + len(value) + 4 for name, value in headers])
        framing = self._framing = check_head(method, version, headers, head_bytes, self._max_head_bytes)
        self.expect_100_continue = framing.expects_continue
        doors, target = self.relay.doors, self.url
        route = (doors.at.get(target) or doors.find(target, headers)) if method == b"POST" else None
        self._beside_bytes = 0
        if route is None:
            self._begin_scope()
            super().on_headers_complete()
            self._awaits = _BODY  # not before: a target that can not be read refuses this request
            return
        self._awaits = _BODY
        http_10 = version == "1.0"
        keep_alive = not http_10 and parser.should_keep_alive()
        head = RequestHead(method, target, headers, first_of_each(headers), route, framing, http_10, keep_alive)
        exchange = Exchange(head, self, self.relay.handle, self._max_body_bytes, keep_alive)
        if framing.length is not None and framing.length > self._max_body_bytes:
            exchange.refuse(body_too_large(self._max_body_bytes))
        before: Any = self.cycle
        cycle: Any = exchange
        self.cycle = cycle
        if before is None or before.response_complete:
            self._arriving = exchange
            return
        self.pipeline.appendleft((cycle, self.app))
        if len(self.pipeline) >= MAX_PIPELINED:
            self.flow.pause_reading()

    def _begin_scope(self) -> None:
        """What uvicorn does when a message begins, and only ASGI needs."""
        url, headers, expects_continue = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects_continue
        self.headers.extend(headers)

    def on_body(self, body: bytes) -> None:
        self._beside_bytes = 0
        cycle: Any = self.cycle
        if type(cycle) is not Exchange:
            super().on_body(body)
            return
        cycle.body_received(body)
        if cycle is not self._arriving and cycle is not self._current:
            self._ahead_bytes += len(body)
            if self._ahead_bytes > HIGH_WATER_LIMIT:
                self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the body, if any, is still to come: see `_decline_upgrade`
        self._awaits = _HEAD
        cycle: Any = self.cycle
        if self._framing.chunked and not self.parser.should_keep_alive():
            cycle.keep_alive = False  # a trailer said so, and llhttp reads nothing more
        if type(cycle) is Exchange:
            cycle.body_ended()
        else:
            super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return False

    # The requests.

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return self.server_state.default_headers

    @property
    def write_paused(self) -> bool:
        return self.flow.write_paused

    def _busy(self) -> bool:
        """A request is under way or waits for its turn."""
        return self.cycle is not None and not self.cycle.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._current = cycle
        self._ahead_bytes = 0
        if not isinstance(cycle, Exchange):
            super()._start_asgi_task(cycle, app)
            return
        # Not at once: the request before it has not given back yet what it held.
        task = self.loop.create_task(cycle.run_asgi(app))
        cycle.waiting_task = task
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def exchange_ended(self, exchange: Exchange) -> None:
        if not exchange.keep_alive:
            if exchange.body_complete:
                self.transport.close()
            else:
                self._linger()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self._discarded_bytes is not None:
            self.pipeline.clear()
            return
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        waiting = bool(self.pipeline)
        if waiting:
            cycle, app = self.pipeline.pop()
            # The next request's task must not inherit what this one has bound to its context.
            self._context.run(self._start_asgi_task, cycle, app)
        else:
            self._idle_since = self.loop.time()
            if self._idle_timer is None:
                self._rest()
        if self._refusal is not None and not waiting and not self.transport.is_closing():
            self._context.run(self._answer, self._refusal)

    def _rest(self) -> None:
        """Nothing is to be answered. One timer for all times that this is so: uvicorn's own are two calls for each
        request."""
        self._idle_timer = self.loop.call_later(self._limits.keep_alive_s, self._on_idle)

    def _on_idle(self) -> None:
        self._idle_timer = None
        if self.transport.is_closing() or self._awaits is not _HEAD or self._busy():
            return  # a request has come; its answer's end begins a new time
        left_s = self._idle_since + self._limits.keep_alive_s - self.loop.time()
        if left_s > 0:
            self._idle_timer = self.loop.call_later(left_s, self._on_idle)
        elif self.transport.get_write_buffer_size():
            self.transport.abort()  # it has not read its last answer: a close would wait for that
        else:
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """Take nothing more of what the caller sends; answer when it is this request's turn, and close."""
        self._refusal = refusal
        cycle: Any = self.cycle
        if self._awaits is not _BODY:
            if not self._busy():
                self._answer(refusal)
        elif isinstance(cycle, Exchange):
            cycle.refuse(refusal)
        elif cycle is not self._current:
            self.pipeline.popleft()
        else:
            self._refuse_asgi(self.cycle, refusal)

    def _refuse_asgi(self, cycle: RequestResponseCycle, refusal: Refusal) -> None:
        if cycle.response_complete:
            self.transport.close()
        elif cycle.response_started:
            self.transport.abort()
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            self._answer(refusal)

    def _answer(self, refusal: Refusal) -> None:
        _log.info("request refused", status=refusal.status, error_code=refusal.code, reason=refusal.message)
        body = refusal.body()
        headers = b"".join([b"%b: %b\r\n" % header for header in self.default_headers])
        self.transport.write(
            b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (STATUS_LINE[refusal.status], headers, len(body), body)
        )
        self._linger()

    def _linger(self) -> None:
        """Close in a way that lets the caller read its answer though it is still sending."""
        self._discarded_bytes = 0
        if self.transport.is_closing():
            return
        self._deadline.stop()
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._linger_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    # Time.

    def _excused(self) -> bool:
        return self.flow.read_paused or (self._awaits is not _BODY and self._busy())

    def _overdue(self, refusal: Refusal | None) -> None:
        if self.transport.is_closing() or self._refusal is not None:
            return
        if refusal is not None:
            self._refuse(refusal)
        elif self._idle_timer is None:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self._limits.write_timeout_s, self.transport.abort)
        if isinstance(self._current, Exchange):
            self._current.writing_paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        if isinstance(self._current, Exchange):
            self._current.writing_resumed()
