"""Moves on a replica: loads, ways into a slot, pins and evictions. One move of an adapter for all who wait for it.

Whoever holds `Holding.turn` may wait in `Shelf.line`, and the first in line may wait for the turn of something that is
not moving: so nobody waits in a circle.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from loramux_adapters.errors import EngineError, EngineRejected
from loramux_adapters.model import Target, Tier
from loramux_adapters.ports import Clock, LoadOutcome, TierObserver
from loramux_adapters.residency.room import Room, no_slot
from loramux_adapters.residency.shelf import Holding, Shelf
from loramux_adapters.tiers import WantReason

Locate = Callable[[Target], Awaitable[Path]]
"""Gives the directory of a target's artifact on local disk, fetching it again where it must."""

_REFUSED_PAUSE_S = 0.1
"""Between two tries for a slot that the engine did not give."""


class Moves:
    """Moves adapters between disk, host memory and slots. Owns the tasks of that; `close` ends them."""

    def __init__(
        self,
        locate: Locate,
        room: Room,
        clock: Clock,
        observer: TierObserver,
        moved: Callable[[Shelf], None],
        *,
        room_timeout_s: float,
    ) -> None:
        """`moved` is called after each call that may have changed what an engine holds."""
        self._locate = locate
        self._room = room
        self._clock = clock
        self._observer = observer
        self._moved = moved
        self._room_timeout_s = room_timeout_s
        self._tasks: set[asyncio.Task[None]] = set()

    # --- up ---

    def ready(self, shelf: Shelf, entry: Holding) -> bool:
        """Whether a request could go to the engine at once. Where every slot is in use, waiting here gains nothing:
        the engine keeps the request until there is one."""
        if not entry.staged:
            return False
        if not shelf.capabilities.staging or (entry.slotted and entry.move is None):
            return True
        return not self._room.slot_first(shelf, entry)

    async def stage(self, shelf: Shelf, entry: Holding, reason: WantReason = "request") -> None:
        """Until the engine answers under the name; for a `request`, until it is `ready`. Joins the move that is under
        way, or begins one; leaving early does not end it for the others. The caller counts in `entry.leases`. Raises
        `EngineError`, `StorageError`, `ArtifactError`, `QueueTimeout`."""
        await self._load_first(shelf, entry, reason)
        if reason == "request" and self._room.slot_first(shelf, entry):
            await self._join(shelf, entry, reason, self._activate)
            await self._load_first(shelf, entry, reason)
        shelf.check_open()

    async def _load_first(self, shelf: Shelf, entry: Holding, reason: WantReason) -> None:
        while not entry.staged:
            await self._join(shelf, entry, reason, self._load)

    async def slot(self, shelf: Shelf, entry: Holding, reason: WantReason) -> None:
        """As `stage`, and into a slot; waits for one. No more than `stage` where the engine does not tell slots
        apart."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._room_timeout_s
        while True:
            await self.stage(shelf, entry, reason)
            if not shelf.capabilities.staging or await self.try_slot(shelf, entry, reason):
                return
            left = deadline - loop.time()
            if left <= 0:
                raise no_slot()
            if not self._room.has_slot(shelf, entry, reason):
                await shelf.room.wait(left)
            else:
                await asyncio.sleep(min(left, _REFUSED_PAUSE_S))

    async def try_slot(self, shelf: Shelf, entry: Holding, reason: WantReason) -> bool:
        """Move what is staged into a slot if one can be had now. True where it is in one."""
        if entry.move is None and not self._room.has_slot(shelf, entry, reason):
            return False
        if entry.move is not None or not entry.slotted:
            await self._join(shelf, entry, reason, self._activate)
        return entry.slotted

    def begin(self, shelf: Shelf, target: Target, reason: WantReason) -> asyncio.Task[None] | None:
        """Load into host memory without anybody who waits. None where it is there or on its way, where others stand in
        line, or where there is no room now."""
        entry = shelf.holdings.get(target.engine_name)
        if shelf.closed or shelf.line.first is not None or (entry and (entry.placed or entry.move)):
            return None
        if not self._room.has_place(shelf, target, reason):
            return None
        return self._begin(shelf, shelf.holding(target, self._clock.monotonic()), reason, self._load, passes=True)

    def _begin(
        self, shelf: Shelf, entry: Holding, reason: WantReason, work: "_Work", *, passes: bool = False
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(
            work(shelf, entry, reason, passes), name=f"{work.__name__.strip('_')} {entry.target.engine_name}"
        )
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, shelf, entry))
        entry.move = task
        return task

    async def _join(self, shelf: Shelf, entry: Holding, reason: WantReason, work: "_Work") -> None:
        if entry.move is None:
            self._begin(shelf, entry, reason, work)
        else:
            shelf.line.hurry(entry.target.engine_name, reason)
        assert entry.move is not None
        await asyncio.shield(entry.move)

    def _done(self, shelf: Shelf, entry: Holding, task: asyncio.Task[None]) -> None:
        """Also for a move that was ended before it began."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: those who waited for it have it, and nobody may have
        if entry.move is task:
            self._end(shelf, entry)

    def _end(self, shelf: Shelf, entry: Holding) -> None:
        entry.move = None
        shelf.forget(entry.target.engine_name)
        shelf.room.wake()

    async def _load(self, shelf: Shelf, entry: Holding, reason: WantReason, passes: bool) -> None:
        name = entry.target.engine_name
        started = self._clock.monotonic()
        tier = Tier.GPU
        ok = False
        try:
            async with entry.turn:
                path = await self._locate(entry.target)
                fresh = not entry.placed
                if fresh:
                    deadline = asyncio.get_running_loop().time() + self._room_timeout_s
                    await self._room.take_place(
                        shelf, entry, reason, passes=passes, deadline=deadline, evict=self.evict
                    )
                shelf.check_open()
                tier = self._room.take_slot(shelf, entry, "request" if passes and entry.leases else reason)
                started = self._clock.monotonic()
                try:
                    with shelf.change():
                        await shelf.engine.load(name, path, tier=tier, keep=self._room.kept(shelf, entry))
                except EngineRejected:
                    # Unless a call before this one broke off: what that one did is not known even now.
                    entry.placed = not fresh
                    raise
                entry.staged = ok = True
                entry.last_used = self._clock.monotonic()
        finally:
            if not ok:
                entry.slotted = False
            self._end(shelf, entry)
            self._told(Tier.DISK, tier, ok, started)
            self._moved(shelf)

    async def _activate(self, shelf: Shelf, entry: Holding, reason: WantReason, _passes: bool) -> None:
        """As far as the engine gives a slot: where it does not, a request is no worse off than without. What the engine
        does not have is not staged any more."""
        try:
            async with entry.turn:
                if shelf.closed or not entry.staged or entry.slotted:
                    return
                if self._room.take_slot(shelf, entry, reason, moving=True) is Tier.GPU:
                    await self._activate_there(shelf, entry)
        finally:
            self._end(shelf, entry)

    async def _activate_there(self, shelf: Shelf, entry: Holding) -> None:
        started = self._clock.monotonic()
        given: bool | None = None
        try:
            with shelf.change():
                given = await shelf.engine.activate(entry.target.engine_name, keep=self._room.kept(shelf, entry))
        except EngineRejected:
            entry.staged = False
        except EngineError:
            pass  # whoever needs the engine next finds out
        finally:
            entry.slotted = given is True
            if given is not False:
                self._told(Tier.CPU, Tier.GPU, given is True, started)
            self._moved(shelf)

    def _told(self, source: Tier, target: Tier, ok: bool, started: float) -> None:
        outcome: LoadOutcome = "ok" if ok else "failed"
        self._observer.adapter_loaded(source, target, outcome, self._clock.monotonic() - started)

    # --- pins, and down ---

    async def pin(self, shelf: Shelf, entry: Holding, tier: Tier | None) -> None:
        """Let the engine itself keep what is staged in `tier`. Raises `EngineError`."""
        async with entry.turn:
            if not entry.staged or entry.pin is tier:
                return
            shelf.check_open()
            with shelf.change():
                if tier is None:
                    await shelf.engine.unpin(entry.target.engine_name)
                else:
                    await shelf.engine.pin(entry.target.engine_name, tier)
            entry.pin = tier
        self._moved(shelf)

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
                entry.staged = entry.slotted = False
                began = self._clock.monotonic()
                try:
                    with shelf.change():
                        await shelf.engine.evict(engine_name)
                finally:
                    self._moved(shelf)
                entry.placed = False
                entry.pin = None
                self._observer.adapter_evicted(Tier.CPU, reason, self._clock.monotonic() - began)
        shelf.forget(engine_name)
        shelf.room.wake()
        return True

    async def settle(self, shelf: Shelf) -> None:
        """Wait until no call that was begun for a replica that is out of service is under way."""
        while busy := [entry for entry in shelf.holdings.values() if entry.move or entry.turn.locked()]:
            for entry in busy:
                if entry.move is not None:
                    await asyncio.wait([entry.move])
                async with entry.turn:
                    pass

    async def close(self) -> None:
        """End all moves; those who wait for one are cancelled."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_Work = Callable[[Shelf, Holding, WantReason, bool], Coroutine[Any, Any, None]]
