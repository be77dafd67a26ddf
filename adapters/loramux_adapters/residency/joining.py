"""A replica that comes into service: its books begin with what its engine holds."""

from collections.abc import Iterable, Mapping

from loramux_adapters.model import Resident, Target, Tier
from loramux_adapters.residency.shelf import Shelf


async def reconcile(
    shelf: Shelf, residents: Iterable[Resident], known: Mapping[str, Target], soon: frozenset[str], now: float
) -> None:
    """Put on the books what the engine holds, what is in use first, and free what is not `known`, does not fit, or is
    but a name. Raises `EngineError`."""
    leased = frozenset(shelf.holdings)
    found = {resident.engine_name: resident for resident in residents}
    placed = 0
    for name in sorted(found, key=lambda name: (name not in leased, name not in soon)):
        resident = found[name]
        in_use = shelf.holdings.get(name)
        target = known.get(name) if in_use is None else in_use.target
        held = not shelf.capabilities.staging or resident.tier in (Tier.GPU, Tier.CPU)
        if target is None or placed >= shelf.capabilities.max_cpu_loras or not (held or in_use):
            await shelf.engine.evict(name)
            continue
        # What is not wanted soon counts as long unused, so that it makes room.
        entry = shelf.holding(target, now if name in soon else 0.0)
        entry.placed, entry.staged = True, held
        entry.slotted = shelf.capabilities.staging and resident.tier is Tier.GPU
        entry.size_bytes, entry.pin = resident.size_bytes, resident.pin
        placed += 1
