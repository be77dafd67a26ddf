"""Where a replica's engine comes from: a child process, or somebody else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import structlog

from loramux_adapters.model import Failure
from loramux_serving.engine.diagnosis import explain
from loramux_serving.engine.process import EngineProcess, LogSink, free_port, launch
from loramux_serving.engine.replica import EngineReplica
from loramux_serving.engine.spec import LaunchPlan

_log = structlog.get_logger(__name__)


class Running(Protocol):
    """An engine that has been started, or that somebody else runs."""

    async def ended(self) -> Failure:
        """Returns when the engine has ended, with the reason. Never, where that can not be seen."""
        ...


Host = Callable[[EngineReplica], AbstractAsyncContextManager[Running]]
"""Brings a replica's engine about for the length of a block. Raises `EngineError`."""


def child(plan: Callable[[int], LaunchPlan], *, port: int, stop_timeout_s: float, sink: LogSink | None = None) -> Host:
    """A host that runs the engine as a child process. `plan` is given the port: `port`, or a free one at each start
    where that is 0. `sink` takes each line of output with its prefix (`[engine-0] `); by default it is logged."""

    @asynccontextmanager
    async def host(replica: EngineReplica) -> AsyncIterator[Running]:
        chosen = port or free_port()
        replica.url = f"http://127.0.0.1:{chosen}"
        prefix = f"[{replica.id}] "
        write = sink or _log.info
        async with launch(plan(chosen), sink=lambda line: write(prefix + line), stop_timeout_s=stop_timeout_s) as run:
            replica.log = lambda: run.tail
            yield _Child(run)

    return host


class _Child:
    def __init__(self, process: EngineProcess) -> None:
        self._process = process

    async def ended(self) -> Failure:
        await self._process.ended()
        return explain(self._process.tail)


@asynccontextmanager
async def elsewhere(_replica: EngineReplica) -> AsyncIterator[Running]:
    """The host of an engine that somebody else runs at the replica's `url`: only its health is seen."""
    yield _Elsewhere()


class _Elsewhere:
    async def ended(self) -> Failure:
        never: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        return await never
