"""All workers: starts them, starts again those that ended, and stops them."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from loramux_adapters.errors import SettingsInvalid
from loramux_adapters.events import EventLog
from loramux_adapters.ports import Clock
from loramux_serving.relay.doors import DoorPlan
from loramux_serving.relay.local_gate import LocalGate
from loramux_serving.relay.ports import Recorder
from loramux_serving.settings import Settings
from loramux_serving.workers.port import SharedPort
from loramux_serving.workers.worker_process import WorkerProcess, start_worker

START_TIMEOUT_S = 60.0
STEADY_S = 30.0
"""A worker that served for so long is started again at once."""
BACKOFF_S = 0.5
BACKOFF_MAX_S = 30.0
STOP_MARGIN_S = 5.0
"""How long a worker may take to end after its requests' time is over."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker at one moment. `state` is `starting`, `serving` or `draining`; `since` is when it was started, Unix
    seconds; `requests` are those that wait or run."""

    index: int
    pid: int
    state: str
    since: float
    requests: int


def pause_s(failures: int) -> float:
    """Before the next start, after `failures` in a row. The first time there is none: callers wait."""
    return 0.0 if failures <= 1 else min(BACKOFF_S * 2.0 ** min(failures - 2, 32), BACKOFF_MAX_S)


class Crew:
    """`count` workers, each at its place. One event loop, that of the process which keeps the books."""

    def __init__(
        self,
        settings: Settings,
        doors: DoorPlan,
        gate: LocalGate,
        recorder: Recorder,
        clock: Clock,
        events: EventLog,
        restarted: Callable[[int], None],
    ) -> None:
        """`restarted` hears the index of each worker that is started again after it had ended by itself."""
        self._settings = settings
        self._doors = doors
        self._gate = gate
        self._recorder = recorder
        self._clock = clock
        self._events = events
        self._restarted = restarted
        self._members: dict[WorkerProcess, tuple[int, float]] = {}
        self._keepers: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Event | None = None

    def statuses(self) -> list[WorkerStatus]:
        """Those that run, by their place; where one drains, its successor beside it."""
        found = [
            WorkerStatus(index, each.pid, _state(each), since, each.desk.requests)
            for each, (index, since) in self._members.items()
        ]
        return sorted(found, key=lambda status: (status.index, status.since))

    async def start(self, port: SharedPort, control_path: str) -> None:
        """Returns when all serve. Raises `SettingsInvalid` where one does not; then the others are stopped."""
        self._stopping = asyncio.Event()
        try:
            port.open()
        except OSError as error:
            raise SettingsInvalid(f"The port can not be listened on: {error.strerror or error}.") from error
        first = [asyncio.get_running_loop().create_future() for _ in range(self._settings.workers)]
        for index, serving in enumerate(first):
            keeper = asyncio.create_task(self._keep(index, port, control_path, serving), name=f"worker {index}")
            keeper.add_done_callback(_tell_fault)
            self._keepers.add(keeper)
        if not all(await asyncio.gather(*first)):
            await self.drain()
            raise SettingsInvalid("A worker process could not start; the log says why.")

    async def drain(self) -> None:
        """Let all workers end: no request is cut before `shutdown_timeout_s`. What is left then is killed."""
        if self._stopping is None:
            return
        self._stopping.set()
        for each in self._members:
            each.stop()
        if self._keepers:
            _, late = await asyncio.wait(self._keepers, timeout=self._settings.shutdown_timeout_s + STOP_MARGIN_S)
            if late:
                self.kill()
                await asyncio.wait(late)

    def kill(self) -> None:
        """End them at once. May be called by a signal's handler."""
        for each in list(self._members):
            each.kill()

    async def _keep(self, index: int, port: SharedPort, control_path: str, first: "asyncio.Future[bool]") -> None:
        """The worker at one place, until the crew stops."""
        assert self._stopping is not None
        failures = 0
        try:
            while not self._stopping.is_set():
                began = self._clock.monotonic()
                reason = await self._once(index, port, control_path, first)
                if not first.result():
                    _log.error("worker did not start", worker=index, reason=reason)
                    return  # nor does the gateway
                if reason is None or self._clock.monotonic() - began > STEADY_S:
                    failures = 0
                if reason is not None and not self._stopping.is_set():
                    failures += 1
                    await self._lost(index, reason, failures, port)
        finally:
            _tell(first, False)

    async def _once(self, index: int, port: SharedPort, control_path: str, first: "asyncio.Future[bool]") -> str | None:
        """One worker at a place, for as long as it has it: why it ended, None where it drains. `first` hears whether it
        came to serve."""
        try:
            worker = await self._start(index, port.listener(index), control_path)
        except OSError as error:
            _tell(first, False)
            return f"it can not be started: {error.strerror or error}"
        serves = await self._serves(worker)
        _tell(first, serves)
        if serves and await self._leaves(worker):
            return None
        status = await worker.ended()
        del self._members[worker]
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return f"process {worker.pid} ended {how}"

    async def _start(self, index: int, listener: socket.socket, control_path: str) -> WorkerProcess:
        worker = await start_worker(
            index, listener, control_path, self._settings, self._doors, self._gate, self._recorder
        )
        self._members[worker] = (index, self._clock.now())
        assert self._stopping is not None
        if self._stopping.is_set():
            worker.stop()
        return worker

    async def _serves(self, worker: WorkerProcess) -> bool:
        """Whether it came to serve."""
        await _first_of(worker.desk.serving, worker.desk.lost, timeout_s=START_TIMEOUT_S)
        if not worker.desk.serving.is_set():
            worker.kill()
            return False
        return True

    async def _leaves(self, worker: WorkerProcess) -> bool:
        """Whether it drains rather than being gone."""
        assert self._stopping is not None
        await _first_of(worker.desk.draining, worker.desk.lost)
        if not worker.desk.draining.is_set() or self._stopping.is_set():
            return False
        keeper = asyncio.create_task(self._see_off(worker), name=f"draining worker {worker.pid}")
        keeper.add_done_callback(_tell_fault)
        keeper.add_done_callback(self._keepers.discard)
        self._keepers.add(keeper)
        return True

    async def _see_off(self, worker: WorkerProcess) -> None:
        _log.info("worker drains", pid=worker.pid, requests=worker.desk.requests)
        try:
            async with asyncio.timeout(self._settings.shutdown_timeout_s + STOP_MARGIN_S):
                await worker.ended()
        except TimeoutError:
            worker.kill()
            await worker.ended()
        del self._members[worker]

    async def _lost(self, index: int, reason: str, failures: int, port: SharedPort) -> None:
        """A worker ended by itself: tell, and wait before the next one is started."""
        assert self._stopping is not None
        wait_s = pause_s(failures)
        _log.error("worker lost", worker=index, reason=reason, again_in_s=wait_s)
        self._events.publish("worker.lost", worker=index, reason=reason)
        self._restarted(index)
        if wait_s:
            port.shut(index)
            await _first_of(self._stopping, timeout_s=wait_s)


def _state(worker: WorkerProcess) -> str:
    if worker.desk.draining.is_set():
        return "draining"
    return "serving" if worker.desk.serving.is_set() else "starting"


def _tell(first: "asyncio.Future[bool]", serves: bool) -> None:
    if not first.done():
        first.set_result(serves)


async def _first_of(*events: asyncio.Event, timeout_s: float | None = None) -> None:
    """Until one of them is set, or the time is over."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        _log.error("a worker's keeper failed", task=task.get_name(), exc_info=fault)
