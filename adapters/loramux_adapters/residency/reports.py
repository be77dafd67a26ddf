"""What engines say that they hold, kept with its time; the books follow it."""

import asyncio
from collections.abc import Mapping
from itertools import count

from loramux_adapters.errors import EngineError
from loramux_adapters.model import Report, Resident
from loramux_adapters.ports import Clock
from loramux_adapters.residency.shelf import Shelf

_CATCH_UP_S = 1.0


class Reports:
    """The last report of each replica in service. Owns the tasks that ask; `close` ends them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest: dict[str, tuple[int, Report]] = {}
        self._numbers = count()
        self._asking: dict[Shelf, asyncio.Task[None]] = {}
        self._again: set[Shelf] = set()

    def latest(self) -> Mapping[str, Report]:
        return {replica: report for replica, (_, report) in self._latest.items()}

    async def ask(self, shelf: Shelf) -> tuple[Resident, ...]:
        """What the engine holds now. Raises `EngineError`; then the last report stays."""
        number, changes, quiet = next(self._numbers), shelf.changes, shelf.quiet
        residents = tuple(await shelf.engine.residents())
        if not shelf.closed:
            before = self._latest.get(shelf.engine.replica_id)
            if before is None or before[0] < number:  # else one that was asked later was faster
                self._latest[shelf.engine.replica_id] = number, Report(self._clock.now(), residents)
                shelf.learn(residents, whole=quiet and shelf.changes == changes)
        return residents

    def ask_soon(self, shelf: Shelf) -> None:
        """In the background, and once more where that is under way already."""
        if shelf.closed:
            return
        if shelf in self._asking:
            self._again.add(shelf)
            return
        self._asking[shelf] = task = asyncio.create_task(self._ask(shelf), name=f"ask {shelf.engine.replica_id}")
        task.add_done_callback(lambda _: self._asking.pop(shelf, None))

    async def _ask(self, shelf: Shelf) -> None:
        while True:
            self._again.discard(shelf)
            try:
                await self.ask(shelf)
            except EngineError:
                return  # asked again with the next move, or by the clock
            if shelf not in self._again or shelf.closed:
                return

    async def caught_up(self) -> None:
        """Until the reports tell of every move that has ended, so that whoever moved something sees it there. An engine
        that does not answer is waited for `_CATCH_UP_S` at most."""
        if self._asking:
            await asyncio.wait(list(self._asking.values()), timeout=_CATCH_UP_S)

    def forget(self, replica_id: str) -> None:
        """It is out of service: nothing is known."""
        self._latest.pop(replica_id, None)

    async def close(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
