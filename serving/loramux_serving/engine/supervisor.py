"""Keeps one replica in service: starts its engine, waits until it answers, reconciles it, watches it, starts over."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import structlog

from loramux_adapters.errors import EngineError, EngineFailed, LoramuxError
from loramux_adapters.model import Failure
from loramux_adapters.ports import LoraEngine
from loramux_serving.engine.health import Health, HealthWatch
from loramux_serving.engine.host import Host
from loramux_serving.engine.replica import EngineReplica, ReplicaState

_log = structlog.get_logger(__name__)

_A = TypeVar("_A")
_B = TypeVar("_B")

OnReady = Callable[[LoraEngine], Awaitable[None]]
"""Reconciles a replica's adapters. The replica takes requests only after it has returned."""
OnLost = Callable[[str], None]
"""Told the id of a replica that was ready, or being reconciled, and no longer is."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a supervisor waits for what; seconds. The pause before a restart doubles up to its maximum, and
    starts over after an engine that was ready for longer than that maximum."""

    start_timeout_s: float
    restart_backoff_s: float
    restart_backoff_max_s: float

    def pause_s(self, failures: int) -> float:
        """Before the next start, after `failures` in a row (from 1)."""
        doublings = min(failures - 1, 32)
        return min(self.restart_backoff_s * float(2**doublings), self.restart_backoff_max_s)


class Supervisor:
    """An async context manager: enter it to begin, leave it to stop the engine. It can be entered again afterwards.

    `on_ready` is awaited each time that the engine has come up, before the replica becomes `ready`; where it raises
    a `LoramuxError`, that is the replica's detail, and it is called again after a pause.
    """

    def __init__(
        self,
        replica: EngineReplica,
        engine: LoraEngine,
        host: Host,
        client: httpx.AsyncClient,
        *,
        patience: Patience,
        health_interval_s: float,
        on_ready: OnReady,
        on_lost: OnLost,
    ) -> None:
        self.replica = replica
        self._engine = engine
        self._host = host
        self._watch = HealthWatch(replica, client, interval_s=health_interval_s)
        self._patience = patience
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name=f"supervisor {self.replica.id}")
        self._task.add_done_callback(_tell_fault)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        self.replica.become(ReplicaState.STOPPED)  # also where the task was cancelled before it began

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        detail = ""
        try:
            while True:
                began = loop.time()
                failure, served = await self._run_once(detail)
                if served and loop.time() - began > self._patience.restart_backoff_max_s:
                    failures = 0
                failures += 1
                detail = failure.message
                pause_s = self._patience.pause_s(failures)
                self.replica.become(ReplicaState.FAILED, detail, failure.code)
                _log.warning(
                    "engine.failed", replica=self.replica.id, code=failure.code, detail=detail, again_in_s=pause_s
                )
                await asyncio.sleep(pause_s)
                self.replica.restarts += 1
        finally:
            self.replica.become(ReplicaState.STOPPED)

    async def _run_once(self, detail: str) -> tuple[Failure, bool]:
        """From start to end: why it ended, and whether it was ready before. `detail` is why the last one ended."""

        def tell(found: Health) -> None:
            self.replica.become(ReplicaState.STARTING, detail or f"Waiting for the engine: {found.value}.")

        self.replica.become(ReplicaState.STARTING, detail)
        began = asyncio.get_running_loop().time()
        try:
            async with self._host(self.replica) as running:
                try:
                    async with asyncio.timeout(self._patience.start_timeout_s):
                        ended = await _first(self._watch.until_well(tell), running.ended())
                except TimeoutError:
                    return _failure("The engine was not ready within engine.start_timeout_s."), False
                if ended is not None:
                    return ended, False
                try:
                    outcome = await _first(self._serve(began), running.ended())
                finally:
                    self._on_lost(self.replica.id)
                served = self.replica.engine_state is not ReplicaState.STARTING
                if outcome is Health.GONE:
                    self.replica.become(ReplicaState.FAILED, "The engine does not answer any more.")
                    # Its process is about to end, and its last words say more than a refused connection.
                    outcome = await _within(1.0, running.ended()) or outcome
                if isinstance(outcome, Health):
                    outcome = _failure(f"The engine was up, and now {outcome.value}.")
                self.replica.become(ReplicaState.FAILED, outcome.message, outcome.code)
                return outcome, served
        except EngineError as error:
            return Failure(error.code, error.message, error.retryable), False

    async def _serve(self, began: float) -> Health:
        found = await _first(self._reconcile(), self._watch.until_ill())
        if found is not None:
            return found
        took_s = asyncio.get_running_loop().time() - began
        self.replica.become(ReplicaState.READY)
        _log.info("engine.ready", replica=self.replica.id, url=self.replica.url, took_s=round(took_s, 1))
        return await self._watch.until_ill()

    async def _reconcile(self) -> None:
        failures = 0
        while True:
            try:
                self.replica.capabilities = await self._engine.capabilities()
                await self._on_ready(self._engine)
                return
            except LoramuxError as error:
                failures += 1
                self.replica.become(ReplicaState.STARTING, error.message, error.code)
                _log.warning("engine.reconcile_failed", replica=self.replica.id, code=error.code, detail=error.message)
                await asyncio.sleep(self._patience.pause_s(failures))


async def _first(one: Awaitable[_A], other: Awaitable[_B]) -> _A | _B:
    """The result or the exception of whichever is done first; the other is cancelled, and has ended on return."""
    tasks: tuple[asyncio.Future[Any], ...] = (asyncio.ensure_future(one), asyncio.ensure_future(other))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    result: _A | _B = next(task for task in tasks if task in done).result()
    return result


async def _within(seconds: float, awaitable: Awaitable[_A]) -> _A | None:
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except TimeoutError:
        return None


def _tell_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        _log.error("engine.supervisor_fault", task=task.get_name(), exc_info=fault)


def _failure(message: str) -> Failure:
    return Failure(EngineFailed.code, message, retryable=True)
