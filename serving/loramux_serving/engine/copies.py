"""How many replicas run: which of them, and how they start and stop while the gateway runs."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import structlog

from loramux_adapters.errors import RequestInvalid
from loramux_adapters.events import EventLog
from loramux_adapters.wakeup import Wakeup
from loramux_serving.engine.replica import EngineReplica, ReplicaState
from loramux_serving.engine.supervisor import Supervisor

_log = structlog.get_logger(__name__)

_LOOK_S = 0.1
"""Pause between two looks whether a replica that is to stop has come to an end of its requests."""


class Copies:
    """Keeps as many replicas running as are wanted. An async context manager: enter it to begin, leave it to stop them
    all at once, without a drain. One event loop.

    A replica that is to stop takes no new requests from the moment that this is decided. Those under way may finish for
    up to `drain_timeout_s`; then what it held is forgotten, and its engine is stopped. Until then it is taken back if
    it is wanted again, or if a replica fails that was kept in its stead.
    """

    def __init__(
        self,
        supervisors: Sequence[Supervisor],
        events: EventLog,
        *,
        wanted: int,
        drain_timeout_s: float,
        busy: Callable[[str], bool],
        detach: Callable[[str], None],
        most: str,
    ) -> None:
        """`wanted` is how many run at first. `busy` says whether an adapter is in use or on its way on a replica,
        besides the requests that are with its engine; `detach` forgets what a replica held, at once. `most` says in
        words what sets the limit."""
        self._members = [_Member(supervisor) for supervisor in supervisors]
        self._replicas = [supervisor.replica for supervisor in supervisors]
        self._events = events
        self._wanted = wanted
        self._drain_timeout_s = drain_timeout_s
        self._busy = busy
        self._detach = detach
        self._most = most
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        for replica in self._replicas:
            replica.become(ReplicaState.STOPPED)
            replica.when_failed(self._plan)
        self._plan()

    @property
    def limit(self) -> int:
        """The most that can run."""
        return len(self._replicas)

    @property
    def wanted(self) -> int:
        """How many are meant to run."""
        return self._wanted

    @property
    def ready(self) -> int:
        """How many take requests now."""
        return sum(replica.state is ReplicaState.READY for replica in self._replicas)

    @property
    def settled(self) -> bool:
        """Whether all that are wanted are ready, and all others have stopped."""
        return all(
            replica.state is (ReplicaState.READY if replica.wanted else ReplicaState.STOPPED)
            for replica in self._replicas
        )

    async def set(self, count: int) -> None:
        """From here on `count` are wanted; the last call counts. Returns when that is noted: starts and stops go on in
        the background. Before it is entered this says how many it begins with. Raises `RequestInvalid`."""
        if not 0 <= count <= self.limit:
            raise RequestInvalid(
                f"{count} copies can not run here: it must be 0 to {self.limit}, {self._most}.",
                details={"wanted": count, "limit": self.limit},
            )
        if count == self._wanted:
            return
        before, self._wanted = self._wanted, count
        _log.info("replicas.scaled", wanted=count, before=before)
        self._events.publish("replicas.scaled", wanted=count, before=before)
        self._plan()

    async def __aenter__(self) -> Self:
        for member in self._members:
            task = asyncio.create_task(self._keep(member), name=f"copy {member.replica.id}")
            task.add_done_callback(_tell_fault)
            self._tasks.append(task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for member in self._members:
            member.changed.wake()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _plan(self) -> None:
        """Say of each replica whether it is wanted. Also where one fails: another may be there that has not stopped
        yet."""
        if self._closing:
            return
        chosen = choose(self._replicas, self._wanted)
        for member in self._members:
            member.replica.want(member.replica.id in chosen)
            member.changed.wake()

    async def _keep(self, member: "_Member") -> None:
        """A copy's life: wanted, running, not wanted, drained, stopped, and so on."""
        replica = member.replica
        while True:
            while not (replica.wanted or self._closing):
                await member.changed.wait()
            if self._closing:
                return
            async with member.supervisor:
                await self._until_idle(member)
                # Nothing may begin there between this look and the end of its engine.
                replica.leave()
                self._detach(replica.id)
            _log.info("engine.stopped", replica=replica.id)

    async def _until_idle(self, member: "_Member") -> None:
        """Until it is not wanted, and its requests have ended or had their time."""
        replica = member.replica
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        while not self._closing:
            if replica.wanted:
                deadline = None
                await member.changed.wait()
                continue
            if deadline is None:
                deadline = loop.time() + self._drain_timeout_s
            left_s = deadline - loop.time()
            # What a replica loads before it serves is not waited for.
            busy = replica.engine_state is ReplicaState.READY and self._busy(replica.id)
            if left_s <= 0 or not (replica.outstanding or busy):
                return
            await member.changed.wait(min(left_s, _LOOK_S))


class _Member:
    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.replica = supervisor.replica
        self.changed = Wakeup()


def choose(replicas: Sequence[EngineReplica], count: int) -> frozenset[str]:
    """Which `count` of the replicas are to run: those that serve, then those that are nearest to it; of equals those
    that are wanted already, then the first. So nothing is stopped that serves while another that does not is kept."""
    ranked = sorted(replicas, key=lambda replica: (_distance(replica), not replica.wanted))
    return frozenset(replica.id for replica in ranked[:count])


def _distance(replica: EngineReplica) -> int:
    """From serving; 0 for one that does, or would if it were wanted."""
    if replica.leaving:
        return 5
    match replica.engine_state:
        case ReplicaState.READY:
            return 2 if replica.drained else 0
        case ReplicaState.STARTING:
            return 1
        case ReplicaState.FAILED:
            return 3
        case _:
            return 4


def _tell_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        _log.error("engine.copy_fault", task=task.get_name(), exc_info=fault)
