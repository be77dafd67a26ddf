"""Connections to engines, kept alive and shared by requests. All of one event loop."""

import asyncio
import ssl
from collections import deque
from urllib.parse import urlsplit

from loramux_adapters.errors import EngineFailed, EngineUnavailable
from loramux_serving.relay.eager import in_task
from loramux_serving.relay.engine_connection import AnswerHead, EngineConnection, Stage
from loramux_serving.relay.known_heads import KnownHeads
from loramux_serving.settings import RelaySettings


class Upstream:
    """A pool for each engine address that was ever asked for."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._pools: dict[str, EnginePool] = {}

    def pool(self, url: str) -> "EnginePool":
        """The pool of `http://host:port` or `https://host:port`."""
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = EnginePool(url, self._settings)
        return pool

    async def close(self) -> None:
        """Close what is idle. Requests under way are not touched."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()


class EnginePool:
    """Connections to one engine: at most `upstream_connections`, idle ones for at most `upstream_keep_alive_s`."""

    def __init__(self, url: str, settings: RelaySettings) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self.host = parts.netloc.rpartition("@")[2].encode("ascii")
        """Value of the `Host` header."""
        self._address = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        self._tls = ssl.create_default_context() if secure else None
        self._first_byte_s, self._idle_s = settings.first_byte_timeout_s, settings.idle_timeout_s
        self._keep_alive_s = settings.upstream_keep_alive_s
        self._connect_s = settings.connect_timeout_s
        self._loop = asyncio.get_running_loop()  # asked once: it takes a system call
        self._free = settings.upstream_connections
        self._line: deque[asyncio.Future[None]] = deque()
        self._idle: deque[EngineConnection] = deque()
        self._heads: KnownHeads[AnswerHead] = KnownHeads()
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    def send_now(self, head: bytes, body: bytes) -> EngineConnection | None:
        """Send a request, where there is a connection to be had at once; `acquire` or `give_back` must follow."""
        if self._free <= 0 or not self._idle:
            return None
        connection = self._take_idle()
        if connection is not None:
            self._free -= 1
            connection.send(head, body, self._first_byte_s, self._idle_s)
        return connection

    async def acquire(self, head: bytes, body: bytes, sent: EngineConnection | None = None) -> EngineConnection:
        """Send a request; the connection, with the head of the answer. `give_back` must follow. `sent`: what `send_now`
        gave for the same request.

        Raises `EngineUnavailable` where the engine can not be reached, `EngineFailed`, `EngineTimeout`; then nothing
        is held. A request on a kept connection that closes before any byte of an answer is sent once more on a new
        one: the engine closed it while the request was on its way (RFC 9112, section 9.3.1).
        """
        connection = sent
        if connection is None:
            if self._free > 0:
                self._free -= 1
            else:
                await self._place()
        entered = False
        try:
            if connection is None:
                connection = self._take_idle()
                if connection is not None:
                    connection.send(head, body, self._first_byte_s, self._idle_s)
            if connection is not None:
                try:
                    await connection.reach(Stage.HEAD)
                    entered = True
                except EngineFailed:
                    if connection.answered:
                        raise
            if not entered:
                connection = await self._connect()
                connection.send(head, body, self._first_byte_s, self._idle_s)
                await connection.reach(Stage.HEAD)
                entered = True
        finally:
            if not entered:
                self._release()
                if connection is not None:
                    connection.abort()
        assert connection is not None
        return connection

    def give_back(self, connection: EngineConnection, *, whole: bool) -> None:
        """The connection is kept if the answer was taken `whole`, else it is closed."""
        if self._line:
            self._release()
        else:
            self._free += 1
        if not connection.release() or not whole:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweep_later()

    async def _place(self) -> None:
        """Wait for one that somebody gives back."""
        mine: asyncio.Future[None] = self._loop.create_future()
        self._line.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._release()  # it came in the very tick in which the wait was cancelled
            raise

    def _release(self) -> None:
        while self._line:
            following = self._line.popleft()
            if not following.done():
                following.set_result(None)
                return
        self._free += 1

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        while self._idle:
            self._idle.pop().abort()

    async def _connect(self) -> EngineConnection:
        await in_task()
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await self._loop.create_connection(
                    lambda: EngineConnection(self._lost, self._heads), self._address, self._port, ssl=self._tls
                )
        except TimeoutError as error:
            raise EngineUnavailable(f"The engine could not be reached within {self._connect_s:g} s.") from error
        except OSError as error:
            raise EngineUnavailable("The engine could not be reached.") from error
        return connection

    def _take_idle(self) -> EngineConnection | None:
        """The connection used last, if it is fresh."""
        if not self._idle:
            return None
        connection = self._idle.pop()
        age_s = self._loop.time() - connection.idle_since
        if age_s < self._keep_alive_s and not connection.lost:
            return connection
        connection.abort()
        return None

    def _lost(self, connection: EngineConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def _sweep_later(self) -> None:
        due = self._idle[0].idle_since + self._keep_alive_s
        self._sweeper = self._loop.call_at(due, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        oldest = self._loop.time() - self._keep_alive_s
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.popleft().abort()
        if self._idle:
            self._sweep_later()
