"""Engines without processes: a host that brings them about, and the health that a supervisor sees of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from loramux_adapters.errors import EngineFailed
from loramux_adapters.model import Failure
from loramux_serving.engine.replica import EngineReplica


class FakeHosts:
    """Runs the engines of all replicas in memory. `started` and `stopped` have the replicas' ids in the order of what
    happened, `running` those that run. An engine ends only while the gate `may_stop` is open."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.silent: set[str] = set()
        """Engines that run and do not answer yet."""
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self._ends: dict[str, asyncio.Event] = {}

    @property
    def running(self) -> frozenset[str]:
        return frozenset(self._ends)

    def kill(self, replica_id: str) -> None:
        """As kill -9."""
        self._ends[replica_id].set()

    @asynccontextmanager
    async def __call__(self, replica: EngineReplica) -> AsyncIterator["_Running"]:
        replica.url = f"http://{replica.id}"
        assert replica.id not in self._ends, "an engine is started beside itself"
        end = self._ends[replica.id] = asyncio.Event()
        self.started.append(replica.id)
        try:
            yield _Running(end)
        finally:
            await self.may_stop.wait()
            del self._ends[replica.id]
            self.stopped.append(replica.id)

    def client(self) -> httpx.AsyncClient:
        """Answers health checks for the engines that run."""
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        end = self._ends.get(request.url.host)
        if end is None or end.is_set():
            raise httpx.ConnectError("refused")
        return httpx.Response(503 if request.url.host in self.silent else 200)


class _Running:
    def __init__(self, end: asyncio.Event) -> None:
        self._end = end

    async def ended(self) -> Failure:
        await self._end.wait()
        return Failure(EngineFailed.code, "The engine was killed.", retryable=True)
