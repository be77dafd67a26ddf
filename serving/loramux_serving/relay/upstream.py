"""Connections to engines, kept alive and shared by requests. All of one event loop."""

import asyncio
import ssl
from collections import deque
from types import TracebackType
from urllib.parse import urlsplit

from loramux_adapters.errors import EngineFailed, EngineUnavailable
from loramux_serving.relay.eager import in_task
from loramux_serving.relay.engine_connection import EngineConnection, Stage
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
        self._settings = settings
        self._loop = asyncio.get_running_loop()  # asked once: it takes a system call
        self._free = settings.upstream_connections
        self._line: deque[asyncio.Future[None]] = deque()
        self._idle: deque[EngineConnection] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    def exchange(self, head: bytes, body: bytes) -> "EngineExchange":
        """A context manager around one request: entered, the head of its answer is there. On exit the connection goes
        back if the answer was taken whole, else it is closed.

        Entering raises `EngineUnavailable` where the engine can not be reached, `EngineFailed`, `EngineTimeout`. A
        request on a kept connection that closes before any byte of an answer is sent once more on a new one: the
        engine closed it while the request was on its way (RFC 9112, section 9.3.1).
        """
        return EngineExchange(self, head, body)

    async def acquire(self, head: bytes, body: bytes) -> EngineConnection:
        """For `EngineExchange`: a connection with the head of the answer. `give_back` ends it."""
        if self._free > 0:
            self._free -= 1
        else:
            await self._place()
        connection: EngineConnection | None = None
        entered = False
        try:
            connection = self._take_idle()
            if connection is not None:
                entered = await self._answers(connection, head, body)
            if not entered:
                connection = await self._connect()
                self._send(connection, head, body)
                await connection.reach(Stage.HEAD)
                entered = True
        finally:
            if not entered:
                self._release()
                if connection is not None:
                    connection.abort()
        assert connection is not None
        return connection

    async def _answers(self, connection: EngineConnection, head: bytes, body: bytes) -> bool:
        """Send on a kept connection. False where it turned out to be closed before the engine saw the request."""
        self._send(connection, head, body)
        try:
            await connection.reach(Stage.HEAD)
        except EngineFailed:
            if connection.answered:
                raise
            return False
        return True

    def give_back(self, connection: EngineConnection, *, whole: bool) -> None:
        self._release()
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

    def _send(self, connection: EngineConnection, head: bytes, body: bytes) -> None:
        connection.send(
            head, body, first_byte_s=self._settings.first_byte_timeout_s, idle_s=self._settings.idle_timeout_s
        )

    async def _connect(self) -> EngineConnection:
        await in_task()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: EngineConnection(self._lost), self._address, self._port, ssl=self._tls
                )
        except TimeoutError as error:
            limit_s = self._settings.connect_timeout_s
            raise EngineUnavailable(f"The engine could not be reached within {limit_s:g} s.") from error
        except OSError as error:
            raise EngineUnavailable("The engine could not be reached.") from error
        return connection

    def _take_idle(self) -> EngineConnection | None:
        """The connection used last, if it is fresh."""
        if not self._idle:
            return None
        connection = self._idle.pop()
        age_s = self._loop.time() - connection.idle_since
        if connection.alive and age_s < self._settings.upstream_keep_alive_s:
            return connection
        connection.abort()
        return None

    def _lost(self, connection: EngineConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def _sweep_later(self) -> None:
        due = self._idle[0].idle_since + self._settings.upstream_keep_alive_s
        self._sweeper = self._loop.call_at(due, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        oldest = self._loop.time() - self._settings.upstream_keep_alive_s
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.popleft().abort()
        if self._idle:
            self._sweep_later()


class EngineExchange:
    """See `EnginePool.exchange`."""

    def __init__(self, pool: EnginePool, head: bytes, body: bytes) -> None:
        self._pool = pool
        self._head = head
        self._body = body
        self._connection: EngineConnection | None = None

    async def __aenter__(self) -> EngineConnection:
        self._connection = await self._pool.acquire(self._head, self._body)
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._pool.give_back(self._connection, whole=error is None)
