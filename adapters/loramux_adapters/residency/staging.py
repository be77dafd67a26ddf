"""Moves up without a request: on one replica, or on all, for a moment or for as long as a pointer moves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from loramux_adapters.demand import Demand
from loramux_adapters.errors import EngineError, EngineRejected, EngineUnavailable, LoramuxError
from loramux_adapters.model import Target, Tier
from loramux_adapters.residency.leases import LeaseBook
from loramux_adapters.residency.moves import Moves
from loramux_adapters.residency.shelf import Holding, Shelf
from loramux_adapters.tiers import WantReason

_Move = Callable[[Shelf, Holding, WantReason], Awaitable[None]]


class Staging:
    """Of all replicas in `shelves`, which come and go."""

    def __init__(
        self,
        shelves: Mapping[str, Shelf],
        moves: Moves,
        leases: LeaseBook,
        demand: Demand,
        engines_wanted: Callable[[], bool],
    ) -> None:
        self._shelves = shelves
        self._engines_wanted = engines_wanted
        self._moves = moves
        self._leases = leases
        self._demand = demand
        self._moving = asyncio.Lock()
        """Held while something is kept staged everywhere until a pointer has moved."""
        self._held: list[Target] = []
        """What is kept so; a replica that joins meanwhile stages it too."""

    async def on(self, shelf: Shelf, target: Target, reason: WantReason, move: _Move | None = None) -> None:
        """Raises what `Moves.stage` raises."""
        entry = self._leases.take(shelf, target)
        try:
            await (move or self._moves.stage)(shelf, entry, reason)
        finally:
            self._leases.let_go(shelf, entry)

    async def everywhere(self, target: Target, tier: Tier, reason: WantReason) -> None:
        """Up to `gpu` or `cpu` on every replica that is there, without keeping it there. Raises what `hold` raises."""
        move = self._moves.slot if tier is Tier.GPU else self._moves.stage
        await _all_but_closed({shelf: self.on(shelf, target, reason, move) for shelf in self._shelves.values()})
        if not self._shelves:
            raise self._no_engine()

    @asynccontextmanager
    async def hold(self, target: Target, *, at_once: bool = False) -> AsyncIterator[None]:
        """See `AdapterManager.hold`."""
        # Without keeping it: two that kept one replica each and waited for the other's would wait for ever. So the slow
        # part may be done for many at once, and what follows keeps one at a time.
        await _all_but_closed({shelf: self.on(shelf, target, "version") for shelf in self._shelves.values()})
        held: dict[Shelf, Holding] = {}
        async with nullcontext() if at_once and self._everywhere(target) else self._moving:
            self._held.append(target)
            try:
                while joined := [shelf for shelf in self._shelves.values() if shelf not in held]:
                    held |= {shelf: self._leases.take(shelf, target) for shelf in joined}
                    await _all_but_closed({shelf: self._moves.stage(shelf, held[shelf], "version") for shelf in joined})
                staged = any(shelf.staged(target.engine_name) for shelf in self._shelves.values())
                if not staged and (self._shelves or self._engines_wanted()):
                    raise self._no_engine()
                self._inherit(target)
                yield
            finally:
                self._held.remove(target)
                for shelf, entry in held.items():
                    self._leases.let_go(shelf, entry)

    def _everywhere(self, target: Target) -> bool:
        return all(shelf.staged(target.engine_name) for shelf in self._shelves.values())

    def _inherit(self, target: Target) -> None:
        """What was asked for by the adapter's name will be asked of the version that is about to be live."""
        versions = {
            name
            for shelf in self._shelves.values()
            for name, entry in shelf.holdings.items()
            if entry.target.adapter == target.adapter
        }
        self._demand.inherit(target.engine_name, versions)

    async def first(self, shelf: Shelf, first: Callable[[], Iterable[Target]]) -> None:
        """What a replica is given before it serves, until nothing new is wanted: names may come to lead elsewhere while
        this goes on. What does not load is skipped. Raises `EngineError` where the engine does not answer."""
        tried: set[str] = set()
        while True:
            soon = list(first())[: shelf.capabilities.max_cpu_loras]
            target = next((target for target in (*self._held, *soon) if target.engine_name not in tried), None)
            if target is None:
                return
            tried.add(target.engine_name)
            try:
                await self.on(shelf, target, "version")
            except LoramuxError as error:
                if isinstance(error, EngineError) and not isinstance(error, EngineRejected):
                    raise

    def _no_engine(self) -> EngineUnavailable:
        if self._engines_wanted():
            return EngineUnavailable("No engine is ready to take the adapter.", retry_after_s=5.0)
        return EngineUnavailable(
            "No copy of the base is wanted, so no engine can take the adapter.", retry_after_s=30.0
        )


async def _all_but_closed(work: Mapping[Shelf, Coroutine[Any, Any, None]]) -> None:
    """Do it on all at once. What fails on a replica that left meanwhile does not count."""
    results = await asyncio.gather(*work.values(), return_exceptions=True)
    for shelf, result in zip(work, results, strict=True):
        if isinstance(result, BaseException) and not (isinstance(result, EngineError) and shelf.closed):
            raise result
