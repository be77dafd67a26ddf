"""Who holds what: requests, and whoever else needs an adapter staged."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType

from loramux_adapters.model import Target
from loramux_adapters.ports import Clock
from loramux_adapters.residency.shelf import Holding, Shelf
from loramux_adapters.wakeup import Wakeup


@dataclass(slots=True, eq=False)
class Lease:
    """A request's hold, on the books of its replica. `end_request` tells the request to go; `ended` is true once it was
    told."""

    end_request: Callable[[], object]
    shelf: Shelf
    entry: Holding
    ended: bool = False


class LeaseBook:
    """Of all replicas. One event loop; nothing here suspends."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._leases: dict[str, set[Lease]] = {}
        self.released = Wakeup()
        """Woken when nobody needs something any more on some replica."""

    def begin(self, shelf: Shelf, target: Target, end_request: Callable[[], object]) -> Lease:
        """It counts from here on."""
        lease = Lease(end_request, shelf, self.take(shelf, target))
        lease.entry.awaited_until = 0.0
        self._leases.setdefault(target.engine_name, set()).add(lease)
        return lease

    def end(self, lease: Lease) -> None:
        name = lease.entry.target.engine_name
        held = self._leases[name]
        held.discard(lease)
        if not held:
            del self._leases[name]
        self.let_go(lease.shelf, lease.entry)

    def take(self, shelf: Shelf, target: Target) -> Holding:
        """Without a request; whoever takes lets go."""
        entry = shelf.holding(target, self._clock.monotonic())
        entry.leases += 1
        return entry

    def let_go(self, shelf: Shelf, entry: Holding) -> None:
        entry.leases -= 1
        entry.last_used = self._clock.monotonic()
        if entry.leases == 0:
            shelf.forget(entry.target.engine_name)
            shelf.room.wake()
            self.released.wake()

    def count(self, engine_name: str) -> int:
        """Requests on it, on replicas that are leaving too."""
        return len(self._leases.get(engine_name, ()))

    def end_requests(self, engine_name: str) -> None:
        """Once each: what they do on their way out is not disturbed again."""
        for lease in self._leases.get(engine_name, ()):
            if not lease.ended:
                lease.ended = True
                lease.end_request()

    def carry_over(self, shelf: Shelf) -> None:
        """Requests may have outlived the last time that the replica was in service, if its process did."""
        for lease in [lease for leases in self._leases.values() for lease in leases]:
            if lease.shelf.engine.replica_id == shelf.engine.replica_id:
                entry = self.take(shelf, lease.entry.target)
                self.let_go(lease.shelf, lease.entry)
                lease.shelf, lease.entry = shelf, entry

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books contradict themselves."""
        for name, leases in self._leases.items():
            assert leases, f"{name}: an empty set of leases"


class AdapterLease:
    """A request's hold on `target`, from `begin` to `end`; as a context manager, both. Where `shelf` is None there is
    nothing to hold: the base is always there."""

    __slots__ = ("_book", "_end_request", "_lease", "_shelf", "_stage", "_target")

    def __init__(
        self,
        book: LeaseBook,
        shelf: Shelf | None,
        target: Target,
        stage: Callable[[Shelf, Holding], Awaitable[None]],
        end_request: Callable[[], object],
    ) -> None:
        self._book = book
        self._shelf = shelf
        self._target = target
        self._stage = stage
        self._end_request = end_request
        self._lease: Lease | None = None

    def begin_now(self) -> None:
        """As `begin`, of what is staged: without a suspension."""
        if self._shelf is not None:
            self._lease = self._book.begin(self._shelf, self._target, self._end_request)

    async def begin(self) -> None:
        """It counts from before the first suspension; returns when the target is staged. Where this raises, nothing is
        held. Raises `EngineError`, `StorageError`, `ArtifactError`, `QueueTimeout`."""
        if self._shelf is None:
            return
        lease = self._lease = self._book.begin(self._shelf, self._target, self._end_request)
        try:
            await self._stage(self._shelf, lease.entry)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Once or more often."""
        lease, self._lease = self._lease, None
        if lease is not None:
            self._book.end(lease)

    async def __aenter__(self) -> None:
        await self.begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def end_task() -> Callable[[], object]:
    """What ends the current task as a request that must go."""
    task = asyncio.current_task()
    return lambda: task.cancel("the adapter's version was taken away") if task is not None else None
