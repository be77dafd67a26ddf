"""What one replica holds: the manager's own books, set right by the engine's report when they are reconciled."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from loramux_adapters.errors import EngineUnavailable
from loramux_adapters.model import Capabilities, Target
from loramux_adapters.ports import LoraEngine
from loramux_adapters.tiers import Place
from loramux_adapters.wakeup import Wakeup


@dataclass(slots=True, eq=False)
class Holding:
    """One adapter on one replica.

    `staged` is true while the engine answers under the name. `placed` is true from when a place was taken until the
    engine said that the place is free: also where a call broke off, so that nobody knows what the engine holds.
    `leases` counts requests and whoever else needs it staged. `turn` serialises load and eviction.
    """

    target: Target
    last_used: float
    leases: int = 0
    placed: bool = False
    staged: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    load: asyncio.Task[None] | None = None


class Shelf:
    """The books of one replica. Synchronous: safe between suspensions of one event loop."""

    def __init__(self, engine: LoraEngine, capabilities: Capabilities) -> None:
        self.engine = engine
        self.capabilities = capabilities
        self.room = Wakeup()
        """Woken when something may leave that might not before, or when something left."""
        self.door = asyncio.Lock()
        """Held by the one load that makes room; the others wait in the order in which they came."""
        self.closed = False
        """True once the replica is out of service."""
        self._holdings: dict[str, Holding] = {}

    @property
    def holdings(self) -> Mapping[str, Holding]:
        return self._holdings

    def holding(self, target: Target, now: float) -> Holding:
        """The entry of `target`, made where it is missing. It stays the only one of its engine name while it is
        leased, placed, or under way."""
        entry = self._holdings.get(target.engine_name)
        if entry is None:
            entry = self._holdings[target.engine_name] = Holding(target, now)
        elif entry.target != target:
            entry.target = target  # a version of the same content; the other one's source may be gone by now
        return entry

    def check_open(self) -> None:
        """Before each call to the engine: by now other books may be kept of it. Raises `EngineUnavailable`."""
        if self.closed:
            raise EngineUnavailable(f"Replica {self.engine.replica_id!r} is not in service.", retry_after_s=1.0)

    def staged(self, engine_name: str) -> bool:
        entry = self._holdings.get(engine_name)
        return entry is not None and entry.staged

    def places(self, pinned: frozenset[str], but: str) -> list[Place]:
        """What takes room, without `but`. What is being loaded stays, as if pinned."""
        return [
            Place(name, entry.leases, entry.load is not None or (entry.staged and name in pinned), entry.last_used)
            for name, entry in self._holdings.items()
            if name != but and entry.placed
        ]

    def forget(self, engine_name: str) -> None:
        """Drop an entry that nothing refers to."""
        entry = self._holdings.get(engine_name)
        if entry is not None and not (entry.placed or entry.leases or entry.load or entry.turn.locked()):
            del self._holdings[engine_name]

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books contradict themselves."""
        placed = [name for name, entry in self._holdings.items() if entry.placed]
        assert len(placed) <= self.capabilities.max_cpu_loras, f"{placed} for {self.capabilities.max_cpu_loras} places"
        for name, entry in self._holdings.items():
            assert name == entry.target.engine_name, f"{name} is the entry of {entry.target.engine_name}"
            assert entry.leases >= 0, f"{name}: {entry.leases} leases"
            assert entry.placed or not entry.staged, f"{name} is staged without a place"
            assert entry.load is None or not entry.load.done(), f"{name}: a load that ended is still on the books"
            in_use = entry.placed or entry.leases or entry.load or entry.turn.locked()
            assert in_use, f"{name} is on the books for nothing"
