"""Leases, and what every replica holds. DESIGN section 2, step 4.

A version answers on a replica from `Holding.staged` on, and leaves it only while no lease is held: eviction marks it
gone and looks at the leases without a suspension in between, and a lease counts before its first suspension.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from loramux_adapters.errors import EngineError, EngineRejected, EngineUnavailable, LoramuxError
from loramux_adapters.model import Resident, Target
from loramux_adapters.moves import Locate, Moves
from loramux_adapters.ports import Clock, LoraEngine, TierObserver
from loramux_adapters.shelf import Holding, Shelf
from loramux_adapters.wakeup import Wakeup

_LOOK_AGAIN_S = 1.0
"""How often a wait for leases asks whether it is still wanted."""


@dataclass(slots=True, eq=False)
class _Lease:
    """A request's hold, on the books of its replica. `ended` is true once the request was told to go."""

    task: asyncio.Task[object] | None
    shelf: Shelf
    entry: Holding
    ended: bool = False


class AdapterManager:
    """All replicas' shelves. One event loop. `close` ends the loads under way."""

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
        self._clock = clock
        self._drain_timeout_s = drain_timeout_s
        self._moves = Moves(locate, pinned, clock, observer, room_timeout_s=room_timeout_s)
        self._shelves: dict[str, Shelf] = {}
        self._closed: dict[str, list[Shelf]] = {}
        """Of replicas that left: calls to their engines may still be under way."""
        self._leases: dict[str, set[_Lease]] = {}
        self._moving = asyncio.Lock()
        """Held while something is kept staged everywhere until a pointer has moved."""
        self._held: list[Target] = []
        """What is kept so; a replica that joins meanwhile stages it too."""
        self._released = Wakeup()

    async def close(self) -> None:
        await self._moves.close()

    # --- leases ---

    @asynccontextmanager
    async def lease(self, target: Target, replica_id: str) -> AsyncIterator[None]:
        """`relay.ports.Leases`: hold `target` on a replica, staged, for the length of the block. Raises
        `EngineError`, `StorageError`, `ArtifactError`, or `QueueTimeout` where there was no room in time."""
        if target.is_base:
            yield
            return
        shelf = self._shelf(replica_id)
        lease = _Lease(asyncio.current_task(), shelf, self._take(shelf, target))
        self._leases.setdefault(target.engine_name, set()).add(lease)
        try:
            await self._moves.stage(shelf, lease.entry)
            yield
        finally:
            held = self._leases[target.engine_name]
            held.discard(lease)
            if not held:
                del self._leases[target.engine_name]
            self._let_go(lease.shelf, lease.entry)

    def staged(self, target: Target, replica_id: str) -> bool:
        """`relay.ports.Leases`: whether a lease would be had at once."""
        shelf = self._shelves.get(replica_id)
        return target.is_base or (shelf is not None and shelf.staged(target.engine_name))

    async def stage(self, target: Target, replica_id: str) -> None:
        """`relay.ports.Leases`: load `target` on a replica. Raises what `lease` raises."""
        await self._stage_on(self._shelf(replica_id), target)

    def lost(self, target: Target, replica_id: str) -> None:
        """`relay.ports.Leases`. Its place stays taken: the next lease loads into it."""
        shelf = self._shelves.get(replica_id)
        entry = shelf.holdings.get(target.engine_name) if shelf is not None else None
        if entry is not None:
            entry.staged = False

    def _take(self, shelf: Shelf, target: Target) -> Holding:
        entry = shelf.holding(target, self._clock.monotonic())
        entry.leases += 1
        return entry

    def _let_go(self, shelf: Shelf, entry: Holding) -> None:
        entry.leases -= 1
        entry.last_used = self._clock.monotonic()
        if entry.leases == 0:
            shelf.forget(entry.target.engine_name)
            shelf.room.wake()
            self._released.wake()

    def leases(self, engine_name: str) -> int:
        """Requests on it, on replicas that are leaving too."""
        return len(self._leases.get(engine_name, ()))

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
        """Make `target` answer on every replica that is there. Raises what `hold` raises."""
        async with self.hold(target):
            pass

    @asynccontextmanager
    async def hold(self, target: Target) -> AsyncIterator[None]:
        """`target` answers on every replica for the length of the block, on those that join during it too. A replica
        that fails and leaves is left out, as it is reconciled before it serves again. Raises what `lease` raises,
        and `EngineUnavailable` where no replica is left."""
        await self._stage_once(target)
        held: dict[Shelf, Holding] = {}
        async with self._moving:
            self._held.append(target)
            try:
                while joined := [shelf for shelf in self._shelves.values() if shelf not in held]:
                    held |= {shelf: self._take(shelf, target) for shelf in joined}
                    await _all_but_closed({shelf: self._moves.stage(shelf, held[shelf]) for shelf in joined})
                if not self.staged_on(target.engine_name):
                    raise EngineUnavailable("No engine is ready to take the adapter.", retry_after_s=5.0)
                yield
            finally:
                self._held.remove(target)
                for shelf, entry in held.items():
                    self._let_go(shelf, entry)

    async def _stage_once(self, target: Target) -> None:
        """On every replica, without keeping it there: two that kept one each and waited for the other's would wait
        for ever. So the slow part may be done for many at once, and `hold` keeps one at a time."""
        await _all_but_closed({shelf: self._stage_on(shelf, target) for shelf in list(self._shelves.values())})

    async def _stage_on(self, shelf: Shelf, target: Target) -> None:
        entry = self._take(shelf, target)
        try:
            await self._moves.stage(shelf, entry)
        finally:
            self._let_go(shelf, entry)

    # --- leaving ---

    async def retire(
        self, engine_name: str, reason: str, still_wanted: Callable[[], bool], *, end_requests: bool = False
    ) -> bool:
        """Wait until nobody needs `engine_name`, then free its weights on every replica. Gives up and returns False
        as soon as `still_wanted` says so. With `end_requests`, those that outlast `drain_timeout_s` are cancelled.
        A replica that does not answer is passed over: its place is freed when it is needed, or by `sweep`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain_timeout_s
        while not still_wanted():
            if not self._needed(engine_name):
                if await self._evict_everywhere(engine_name, reason, still_wanted):
                    return True
                continue
            left = deadline - loop.time()
            if end_requests and left <= 0:
                self._end_requests(engine_name)
            await self._released.wait(min(left, _LOOK_AGAIN_S) if end_requests and left > 0 else _LOOK_AGAIN_S)
        return False

    def _needed(self, engine_name: str) -> bool:
        """By a request, or by somebody who has it staged."""
        return self.leases(engine_name) > 0 or any(
            entry.leases > 0
            for shelf in self._shelves.values()
            if (entry := shelf.holdings.get(engine_name)) is not None
        )

    async def _evict_everywhere(self, engine_name: str, reason: str, still_wanted: Callable[[], bool]) -> bool:
        freed = True
        for shelf in list(self._shelves.values()):
            if still_wanted():
                return False
            try:
                freed &= await self._moves.evict(shelf, engine_name, reason)
            except EngineError:
                continue
        return freed

    def _end_requests(self, engine_name: str) -> None:
        """Once each: what they do on their way out is not disturbed again."""
        for lease in self._leases.get(engine_name, ()):
            if lease.task is not None and not lease.ended:
                lease.ended = True
                lease.task.cancel("the adapter's version was taken away")

    async def sweep(self, wanted: Callable[[], frozenset[str]], idle_s: float) -> None:
        """Free what no name leads to and nobody called for `idle_s`. A replica that does not answer is passed
        over."""
        for shelf in list(self._shelves.values()):
            for name in [name for name, entry in shelf.holdings.items() if entry.placed]:
                entry = shelf.holdings.get(name)
                if entry is None or name in wanted() or self._clock.monotonic() - entry.last_used < idle_s:
                    continue
                try:
                    await self._moves.evict(shelf, name, "idle")
                except EngineError:
                    break

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
        self._carry_over(shelf)
        await self._reconcile(shelf, residents, known(), frozenset(target.engine_name for target in first()))
        self._shelves[engine.replica_id] = shelf
        try:
            await self._stage_first(shelf, first)
        except BaseException:
            self._close(shelf)
            raise

    def _carry_over(self, shelf: Shelf) -> None:
        """Requests may have outlived the last time that the replica was in service, if its process did."""
        for lease in [lease for leases in self._leases.values() for lease in leases]:
            if lease.shelf.engine.replica_id == shelf.engine.replica_id:
                entry = self._take(shelf, lease.entry.target)
                self._let_go(lease.shelf, lease.entry)
                lease.shelf, lease.entry = shelf, entry

    async def _reconcile(
        self, shelf: Shelf, residents: Iterable[Resident], known: Mapping[str, Target], soon: frozenset[str]
    ) -> None:
        """Put on the books what the engine holds, what is in use first, and free what is not known or does not
        fit."""
        leased = frozenset(shelf.holdings)
        names = sorted(
            {resident.engine_name for resident in residents}, key=lambda name: (name not in leased, name not in soon)
        )
        placed = 0
        for name in names:
            in_use = shelf.holdings.get(name)
            target = known.get(name) if in_use is None else in_use.target
            if target is None or placed >= shelf.capabilities.max_cpu_loras:
                await shelf.engine.evict(name)
                continue
            # What is not wanted soon counts as long unused, so that it makes room.
            entry = shelf.holding(target, self._clock.monotonic() if name in soon else 0.0)
            entry.placed = entry.staged = True
            placed += 1

    async def _stage_first(self, shelf: Shelf, first: Callable[[], Iterable[Target]]) -> None:
        """Until nothing new is wanted: names may come to lead elsewhere while this goes on."""
        tried: set[str] = set()
        while True:
            soon = list(first())[: shelf.capabilities.max_cpu_loras]
            target = next((target for target in (*self._held, *soon) if target.engine_name not in tried), None)
            if target is None:
                return
            tried.add(target.engine_name)
            try:
                await self._stage_on(shelf, target)
            except LoramuxError as error:
                if isinstance(error, EngineError) and not isinstance(error, EngineRejected):
                    raise

    def detach(self, replica_id: str) -> None:
        """The replica is gone; what it held is forgotten. Requests on it may go on to their end."""
        shelf = self._shelves.get(replica_id)
        if shelf is not None:
            self._close(shelf)

    def _close(self, shelf: Shelf) -> None:
        shelf.closed = True
        shelf.room.wake()
        self._released.wake()
        replica_id = shelf.engine.replica_id
        if self._shelves.get(replica_id) is shelf:
            del self._shelves[replica_id]
            self._closed.setdefault(replica_id, []).append(shelf)

    @property
    def replicas(self) -> frozenset[str]:
        return frozenset(self._shelves)

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books contradict themselves."""
        for shelf in self._shelves.values():
            shelf.check_integrity()
        for name, leases in self._leases.items():
            assert leases, f"{name}: an empty set of leases"

    def _shelf(self, replica_id: str) -> Shelf:
        shelf = self._shelves.get(replica_id)
        if shelf is None:
            raise EngineUnavailable(f"Replica {replica_id!r} is not in service.", retry_after_s=1.0)
        return shelf


async def _all_but_closed(work: Mapping[Shelf, Coroutine[Any, Any, None]]) -> None:
    """Do it on all at once. What fails on a replica that left meanwhile does not count."""
    results = await asyncio.gather(*work.values(), return_exceptions=True)
    for shelf, result in zip(work, results, strict=True):
        if isinstance(result, BaseException) and not (isinstance(result, EngineError) and shelf.closed):
            raise result
