"""Loads and evictions on a replica: one load for all who wait for it, places in the order of arrival.

Whoever holds `Holding.turn` may wait for `Shelf.door`, and whoever holds the door may wait for the turn of something
that is not being loaded: so nobody waits in a circle.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from loramux_adapters.errors import EngineRejected, QueueTimeout
from loramux_adapters.model import Target, Tier
from loramux_adapters.ports import Clock, LoadOutcome, TierObserver
from loramux_adapters.shelf import Holding, Shelf
from loramux_adapters.tiers import make_room

Locate = Callable[[Target], Awaitable[Path]]
"""Gives the directory of a target's artifact on local disk, fetching it again where it must."""


class Moves:
    """Moves adapters between disk and engines. Owns the tasks of loads; `close` ends them."""

    def __init__(
        self,
        locate: Locate,
        pinned: Callable[[], frozenset[str]],
        clock: Clock,
        observer: TierObserver,
        *,
        room_timeout_s: float,
    ) -> None:
        self._locate = locate
        self._pinned = pinned
        self._clock = clock
        self._observer = observer
        self._room_timeout_s = room_timeout_s
        self._loads: set[asyncio.Task[None]] = set()

    async def stage(self, shelf: Shelf, entry: Holding) -> None:
        """Join the load that is under way, or begin one; leaving early does not end it for the others. The caller
        counts in `entry.leases`. Raises `EngineError`, `StorageError`, `ArtifactError`, `QueueTimeout`."""
        if entry.staged:
            return
        if entry.load is None:
            task = asyncio.create_task(self._load(shelf, entry), name=f"load {entry.target.engine_name}")
            self._loads.add(task)
            task.add_done_callback(partial(self._loaded, shelf, entry))
            entry.load = task
        await asyncio.shield(entry.load)
        shelf.check_open()

    def _loaded(self, shelf: Shelf, entry: Holding, task: asyncio.Task[None]) -> None:
        """Also for a load that was ended before it began."""
        self._loads.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: those who waited for it have it, and nobody may have
        if entry.load is task:
            self._end(shelf, entry)

    def _end(self, shelf: Shelf, entry: Holding) -> None:
        entry.load = None
        shelf.forget(entry.target.engine_name)
        shelf.room.wake()

    async def _load(self, shelf: Shelf, entry: Holding) -> None:
        name = entry.target.engine_name
        started = self._clock.monotonic()
        ok = False
        try:
            async with entry.turn:
                path = await self._locate(entry.target)
                known = not entry.placed
                if known:
                    await self._take_place(shelf, entry)
                shelf.check_open()
                try:
                    await shelf.engine.load(name, path)
                except EngineRejected:
                    # Unless a call before this one broke off: what that one did is not known even now.
                    entry.placed = not known
                    raise
                entry.staged = ok = True
                entry.last_used = self._clock.monotonic()
        finally:
            self._end(shelf, entry)
            outcome: LoadOutcome = "ok" if ok else "failed"
            self._observer.adapter_loaded(Tier.DISK, Tier.GPU, outcome, self._clock.monotonic() - started)

    async def _take_place(self, shelf: Shelf, entry: Holding) -> None:
        """Make room, in the order of arrival. Raises `QueueTimeout`, `EngineUnavailable` where the replica left."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._room_timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                await shelf.door.acquire()
        except TimeoutError:
            raise _no_room() from None
        try:
            while True:
                shelf.check_open()
                room = make_room(
                    shelf.places(self._pinned(), but=entry.target.engine_name), shelf.capabilities.max_cpu_loras
                )
                if room.evict:  # one at a time, then look again: meanwhile others came and went
                    await self.evict(shelf, room.evict[0], "lru")
                elif room.fits:
                    entry.placed = True
                    return
                elif loop.time() >= deadline:
                    raise _no_room()
                else:
                    await shelf.room.wait(deadline - loop.time())
        finally:
            shelf.door.release()

    async def evict(self, shelf: Shelf, engine_name: str, reason: str) -> bool:
        """Free the weights, unless somebody needs them. True where they are free. Raises `EngineError`: then nobody
        knows, and until the engine says so the place is taken, and the next lease loads again."""
        entry = shelf.holdings.get(engine_name)
        if entry is None:
            return True
        async with entry.turn:
            if entry.leases:
                return False
            if entry.placed:
                shelf.check_open()
                # No suspension since the look at the leases: a lease that comes from here on finds it not staged.
                entry.staged = False
                await shelf.engine.evict(engine_name)
                entry.placed = False
                self._observer.adapter_evicted(Tier.CPU, reason)
        shelf.forget(engine_name)
        shelf.room.wake()
        return True

    async def settle(self, shelf: Shelf) -> None:
        """Wait until no call that was begun for a replica that is out of service is under way."""
        while busy := [entry for entry in shelf.holdings.values() if entry.load or entry.turn.locked()]:
            for entry in busy:
                if entry.load is not None:
                    await asyncio.wait([entry.load])
                async with entry.turn:
                    pass

    async def close(self) -> None:
        """End all loads; those who wait for one are cancelled."""
        loads = list(self._loads)
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)


def _no_room() -> QueueTimeout:
    return QueueTimeout(
        "Every place for adapters in host memory is taken by requests under way or by pins; try again.",
        retry_after_s=5.0,
    )
