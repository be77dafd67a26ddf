"""Leases, loads and evictions over all replicas. DESIGN section 2, step 4.

A version answers on a replica from `Holding.staged` on, and leaves it only while no lease is held: eviction marks it
gone and looks at the leases without a suspension in between, and a lease counts before its first suspension.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from loramux_adapters.errors import EngineError, EngineUnavailable, LoramuxError, QueueTimeout
from loramux_adapters.model import Resident, Target, Tier
from loramux_adapters.ports import Clock, LoadOutcome, LoraEngine, TierObserver
from loramux_adapters.shelf import Holding, Shelf
from loramux_adapters.tiers import make_room
from loramux_adapters.wakeup import Wakeup

Locate = Callable[[Target], Awaitable[Path]]
"""Gives the directory of a target's artifact on local disk, fetching it again where it must."""


class AdapterManager:
    """All replicas' shelves. One event loop."""

    def __init__(
        self,
        locate: Locate,
        pinned: Callable[[], frozenset[str]],
        clock: Clock,
        observer: TierObserver,
        *,
        room_timeout_s: float,
        drain_timeout_s: float,
    ) -> None:
        """`pinned` gives the engine names that may not leave host memory."""
        self._locate = locate
        self._pinned = pinned
        self._clock = clock
        self._observer = observer
        self._room_timeout_s = room_timeout_s
        self._drain_timeout_s = drain_timeout_s
        self._shelves: dict[str, Shelf] = {}
        self._holders: dict[str, set[asyncio.Task[object]]] = {}
        self._released = Wakeup()

    # --- leases ---

    @asynccontextmanager
    async def lease(self, target: Target, replica_id: str) -> AsyncIterator[None]:
        """`relay.ports.Leases`: hold `target` on a replica, staged, for the length of the block. Raises
        `EngineError`, `StorageError`, `ArtifactError`, or `QueueTimeout` where there was no room in time."""
        if target.is_base:
            yield
            return
        shelf = self._shelf(replica_id)
        entry = shelf.holding(target, self._clock.monotonic())
        entry.leases += 1
        task = asyncio.current_task()
        holders = self._holders.setdefault(target.engine_name, set())
        if task is not None:
            holders.add(task)
        try:
            if not entry.staged:
                await self._stage(shelf, entry)
            yield
        finally:
            entry.leases -= 1
            entry.last_used = self._clock.monotonic()
            if task is not None:
                holders.discard(task)
            if entry.leases == 0:
                self._let_go(shelf, entry)

    def _let_go(self, shelf: Shelf, entry: Holding) -> None:
        shelf.forget(entry.target.engine_name)
        if not self._holders.get(entry.target.engine_name):
            self._holders.pop(entry.target.engine_name, None)
        shelf.room.wake()
        self._released.wake()

    def leases(self, engine_name: str) -> int:
        return sum(
            entry.leases for shelf in self._shelves.values() if (entry := shelf.holdings.get(engine_name)) is not None
        )

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

    async def residents(self) -> Mapping[str, tuple[Resident, ...]]:
        """By replica, what each engine itself says that it holds. A replica that does not answer is left out."""
        found: dict[str, tuple[Resident, ...]] = {}
        for replica, shelf in list(self._shelves.items()):
            try:
                found[replica] = tuple(await shelf.engine.residents())
            except EngineError:
                continue
        return found

    # --- staging ---

    async def stage_everywhere(self, target: Target) -> None:
        """Make `target` answer on every replica that is there. A replica that fails meanwhile is left out, as it is
        reconciled before it serves again. Raises what `lease` raises, and `EngineUnavailable` where none is left."""
        shelves = list(self._shelves.items())
        results = await asyncio.gather(*(self._stage_on(shelf, target) for _, shelf in shelves), return_exceptions=True)
        gone = 0
        for (replica, shelf), result in zip(shelves, results, strict=True):
            if isinstance(result, EngineError) and self._shelves.get(replica) is not shelf:
                gone += 1
            elif isinstance(result, BaseException):
                raise result
        if gone == len(shelves):
            raise EngineUnavailable("No engine is ready to take the adapter.", retry_after_s=5.0)

    async def _stage_on(self, shelf: Shelf, target: Target) -> None:
        entry = shelf.holding(target, self._clock.monotonic())
        entry.leases += 1  # so that room is not made at its cost while it waits
        try:
            if not entry.staged:
                await self._stage(shelf, entry)
            entry.last_used = self._clock.monotonic()
        finally:
            entry.leases -= 1
            if entry.leases == 0:
                self._let_go(shelf, entry)

    async def _stage(self, shelf: Shelf, entry: Holding) -> None:
        """Join the load that is under way, or begin one. Leaving early does not end it for the others."""
        if entry.load is None:
            entry.load = asyncio.create_task(self._load(shelf, entry), name=f"load {entry.target.engine_name}")
            entry.load.add_done_callback(_seen)
        await asyncio.shield(entry.load)

    async def _load(self, shelf: Shelf, entry: Holding) -> None:
        started = self._clock.monotonic()
        ok = False
        try:
            async with entry.turn:
                path = await self._locate(entry.target)
                await self._make_room(shelf, entry)
                await shelf.engine.load(entry.target.engine_name, path)
                entry.staged = ok = True
                entry.last_used = self._clock.monotonic()
        finally:
            entry.load = None
            if not ok:
                shelf.forget(entry.target.engine_name)
            outcome: LoadOutcome = "ok" if ok else "failed"
            self._observer.adapter_loaded(Tier.DISK, Tier.GPU, outcome, self._clock.monotonic() - started)

    async def _make_room(self, shelf: Shelf, entry: Holding) -> None:
        name = entry.target.engine_name
        deadline = self._clock.monotonic() + self._room_timeout_s
        while True:
            room = make_room(shelf.places(self._pinned(), but=name), shelf.capabilities.max_cpu_loras)
            for victim in room.evict:
                await self._evict(shelf, victim, "lru")
            if room.fits:
                return
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise QueueTimeout(
                    "Every place for adapters in host memory is taken by requests under way or by pins; try again.",
                    retry_after_s=5.0,
                )
            await shelf.room.wait(left)

    # --- leaving ---

    async def _evict(self, shelf: Shelf, engine_name: str, reason: str) -> bool:
        """Free the weights on one replica, unless a lease came. True where the engine no longer holds it."""
        entry = shelf.holdings.get(engine_name)
        if entry is None:
            return True
        async with entry.turn:
            if entry.leases or not entry.staged:
                return not entry.staged
            entry.staged = False
            try:
                await shelf.engine.evict(engine_name)
            except EngineError:
                entry.staged = True
                raise
            self._observer.adapter_evicted(Tier.CPU, reason)
        shelf.forget(engine_name)
        shelf.room.wake()
        return True

    async def retire(self, engine_name: str, reason: str, still_wanted: Callable[[], bool]) -> bool:
        """Wait until no request is on `engine_name`, then free its weights on every replica. Gives up and returns
        False as soon as `still_wanted` says so. Requests that outlast `drain_timeout_s` are ended."""
        deadline = self._clock.monotonic() + self._drain_timeout_s
        while not still_wanted():
            if self.leases(engine_name) == 0:
                for shelf in list(self._shelves.values()):
                    try:
                        await self._evict(shelf, engine_name, reason)
                    except EngineError:
                        continue  # the replica is reconciled before it serves again
                if not self.staged_on(engine_name):
                    return True
                continue
            left = deadline - self._clock.monotonic()
            if left <= 0:
                for task in list(self._holders.get(engine_name, ())):
                    task.cancel("the adapter's version was taken away")
                left = 1.0
            await self._released.wait(left)
        return False

    async def sweep(self, wanted: Callable[[], frozenset[str]], idle_s: float) -> None:
        """Free what no name leads to and nobody called for `idle_s`."""
        now = self._clock.monotonic()
        for shelf in list(self._shelves.values()):
            idle = [
                name
                for name, entry in shelf.holdings.items()
                if entry.staged and not entry.leases and now - entry.last_used >= idle_s
            ]
            for name in idle:
                if name not in wanted():
                    await self._evict(shelf, name, "idle")

    # --- replicas come and go ---

    async def attach(self, engine: LoraEngine, known: Mapping[str, Target], first: tuple[Target, ...]) -> None:
        """Take a replica into service: learn what its engine holds, free what is not in `known`, stage `first`.
        Raises `EngineError` where the engine does not answer; an adapter of `first` that does not load is skipped,
        as its requests will say why."""
        capabilities = await engine.capabilities()
        shelf = Shelf(engine, capabilities)
        now = self._clock.monotonic()
        for resident in await engine.residents():
            target = known.get(resident.engine_name)
            if target is not None and len(shelf.holdings) < capabilities.max_cpu_loras:
                shelf.holding(target, now).staged = True
            else:
                await engine.evict(resident.engine_name)
        self._shelves[engine.replica_id] = shelf
        for target in first:
            try:
                await self._stage_on(shelf, target)
            except EngineUnavailable:
                raise
            except LoramuxError:
                continue

    def detach(self, replica_id: str) -> None:
        """The replica is gone; what it held is forgotten."""
        self._shelves.pop(replica_id, None)

    @property
    def replicas(self) -> frozenset[str]:
        return frozenset(self._shelves)

    def check_integrity(self) -> None:
        for shelf in self._shelves.values():
            shelf.check_integrity()

    def _shelf(self, replica_id: str) -> Shelf:
        shelf = self._shelves.get(replica_id)
        if shelf is None:
            raise EngineUnavailable(f"Replica {replica_id!r} is not in service.", retry_after_s=1.0)
        return shelf


def _seen(task: asyncio.Task[None]) -> None:
    """Mark a load's exception as retrieved: those who waited for it have it, and nobody may have."""
    if not task.cancelled():
        task.exception()
