"""What one replica holds: the manager's own books, set right by the engine's report when they are reconciled."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from loramux_adapters.model import Capabilities, Target
from loramux_adapters.ports import LoraEngine
from loramux_adapters.tiers import Place
from loramux_adapters.wakeup import Wakeup


@dataclass(slots=True)
class Holding:
    """`staged` is true while the engine answers under the name. `turn` serialises load and eviction."""

    target: Target
    last_used: float
    leases: int = 0
    staged: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    load: asyncio.Task[None] | None = None


class Shelf:
    """The books of one replica. Synchronous: safe between suspensions of one event loop."""

    def __init__(self, engine: LoraEngine, capabilities: Capabilities) -> None:
        self.engine = engine
        self.capabilities = capabilities
        self.room = Wakeup()
        """Woken when a lease ends or something left."""
        self._holdings: dict[str, Holding] = {}

    @property
    def holdings(self) -> Mapping[str, Holding]:
        return self._holdings

    def holding(self, target: Target, now: float) -> Holding:
        """The entry of `target`, made where it is missing."""
        entry = self._holdings.get(target.engine_name)
        if entry is None:
            entry = self._holdings[target.engine_name] = Holding(target, now)
        return entry

    def staged(self, engine_name: str) -> bool:
        entry = self._holdings.get(engine_name)
        return entry is not None and entry.staged

    def places(self, pinned: frozenset[str], but: str) -> list[Place]:
        """What takes room: staged or being loaded, without `but`."""
        return [
            Place(name, entry.leases, name in pinned or not entry.staged, entry.last_used)
            for name, entry in self._holdings.items()
            if name != but and (entry.staged or entry.load is not None)
        ]

    def forget(self, engine_name: str) -> None:
        """Drop an entry that nothing refers to."""
        entry = self._holdings.get(engine_name)
        if entry is not None and not (entry.staged or entry.leases or entry.load or entry.turn.locked()):
            del self._holdings[engine_name]

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books contradict themselves."""
        staged = sum(entry.staged for entry in self._holdings.values())
        assert staged <= self.capabilities.max_cpu_loras, f"{staged} staged"
        for name, entry in self._holdings.items():
            assert entry.leases >= 0, f"{name}: {entry.leases} leases"
            assert name == entry.target.engine_name
