"""Who holds what: requests, and whoever else needs an adapter staged."""

import asyncio
from dataclasses import dataclass

from loramux_adapters.model import Target
from loramux_adapters.ports import Clock
from loramux_adapters.residency.shelf import Holding, Shelf
from loramux_adapters.wakeup import Wakeup


@dataclass(slots=True, eq=False)
class Lease:
    """A request's hold, on the books of its replica. `ended` is true once the request was told to go."""

    task: asyncio.Task[object] | None
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

    def begin(self, shelf: Shelf, target: Target) -> Lease:
        """A request of the current task. It counts from here on."""
        lease = Lease(asyncio.current_task(), shelf, self.take(shelf, target))
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
            if lease.task is not None and not lease.ended:
                lease.ended = True
                lease.task.cancel("the adapter's version was taken away")

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
