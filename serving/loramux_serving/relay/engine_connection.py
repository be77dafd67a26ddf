"""One connection to an engine: an HTTP/1.1 client for one request at a time."""

import asyncio
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol, cast

import httptools
import msgspec

from loramux_adapters.errors import EngineFailed, EngineTimeout, LoramuxError
from loramux_serving.relay.eager import Signal
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.headers import CONTENT_LENGTH, first_of_each
from loramux_serving.relay.known_heads import KnownHeads, cut

MAX_HEAD_BYTES = 1024 * 1024
MAX_WAITING_BYTES = 256 * 1024
"""Most bytes of an answer that are held for somebody to take them; then reading stops."""

Sink = Callable[[bytes], None]
"""Takes a piece of an answer's body."""


class Waiter(Protocol):
    def set(self) -> None: ...


class Stage(IntEnum):
    """How far the answer to the request is. A stage includes those before it."""

    SENT = 0
    HEAD = 1
    BODY = 2
    COMPLETE = 3


_SENT, _HEAD, _BODY, _COMPLETE = Stage


class AnswerHead(msgspec.Struct, frozen=True, gc=False):
    """Of an answer that says its length, on a connection that stays."""

    status: int
    headers: Headers
    is_stream: bool


class EngineConnection(asyncio.Protocol):
    """Made by a pool, which calls `send` and, at the end, `release` or `abort`. In between `status`, `headers`,
    `reach` and `copy_to` are for whoever relays the answer.

    Bytes are handed on within the callback that received them, and so is the word that the answer is there or has
    failed, as the last thing that the callback does: relaying takes no task switch. While the sink's
    reader is slow (`pause`), the engine's socket is not read.
    """

    __slots__ = (
        "_busy",
        "_head_bytes",
        "_heads",
        "_heard_at",
        "_held",
        "_idle_s",
        "_interim",
        "_limit_s",
        "_lines",
        "_loop",
        "_on_lost",
        "_parser",
        "_paused",
        "_pieces",
        "_reusable",
        "_sink",
        "_stage",
        "_timer",
        "_transport",
        "_until_close",
        "_waiting_bytes",
        "_wanted",
        "_watched",
        "answered",
        "error",
        "headers",
        "idle_since",
        "is_stream",
        "lost",
        "status",
        "waiter",
    )

    def __init__(
        self, on_lost: "Callable[[EngineConnection], None]", heads: "KnownHeads[AnswerHead] | None" = None
    ) -> None:
        """`heads` are those of one engine."""
        self.status = 0
        self.headers: Headers = ()
        """Without Content-Length."""
        self.is_stream = False
        """The answer is of server-sent events."""
        self.answered = False
        """The engine has sent any byte in answer to the request."""
        self.idle_since = 0.0
        self._on_lost = on_lost
        self._heads: KnownHeads[AnswerHead] = KnownHeads() if heads is None else heads
        self._lines: list[tuple[bytes, bytes]] = []
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._busy = False
        self.lost = False
        """It is closed; one that is only closing fails at `send`."""
        self._stage = Stage.SENT
        self.error: LoramuxError | None = None
        """Why no answer, or no more of it, will come."""
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._head_bytes = 0
        self._sink: Sink | None = None
        self._interim = False
        self._until_close = False
        self._reusable = False
        self._paused = False
        self._held = False
        self.waiter: Waiter | None = None
        """Is told when the answer has come as far as somebody waits for it, or has failed."""
        self._wanted = Stage.SENT
        self._timer: asyncio.TimerHandle | None = None
        self._watched = False
        self._limit_s = self._idle_s = 0.0
        self._heard_at = 0.0

    # For the pool.

    @property
    def alive(self) -> bool:
        return not self.lost and self._transport is not None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes, first_byte_s: float, idle_s: float) -> None:
        """Begin a request. The engine then has `first_byte_s` until the first byte of the answer's body, and `idle_s`
        between any two."""
        self.status, self.headers, self.is_stream, self.answered = 0, (), False, False
        self._busy, self._stage, self.error, self._sink = True, _SENT, None, None
        self._head_bytes = self._waiting_bytes = 0
        self._lines.clear()
        self._pieces.clear()
        self._reusable = False
        self._wanted = _HEAD
        self._idle_s = idle_s
        self._watched, self._limit_s = True, first_byte_s
        self._heard_at = now = self._loop.time()
        if self._timer is None or self._timer.when() > now + first_byte_s:
            self._arm(first_byte_s)
        transport = self._transport
        if transport is None or self.lost or transport.is_closing():
            self._fail(EngineFailed("The engine closed the connection."))
        elif len(body) < 65536:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)

    def release(self) -> bool:
        """The answer was taken whole. True where the connection can carry another request."""
        self._watched = False
        self._sink = None
        self._busy = False
        self._pieces.clear()
        if self._paused:  # its reader was slow to the end, and will not say when it goes on
            self._paused = False
            self._update_reading()
        return self._reusable and self._stage is _COMPLETE and self.error is None and not self.lost

    def abort(self) -> None:
        """Close at once. This is how vLLM learns that nobody wants the rest."""
        self._drop_timer()
        self._sink = None
        if self._transport is not None:
            self._transport.abort()

    # For the relay.

    async def reach(self, stage: Stage) -> None:
        """Wait until the answer is at `stage`. Raises `EngineFailed`, `EngineTimeout`."""
        while self._stage < stage:
            if self.error is not None:
                raise self.error
            self._wanted = stage
            signal = self.waiter = Signal(self._loop)
            try:
                await signal
            finally:
                self.waiter = None

    @property
    def short(self) -> bool:
        """What is yet to come of the answer is a document, as far as is known, and will be held."""
        return self.error is None and not self.is_stream and not self._held and self._stage is not _COMPLETE

    def whole(self) -> bytes | None:
        """The answer's body where all of it is there and none was given yet, else None. It can be asked for until the
        connection is released."""
        pieces = self._pieces
        if self._stage is not _COMPLETE or self._held or self.error is not None or self._sink is not None:
            return None
        self._watched = False
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def copy_to(self, sink: Sink) -> None:
        """Give `sink` the answer's body, in pieces as they come, until it is complete. Raises `EngineFailed`,
        `EngineTimeout`, and the `LoramuxError` that `sink` raises; what came before was given."""
        self._sink = sink
        self._deliver()
        await self.reach(Stage.COMPLETE)

    def peek(self) -> bytes:
        """What of the body has come and was not given yet."""
        return b"".join(self._pieces)

    def pause(self) -> None:
        """The reader is slow. Until `resume`, the engine's silence is not held against it."""
        if not self._paused:
            self._paused = True
            self._watched = False
            self._update_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._arm(self._limit_s)
            self._update_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            self.abort()
            return
        self.answered = True
        whole = None
        if self._stage is _SENT:
            if not self._head_bytes:
                whole = cut(data)
                if whole is not None:
                    head, length, begin = whole
                    known = self._heads.get(head)
                    if known is not None:
                        # A whole answer with a head that was read before.
                        self.status, self.headers, self.is_stream = known.status, known.headers, known.is_stream
                        self._stage, self._reusable, self._watched = _COMPLETE, True, False
                        if length:
                            self._pieces.append(data[begin:])
                        if self.waiter is not None:
                            self.waiter.set()
                        return
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(EngineFailed(f"The engine's answer is not HTTP: {error}."))
            return
        if self._stage < _HEAD and self._head_bytes > MAX_HEAD_BYTES:
            self._fail(EngineFailed(f"The head of the engine's answer is larger than {MAX_HEAD_BYTES} bytes."))
            return
        stage = self._stage
        if stage is _COMPLETE and self._sink is None and not self._held:
            if whole is not None:
                self._keep(data, *whole)
            self._watched = False
            if self.waiter is not None:
                self.waiter.set()
            return
        if stage is _BODY:
            self._heard_at = self._loop.time()
            if self._limit_s != self._idle_s and not self._paused:
                self._arm(self._idle_s)
        self._deliver()

    def _keep(self, data: bytes, head: bytes, length: int, begin: int) -> None:
        """An answer that came in one piece was read, and so was its head."""
        if self._reusable and self.status not in (204, 304) and self._pieces == ([data[begin:]] if length else []):
            self._heads.keep(head, AnswerHead(self.status, self.headers, self.is_stream))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._drop_timer()
        self._on_lost(self)
        if self._busy and self._stage < Stage.COMPLETE:
            if self._until_close and self._stage >= Stage.HEAD and exc is None and self.error is None:
                self._stage = Stage.COMPLETE
                self._deliver()
            else:
                when = "in the middle of its answer" if self._stage >= Stage.HEAD else "before it answered"
                self._fail(EngineFailed(f"The engine closed the connection {when}."))

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        if self._stage is _COMPLETE:
            self._reusable = False
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage < _HEAD:  # later ones are trailers
            self._lines.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self.status = self._parser.get_status_code()
        if not 100 <= status <= 599:
            raise ValueError(f"a status of {status}")
        self._interim = status < 200
        if self._interim:
            self._lines.clear()
            return
        lines = self._lines
        values = first_of_each(lines)
        self.headers = tuple([line for line in lines if line[0] != CONTENT_LENGTH])
        framed = CONTENT_LENGTH in values or b"transfer-encoding" in values or status in (204, 304)
        self.is_stream = b"content-type" in values and values[b"content-type"].startswith(b"text/event-stream")
        self._until_close = not framed
        self._reusable = framed and self._parser.should_keep_alive()
        self._stage = _HEAD

    def on_body(self, body: bytes) -> None:
        self._stage = _BODY
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if not self._interim:
            self._stage = _COMPLETE

    # Within.

    def _deliver(self) -> None:
        if self._pieces:
            if self._sink is not None:
                data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
                self._pieces.clear()
                self._waiting_bytes = 0
                try:
                    self._sink(data)
                except LoramuxError as error:
                    self._fail(error)
                    return
            else:
                self._waiting_bytes = sum(map(len, self._pieces))
        if self._held is not (self._waiting_bytes > MAX_WAITING_BYTES):
            self._held = not self._held
            self._update_reading()
        if self._stage is _COMPLETE:
            self._watched = False
        if self.waiter is not None and self._stage >= self._wanted:
            self.waiter.set()

    def _fail(self, error: LoramuxError) -> None:
        if self.error is None:
            self.error = error
        self._stage = min(self._stage, Stage.BODY)
        self.abort()
        if self.waiter is not None:
            self.waiter.set()

    def _update_reading(self) -> None:
        if not self.alive or self._transport is None:
            return
        if self._paused or self._held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _arm(self, limit_s: float) -> None:
        """From now on the engine must not be silent for `limit_s`. The timer of an earlier request or limit is used
        again: where it comes too soon it is set anew, and that is once in a while, not with each request."""
        self._watched = True
        self._limit_s = limit_s
        self._heard_at = now = self._loop.time()
        if self._timer is not None:
            if self._timer.when() <= now + limit_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(limit_s, self._on_timer)

    def _drop_timer(self) -> None:
        self._watched = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if not self._watched:
            return
        silent_s = self._loop.time() - self._heard_at
        if silent_s < self._limit_s:
            self._timer = self._loop.call_later(self._limit_s - silent_s, self._on_timer)
            return
        what = "send the first byte of its answer" if self._stage < Stage.BODY else "go on with its answer"
        self._fail(EngineTimeout(f"The engine did not {what} within {self._limit_s:g} s."))
