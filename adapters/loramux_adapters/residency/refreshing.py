"""Keeps books, reports and the engines' pins up to date, each replica at its own pace."""

import asyncio
from collections.abc import Mapping
from functools import partial

from loramux_adapters.errors import EngineError
from loramux_adapters.model import Resident
from loramux_adapters.residency.pins import Pins
from loramux_adapters.residency.reports import Reports
from loramux_adapters.residency.shelf import Shelf


class Refreshing:
    """Of all replicas in `shelves`, which come and go. One that does not answer is passed over. Owns the tasks that
    ask; `close` ends them."""

    def __init__(self, shelves: Mapping[str, Shelf], reports: Reports, pins: Pins) -> None:
        self._shelves = shelves
        self._reports = reports
        self._pins = pins
        self._tasks: dict[Shelf, asyncio.Task[None]] = {}

    async def one(self, shelf: Shelf) -> None:
        """Raises `EngineError`."""
        await self._reports.ask(shelf)
        await self._pins.apply(shelf)

    def soon(self) -> None:
        """In the background; an engine that is slow to answer is not asked twice, and keeps no other waiting."""
        for shelf in self._shelves.values():
            if shelf not in self._tasks:
                task = asyncio.create_task(self._try(shelf), name=f"refresh {shelf.engine.replica_id}")
                self._tasks[shelf] = task
                task.add_done_callback(partial(self._done, shelf))

    async def _try(self, shelf: Shelf) -> None:
        try:
            await self.one(shelf)
        except EngineError:
            return  # the last report stays, and its time says how old it is

    def _done(self, shelf: Shelf, _task: asyncio.Task[None]) -> None:
        del self._tasks[shelf]

    async def residents(self) -> Mapping[str, tuple[Resident, ...]]:
        """See `AdapterManager.residents`."""
        found: dict[str, tuple[Resident, ...]] = {}

        async def ask(replica: str, shelf: Shelf) -> None:
            try:
                found[replica] = await self._reports.ask(shelf)
            except EngineError:
                return

        await asyncio.gather(*(ask(replica, shelf) for replica, shelf in self._shelves.items()))
        return found

    async def repin(self) -> None:
        """See `AdapterManager.repin`."""

        async def apply(shelf: Shelf) -> None:
            shelf.room.wake()  # something may leave that might not before
            try:
                await self._pins.apply(shelf)
            except EngineError:
                return

        await asyncio.gather(*(apply(shelf) for shelf in self._shelves.values()))

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
