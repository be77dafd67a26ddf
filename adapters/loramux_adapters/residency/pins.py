"""Engines keep what is pinned by themselves too, whatever their own caches would do."""

from collections.abc import Callable, Mapping

from loramux_adapters.errors import EngineRejected
from loramux_adapters.model import Tier
from loramux_adapters.residency.leases import LeaseBook
from loramux_adapters.residency.moves import Moves
from loramux_adapters.residency.shelf import Shelf
from loramux_adapters.tiers import pin_changes


class Pins:
    """Makes the pins of an engine those that are wanted, of what is staged there."""

    def __init__(self, moves: Moves, leases: LeaseBook, pins: Callable[[], Mapping[str, Tier]]) -> None:
        self._moves = moves
        self._leases = leases
        self._pins = pins

    async def apply(self, shelf: Shelf) -> None:
        """As far as there are slots now; what gets none is pinned in host memory until the next time. Raises
        `EngineError` where the engine does not answer."""
        if not shelf.capabilities.staging:
            return
        pinned = {name: entry.pin for name, entry in shelf.holdings.items() if entry.staged}
        for name, tier in pin_changes(self._pins(), pinned, shelf.capabilities.max_loras):
            entry = shelf.holdings.get(name)
            if entry is None or not entry.staged:
                continue
            self._leases.take(shelf, entry.target)
            try:
                if tier is Tier.GPU and not await self._moves.try_slot(shelf, entry, "pin"):
                    tier = Tier.CPU
                await self._moves.pin(shelf, entry, tier)
            except EngineRejected:
                continue  # it has lost it, or its pins: the next report says which
            finally:
                self._leases.let_go(shelf, entry)
