"""One connection to an engine: an HTTP/1.1 client for one request at a time."""

import asyncio
from collections.abc import Callable
from enum import IntEnum
from typing import cast

import httptools

from loramux_adapters.errors import EngineFailed, EngineTimeout, LoramuxError
from loramux_serving.relay.eager import Signal

MAX_HEAD_BYTES = 1024 * 1024
MAX_WAITING_BYTES = 256 * 1024
"""Most bytes of an answer that are held for somebody to take them; then reading stops."""

Sink = Callable[[bytes], None]
"""Takes a piece of an answer's body."""


class Stage(IntEnum):
    """How far the answer to the request is. A stage includes those before it."""

    SENT = 0
    HEAD = 1
    BODY = 2
    COMPLETE = 3


_HEAD, _BODY, _COMPLETE = Stage.HEAD, Stage.BODY, Stage.COMPLETE


class EngineConnection(asyncio.Protocol):
    """Made by a pool, which calls `send` and, at the end, `release` or `abort`. In between `status`, `headers`,
    `reach` and `copy_to` are for whoever relays the answer.

    Bytes are handed on within the callback that received them, and so is the word that the answer is there or has
    failed, as the last thing that the callback does: relaying takes no task switch. While the sink's
    reader is slow (`pause`), the engine's socket is not read.
    """

    def __init__(self, on_lost: "Callable[[EngineConnection], None]") -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_stream = False
        """The answer is of server-sent events."""
        self.answered = False
        """The engine has sent any byte in answer to the request."""
        self.idle_since = 0.0
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._busy = False
        self._lost = False
        self._stage = Stage.SENT
        self._error: LoramuxError | None = None
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._head_bytes = 0
        self._sink: Sink | None = None
        self._interim = False
        self._until_close = False
        self._reusable = False
        self._paused = False
        self._held = False
        self._waiter: Signal | None = None
        self._wanted = Stage.SENT
        self._timer: asyncio.TimerHandle | None = None
        self._watched = False
        self._limit_s = self._idle_s = 0.0
        self._heard_at = 0.0

    # For the pool.

    @property
    def alive(self) -> bool:
        return not self._lost and self._transport is not None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes, *, first_byte_s: float, idle_s: float) -> None:
        """Begin a request. The engine then has `first_byte_s` until the first byte of the answer's body, and `idle_s`
        between any two."""
        self.status, self.headers, self.answered = 0, [], False
        self._busy, self._stage, self._error, self._sink = True, Stage.SENT, None, None
        self._head_bytes = self._waiting_bytes = 0
        self._pieces.clear()
        self._reusable = False
        self._idle_s = idle_s
        self._arm(first_byte_s)
        transport = self._transport
        if transport is None or self._lost or transport.is_closing():
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
        if self._paused:  # its reader was slow to the end, and will not say when it goes on
            self._paused = False
            self._update_reading()
        return self._reusable and self._stage is _COMPLETE and self._error is None and self.alive

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
            if self._error is not None:
                raise self._error
            self._wanted = stage
            self._waiter = Signal(self._loop)
            try:
                await self._waiter
            finally:
                self._waiter = None

    def whole(self) -> bytes | None:
        """The answer's body where all of it is there and none was given yet, else None."""
        pieces = self._pieces
        if self._stage is not _COMPLETE or self._held or len(pieces) > 1 or self._error is not None:
            return None
        self._watched = False
        return pieces.pop() if pieces else b""

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
        if self._stage < _HEAD:
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
            self._watched = False
            if self._waiter is not None:
                self._waiter.set()
            return
        if stage is _BODY:
            self._heard_at = self._loop.time()
            if self._limit_s != self._idle_s and not self._paused:
                self._arm(self._idle_s)
        self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._drop_timer()
        self._on_lost(self)
        if self._busy and self._stage < Stage.COMPLETE:
            if self._until_close and self._stage >= Stage.HEAD and exc is None and self._error is None:
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
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self.status = self._parser.get_status_code()
        if not 100 <= status <= 599:
            raise ValueError(f"a status of {status}")
        self._interim = status < 200
        if self._interim:
            self.headers = []
            return
        values = dict(reversed(self.headers))  # the first of each name
        framed = b"content-length" in values or b"transfer-encoding" in values or status in (204, 304)
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
        if self._waiter is not None and self._stage >= self._wanted:
            self._waiter.set()

    def _fail(self, error: LoramuxError) -> None:
        if self._error is None:
            self._error = error
        self._stage = min(self._stage, Stage.BODY)
        self.abort()
        if self._waiter is not None:
            self._waiter.set()

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
