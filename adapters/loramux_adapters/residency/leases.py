"""Who holds what: requests, and whoever else needs an adapter staged."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from loramux_adapters.model import Target
from loramux_adapters.ports import Clock
from loramux_adapters.residency.shelf import Holding, Shelf
from loramux_adapters.wakeup import Wakeup


class AdapterLease:
    """A request's hold on `target`, from `begin` to `end`; as a context manager, both. Where `shelf` is None there is
    nothing to hold: the base is always there."""

    __slots__ = ("_book", "_stage", "end_request", "ended", "entry", "shelf", "target")

    def __init__(
        self,
        book: "LeaseBook",
        shelf: Shelf | None,
        target: Target,
        stage: Callable[[Shelf, Holding], Awaitable[None]],
        end_request: Callable[[], object],
    ) -> None:
        """`end_request` tells the request to go."""
        self._book = book
        self._stage = stage
        self.shelf = shelf
        self.target = target
        self.end_request = end_request
        self.ended = False
        """True once the request was told to go."""
        self.entry: Holding | None = None
        """On the books of the replica, while it is held."""

    async def begin(self) -> None:
        """It counts from before the first suspension; returns when the target is staged. Where this raises, nothing is
        held. Raises `EngineError`, `StorageError`, `ArtifactError`, `QueueTimeout`."""
        if self.shelf is None:
            return
        entry = self.shelf.holding(self.target, self._book.now())
        self._book.begin(self, entry)
        try:
            await self._stage(self.shelf, entry)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Once or more often."""
        if self.entry is not None:
            self._book.end(self)

    async def __aenter__(self) -> None:
        await self.begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class LeaseBook:
    """Of all replicas. One event loop; nothing here suspends."""

    def __init__(self, clock: Clock) -> None:
        self.now = clock.monotonic
        self._leases: dict[str, set[AdapterLease]] = {}
        self.released = Wakeup()
        """Woken when nobody needs something any more on some replica."""

    def begin(self, lease: AdapterLease, entry: Holding) -> None:
        """It counts from here on, as one of `entry`, which is its shelf's for the target."""
        target = entry.target = lease.target
        lease.entry = entry
        entry.leases += 1
        entry.awaited_until = 0.0
        held = self._leases.get(target.engine_name)
        if held is None:
            self._leases[target.engine_name] = {lease}
        else:
            held.add(lease)

    def end(self, lease: AdapterLease) -> None:
        entry, lease.entry, shelf = lease.entry, None, lease.shelf
        assert entry is not None, "it has begun"
        assert shelf is not None, "it has begun"
        name = lease.target.engine_name
        held = self._leases[name]
        held.discard(lease)
        if not held:
            del self._leases[name]
        if entry.leases > 1:  # others are on it: nothing changes for anybody who waits
            entry.leases -= 1
            entry.last_used = self.now()
        else:
            self.let_go(shelf, entry)

    def take(self, shelf: Shelf, target: Target) -> Holding:
        """Without a request; whoever takes lets go."""
        entry = shelf.holding(target, self.now())
        entry.leases += 1
        return entry

    def let_go(self, shelf: Shelf, entry: Holding) -> None:
        entry.leases -= 1
        entry.last_used = self.now()
        if entry.leases == 0:
            if not entry.placed:
                shelf.forget(entry.target.engine_name)
            if shelf.room.waiters:
                shelf.room.wake()
            if self.released.waiters:
                self.released.wake()

    def count(self, engine_name: str) -> int:
        """Requests on it, on replicas that are leaving too."""
        return len(self._leases.get(engine_name, ()))

    def end_requests(self, engine_name: str) -> None:
        """Once each: what they do on their way out is not disturbed again."""
        for lease in tuple(self._leases.get(engine_name, ())):  # a request may end within the call
            if not lease.ended:
                lease.ended = True
                lease.end_request()

    def carry_over(self, shelf: Shelf) -> None:
        """Requests may have outlived the last time that the replica was in service, if its process did."""
        for lease in [lease for leases in self._leases.values() for lease in leases]:
            old, entry = lease.shelf, lease.entry
            if old is not None and entry is not None and old.engine.replica_id == shelf.engine.replica_id:
                lease.shelf, lease.entry = shelf, self.take(shelf, lease.target)
                self.let_go(old, entry)

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books contradict themselves."""
        for name, leases in self._leases.items():
            assert leases, f"{name}: an empty set of leases"


def end_task() -> Callable[[], object]:
    """What ends the current task as a request that must go."""
    task = asyncio.current_task()
    return lambda: task.cancel("the adapter's version was taken away") if task is not None else None
