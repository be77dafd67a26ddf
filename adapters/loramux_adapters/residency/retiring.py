"""What leaves the engines: versions that nobody needs any more."""

import asyncio
from collections.abc import Callable, Mapping

from loramux_adapters.errors import EngineError
from loramux_adapters.ports import Clock
from loramux_adapters.residency.leases import LeaseBook
from loramux_adapters.residency.moves import Moves
from loramux_adapters.residency.shelf import Shelf

_LOOK_AGAIN_S = 1.0
"""How often a wait for leases asks whether it is still wanted."""


class Retiring:
    """Of all replicas in `shelves`, which come and go."""

    def __init__(
        self, shelves: Mapping[str, Shelf], moves: Moves, leases: LeaseBook, clock: Clock, *, drain_timeout_s: float
    ) -> None:
        self._shelves = shelves
        self._moves = moves
        self._leases = leases
        self._clock = clock
        self._drain_timeout_s = drain_timeout_s

    async def retire(
        self, engine_name: str, reason: str, still_wanted: Callable[[], bool], *, end_requests: bool
    ) -> bool:
        """See `AdapterManager.retire`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain_timeout_s
        while not still_wanted():
            if not self._needed(engine_name):
                if await self._evict_everywhere(engine_name, reason, still_wanted):
                    return True
                continue
            left = deadline - loop.time()
            if end_requests and left <= 0:
                self._leases.end_requests(engine_name)
            await self._leases.released.wait(min(left, _LOOK_AGAIN_S) if end_requests and left > 0 else _LOOK_AGAIN_S)
        return False

    def _needed(self, engine_name: str) -> bool:
        """By a request, or by somebody who has it staged."""
        return self._leases.count(engine_name) > 0 or any(
            entry.leases > 0
            for shelf in self._shelves.values()
            if (entry := shelf.holdings.get(engine_name)) is not None
        )

    async def _evict_everywhere(self, engine_name: str, reason: str, still_wanted: Callable[[], bool]) -> bool:
        freed = True
        for shelf in list(self._shelves.values()):
            if still_wanted():
                return False
            entry = shelf.holdings.get(engine_name)
            if entry is not None and entry.move is not None:
                await asyncio.wait([entry.move])  # nobody waits for it, else there was a lease; it may not have begun
            try:
                freed &= await self._moves.evict(shelf, engine_name, reason)
            except EngineError:
                continue
        return freed

    async def sweep(self, wanted: Callable[[], frozenset[str]], idle_s: float) -> None:
        """See `AdapterManager.sweep`."""
        for shelf in list(self._shelves.values()):
            for name in [name for name, entry in shelf.holdings.items() if entry.placed]:
                entry = shelf.holdings.get(name)
                if entry is None or name in wanted() or self._clock.monotonic() - entry.last_used < idle_s:
                    continue
                try:
                    await self._moves.evict(shelf, name, "idle")
                except EngineError:
                    break
