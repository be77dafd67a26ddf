"""Callers that read a few bytes a second of answers that are long."""

import asyncio
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from loramux_bench.overhead.raw_client import Answer, End, Reading, request
from loramux_bench.overhead.side import Side

BYTES_A_SECOND = 64

_RECEIVE_BYTES = 4096
"""Of the kernel's buffer, of which it doubles what is asked for."""
_SEGMENT_BYTES = 1400
"""As on a network. With loopback's 64 KiB, the sender's kernel would buffer megabytes for each reader."""
_TURNS = 20
"""A second's reading is spread over so many turns, so that it does not come in one block."""
_AT_ONCE = 50
_CONNECT_S = 20.0
_REST_BYTES = 65_536


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    readers: int = 500
    tokens: int = 4096
    """Of each one's answer: some 800 KiB, more than lies between a caller and the engine."""


class SlowReaders:
    """An async context manager: on entering, all have asked. `read_on` reads the rest at full speed."""

    def __init__(self, side: Side, shape: Shape, *, name: str) -> None:
        """`name` begins the request ids."""
        self.answers: list[Answer] = []
        self._side = side
        self._shape = shape
        self._name = name
        self._sockets: list[socket.socket] = []
        self._readings: list[Reading] = []
        self._crawl: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Raises `OSError` where a connection is refused."""
        try:
            for first in range(0, self._shape.readers, _AT_ONCE):
                numbers = range(first, min(first + _AT_ONCE, self._shape.readers))
                await asyncio.gather(*(self._ask(number) for number in numbers))
        except BaseException:
            self._close()
            raise
        self._crawl = asyncio.create_task(self._crawling())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stop_crawling()
        self._close()

    async def read_on(self, limit_s: float) -> None:
        """All answers have settled on return; those that were not whole within `limit_s` as hung."""
        await self._stop_crawling()
        pairs = zip(self._sockets, self._readings, strict=True)
        await asyncio.gather(*(self._rest(connection, reading, limit_s) for connection, reading in pairs))

    async def _ask(self, number: int) -> None:
        connection = socket.socket()
        self._sockets.append(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        side = self._side
        answer = Answer(f"{self._name}-{number}", streamed=True)
        self.answers.append(answer)
        self._readings.append(Reading(answer))
        async with asyncio.timeout(_CONNECT_S):
            await loop.sock_connect(connection, side.address)
            asked = request(side.address, side.headers, side.model, answer.id, tokens=self._shape.tokens, stream=True)
            await loop.sock_sendall(connection, asked)

    async def _crawling(self) -> None:
        while True:
            for turn in range(_TURNS):
                for connection, reading in zip(self._sockets[turn::_TURNS], self._readings[turn::_TURNS], strict=True):
                    _crawl(connection, reading)
                await asyncio.sleep(1 / _TURNS)

    async def _stop_crawling(self) -> None:
        if self._crawl is not None:
            self._crawl.cancel()
            await asyncio.gather(self._crawl, return_exceptions=True)
            self._crawl = None

    async def _rest(self, connection: socket.socket, reading: Reading, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limit_s):
                while reading.answer.end is None:
                    if data := await loop.sock_recv(connection, _REST_BYTES):
                        reading.feed(data)
                    else:
                        reading.closed()
        except TimeoutError:
            reading.answer.settle(End.HUNG)
        except OSError:
            reading.closed()

    def _close(self) -> None:
        for connection in self._sockets:
            connection.close()


def _crawl(connection: socket.socket, reading: Reading) -> None:
    if reading.answer.end is not None:
        return
    try:
        data = connection.recv(BYTES_A_SECOND)
    except BlockingIOError:
        return
    except OSError:
        reading.closed()
        return
    if data:
        reading.feed(data)
    else:
        reading.closed()


def unread(port: int) -> int:
    """Connections on this machine to `port` on which bytes lie that the one who connected has not read: how far
    back-pressure has come. Of IPv4, from /proc."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        return sum(1 for line in table if _unread(line.split(), port))


def _unread(fields: Sequence[str], port: int) -> bool:
    """By the columns of proc(5): the other end, and the queues to send and to receive."""
    if fields[0] == "sl":
        return False
    remote = int(fields[2].rpartition(":")[2], 16)
    return remote == port and int(fields[4].rpartition(":")[2], 16) > 0
