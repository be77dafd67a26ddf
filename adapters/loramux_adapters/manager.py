"""Leases, and what every replica holds. DESIGN section 2, step 4.

A version answers on a replica from `Holding.staged` on, and leaves it only while no lease is held: eviction marks it
gone and looks at the leases without a suspension in between, and a lease counts before its first suspension.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from loramux_adapters.demand import Demand
from loramux_adapters.errors import EngineUnavailable
from loramux_adapters.model import Capabilities, Report, Resident, Target, Tier
from loramux_adapters.ports import Clock, LoraEngine, TierObserver
from loramux_adapters.residency.joining import reconcile
from loramux_adapters.residency.leases import AdapterLease, LeaseBook, end_task
from loramux_adapters.residency.moves import Locate, Moves
from loramux_adapters.residency.pins import Pins
from loramux_adapters.residency.prefetch import Prefetch
from loramux_adapters.residency.refreshing import Refreshing
from loramux_adapters.residency.reports import Reports
from loramux_adapters.residency.retiring import Retiring
from loramux_adapters.residency.room import Room
from loramux_adapters.residency.shelf import Shelf
from loramux_adapters.residency.staging import Staging
from loramux_adapters.tiers import most_pins


@dataclass(frozen=True, slots=True)
class TierPolicy:
    """How adapters move between tiers; the settings of the section `tiers` say what each means."""

    demand_half_life_s: float = 60.0
    inline_activation_bytes: int = 4 * 1024 * 1024
    prefetch_concurrency: int = 2


_DEFAULT = TierPolicy()


class AdapterManager:
    """All replicas' shelves. One event loop. `close` ends the moves under way."""

    def __init__(
        self,
        locate: Locate,
        pins: Callable[[], Mapping[str, Tier]],
        clock: Clock,
        observer: TierObserver,
        *,
        room_timeout_s: float,
        drain_timeout_s: float,
        policy: TierPolicy = _DEFAULT,
        engines_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """`pins` gives the engine names that may not leave host memory, or not even their slots. `engines_wanted` says
        whether any replica is meant to be in service: where none is, nothing waits for one."""
        self._clock = clock
        self._engines_wanted = engines_wanted
        self._room_timeout_s = room_timeout_s
        self._demand = Demand(policy.demand_half_life_s)
        self._reports = Reports(clock)
        room = Room(pins, self._demand, clock, observer, inline_bytes=policy.inline_activation_bytes)
        self._moves = Moves(locate, room, clock, observer, self._reports.ask_soon, room_timeout_s=room_timeout_s)
        self._prefetch = Prefetch(
            self._moves, room, locate, self._demand, clock, concurrency=policy.prefetch_concurrency
        )
        self._leases = LeaseBook(clock)
        self._shelves: dict[str, Shelf] = {}
        self._closed: dict[str, list[Shelf]] = {}
        """Of replicas that left: calls to their engines may still be under way."""
        self._staging = Staging(self._shelves, self._moves, self._leases, self._demand, engines_wanted)
        self._retiring = Retiring(self._shelves, self._moves, self._leases, clock, drain_timeout_s=drain_timeout_s)
        self._refreshing = Refreshing(self._shelves, self._reports, Pins(self._moves, self._leases, pins))

    async def close(self) -> None:
        await self._prefetch.close()
        await self._refreshing.close()
        await self._moves.close()
        await self._reports.close()

    # --- leases ---

    def lease(self, target: Target, replica_id: str, end_request: Callable[[], object] | None = None) -> AdapterLease:
        """`relay.ports.Leases`: hold `target` on a replica, staged. `end_request` is called where it must be given up
        (None: the current task is cancelled). Raises `EngineUnavailable`; beginning it raises what
        `AdapterLease.begin` does."""
        shelf = None
        if not target.is_base:
            shelf = self._shelf(replica_id)
            self._demand.count(target.engine_name, self._clock.monotonic())
        return AdapterLease(self._leases, shelf, target, self._moves.stage, end_request or end_task())

    def lease_now(self, target: Target, replica_id: str, end_request: Callable[[], object]) -> AdapterLease | None:
        """`relay.ports.Leases`: a lease that has begun, where one is had at once."""
        if target.version is None:
            return AdapterLease(self._leases, None, target, self._moves.stage, end_request)
        name = target.engine_name
        shelf = self._shelves.get(replica_id)
        entry = None if shelf is None else shelf.holdings.get(name)
        if shelf is None or entry is None:
            return None
        in_slot = entry.slotted and entry.staged and entry.move is None
        if not in_slot and not self._moves.ready(shelf, entry):
            return None
        self._demand.count(name, self._clock.monotonic())
        lease = AdapterLease(self._leases, shelf, target, self._moves.stage, end_request)
        self._leases.begin(lease, entry)
        return lease

    def staged(self, target: Target, replica_id: str) -> bool:
        """`relay.ports.Leases`: whether a lease would be had at once."""
        if target.is_base:
            return True
        shelf = self._shelves.get(replica_id)
        entry = shelf.holdings.get(target.engine_name) if shelf is not None else None
        return shelf is not None and entry is not None and self._moves.ready(shelf, entry)

    async def stage(self, target: Target, replica_id: str) -> None:
        """`relay.ports.Leases`: make `target` ready on a replica. Raises what `lease` raises."""
        if not target.is_base:
            await self._staging.on(self._shelf(replica_id), target, "request")

    def foresee(self, target: Target, replica_id: str) -> None:
        """`relay.ports.Leases`: a request for `target` will come to the replica. Begins to load it into host memory in
        the background, where there is room now. Never raises."""
        shelf = self._shelves.get(replica_id)
        if shelf is None or target.is_base:
            return
        self._moves.begin(shelf, target, "foreseen")
        entry = shelf.holdings.get(target.engine_name)
        if entry is not None and entry.leases == 0:
            entry.awaited_until = self._clock.monotonic() + self._room_timeout_s

    def lost(self, target: Target, replica_id: str) -> None:
        """`relay.ports.Leases`. Its place stays taken: the next lease loads into it."""
        shelf = self._shelves.get(replica_id)
        entry = shelf.holdings.get(target.engine_name) if shelf is not None else None
        if entry is not None:
            entry.staged = False

    def leases(self, engine_name: str) -> int:
        """Requests on it, on replicas that are leaving too."""
        return self._leases.count(engine_name)

    # --- where things are ---

    def staged_on(self, engine_name: str) -> frozenset[str]:
        """Ids of the replicas on which the engine answers under the name."""
        return frozenset(replica for replica, shelf in self._shelves.items() if shelf.staged(engine_name))

    def in_engines(self) -> frozenset[str]:
        """Digests that an engine may read from disk at any time: they must stay there."""
        return frozenset(
            entry.target.digest
            for shelf in self._shelves.values()
            for entry in shelf.holdings.values()
            if entry.target.digest is not None
        )

    def tiers_on(self, engine_name: str) -> Mapping[str, Tier]:
        """By replica on which the engine answers under the name, `gpu` or `cpu`, as last reported and moved since."""
        return {
            replica: shelf.holdings[engine_name].tier
            for replica, shelf in self._shelves.items()
            if shelf.staged(engine_name)
        }

    def reports(self) -> Mapping[str, Report]:
        """By replica in service, what its engine said last, and when. It tells of what `hold`, `retire`, `prefetch` and
        `pin` have done when they return, where the engine answers. Memory only."""
        return self._reports.latest()

    def capabilities(self) -> Mapping[str, Capabilities]:
        """By replica in service, what its engine can do."""
        return {replica: shelf.capabilities for replica, shelf in self._shelves.items()}

    def demand(self, engine_name: str) -> float:
        """Requests a second for it, of late."""
        return self._demand.rate(engine_name, self._clock.monotonic())

    async def residents(self) -> Mapping[str, tuple[Resident, ...]]:
        """By replica, what each engine itself says that it holds, asked now. A replica that does not answer is left
        out."""
        return await self._refreshing.residents()

    def refresh_soon(self) -> None:
        """Ask every engine what it holds, set the books right by it, and pin there what is pinned: in the background,
        as an engine that is slow to answer keeps nobody waiting. A replica that does not answer is passed over."""
        self._refreshing.soon()

    # --- ahead of requests ---

    async def prefetch(self, target: Target, tier: Tier) -> None:
        """Move `target` up to `gpu` or `cpu` on every replica that is there; into a slot only where the engine tells
        slots apart. Raises what `hold` raises."""
        await self._staging.everywhere(target, tier, "prefetch")
        await self._reports.caught_up()

    async def pin(self, target: Target, tier: Tier) -> None:
        """As `prefetch`, and the engines keep it there, as what is pinned. Where no replica is meant to be in service,
        those that come do all of that."""
        if self._shelves or self._engines_wanted():
            await self._staging.everywhere(target, tier, "pin")
        await self.repin()

    async def repin(self) -> None:
        """Pins have changed: tell the engines. One that does not answer now is told by the next refresh."""
        await self._refreshing.repin()
        await self._reports.caught_up()

    def most_gpu_pins(self) -> int | None:
        """How many adapters may be pinned in slots: all but one of the replica that has the fewest. None where no
        replica is in service."""
        slots = [shelf.capabilities.max_loras for shelf in self._shelves.values()]
        return most_pins(min(slots)) if slots else None

    def prefetch_by_demand(self, wanted: Mapping[str, Target]) -> None:
        """Begin to move up what is in highest demand, as far as that is in nobody's way; `wanted` are the targets that
        names lead to, by engine name. Memory only."""
        self._prefetch.step(list(self._shelves.values()), wanted)

    @asynccontextmanager
    async def hold(self, target: Target, *, at_once: bool = False) -> AsyncIterator[None]:
        """`target` answers on every replica for the length of the block, on those that join during it too. A replica
        that fails and leaves is left out, as it is reconciled before it serves again. Raises what `lease` raises,
        and `EngineUnavailable` where no replica is left, but one is meant to be there. In the order of calls;
        `at_once`, what is staged everywhere does not wait for those before it, who may wait for room."""
        async with self._staging.hold(target, at_once=at_once):
            await self._reports.caught_up()
            yield

    # --- leaving ---

    async def retire(
        self, engine_name: str, reason: str, still_wanted: Callable[[], bool], *, end_requests: bool = False
    ) -> bool:
        """Wait until nobody needs `engine_name`, then free its weights on every replica. Gives up and returns False
        as soon as `still_wanted` says so. With `end_requests`, those that outlast `drain_timeout_s` are cancelled.
        A replica that does not answer is passed over: its place is freed when it is needed, or by `sweep`."""
        freed = await self._retiring.retire(engine_name, reason, still_wanted, end_requests=end_requests)
        await self._reports.caught_up()
        return freed

    async def sweep(self, wanted: Callable[[], frozenset[str]], idle_s: float) -> None:
        """Free what no name leads to and nobody called for `idle_s`. A replica that does not answer is passed
        over."""
        await self._retiring.sweep(wanted, idle_s)

    # --- replicas come and go ---

    async def attach(
        self,
        engine: LoraEngine,
        known: Callable[[], Mapping[str, Target]],
        first: Callable[[], Iterable[Target]],
    ) -> None:
        """Take a replica into service: learn what its engine holds, free what is not in `known`, stage `first` as
        far as there are places, and what is about to become live meanwhile. Raises `EngineError` where the engine
        does not answer, and the replica is not in service then; an adapter of `first` that does not load is
        skipped, as its requests will say why."""
        self.detach(engine.replica_id)
        for old in self._closed.pop(engine.replica_id, ()):
            await self._moves.settle(old)
        shelf = Shelf(engine, await engine.capabilities())
        residents = await engine.residents()
        self._leases.carry_over(shelf)
        soon = frozenset(target.engine_name for target in first())
        await reconcile(shelf, residents, known(), soon, self._clock.monotonic())
        self._shelves[engine.replica_id] = shelf
        try:
            await self._staging.first(shelf, first)
            await self._refreshing.one(shelf)
        except BaseException:
            self._close(shelf)
            raise

    def detach(self, replica_id: str) -> None:
        """The replica is gone; what it held is forgotten. Requests on it may go on to their end."""
        shelf = self._shelves.get(replica_id)
        if shelf is not None:
            self._close(shelf)

    def _close(self, shelf: Shelf) -> None:
        shelf.closed = True
        shelf.room.wake()
        self._leases.released.wake()
        replica_id = shelf.engine.replica_id
        if self._shelves.get(replica_id) is shelf:
            del self._shelves[replica_id]
            self._reports.forget(replica_id)
            self._closed.setdefault(replica_id, []).append(shelf)

    def in_use(self, replica_id: str) -> bool:
        """Whether a request, or somebody who has it staged, needs anything on a replica."""
        shelf = self._shelves.get(replica_id)
        return shelf is not None and any(entry.leases for entry in shelf.holdings.values())

    @property
    def replicas(self) -> frozenset[str]:
        return frozenset(self._shelves)

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books contradict themselves."""
        for shelf in self._shelves.values():
            shelf.check_integrity()
        self._leases.check_integrity()

    def _shelf(self, replica_id: str) -> Shelf:
        shelf = self._shelves.get(replica_id)
        if shelf is None:
            raise EngineUnavailable(f"Replica {replica_id!r} is not in service.", retry_after_s=1.0)
        return shelf
