"""What one replica holds: the manager's own books, set right by the engine's reports."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from loramux_adapters.errors import EngineUnavailable
from loramux_adapters.model import Capabilities, Resident, Target, Tier
from loramux_adapters.ports import LoraEngine
from loramux_adapters.residency.line import Line
from loramux_adapters.tiers import Place, Residency, Want
from loramux_adapters.wakeup import Wakeup


@dataclass(slots=True, eq=False)
class Holding:
    """One adapter on one replica.

    `staged` is true while the engine answers under the name. `placed` is true from when a place in host memory was
    taken until the engine said that the place is free: also where a call broke off, so that nobody knows what the
    engine holds. `slotted` is true from when a slot was taken for it until another took that slot, or the engine
    reports otherwise; kept only of engines that tell slots and host memory apart. `size_bytes` and `pin` are the
    engine's word. `leases` counts requests and whoever else needs it staged. Until `awaited_until` a request for it is
    expected. `turn` serialises calls to the engine; `move` is the load or the way into a slot that is under way.
    """

    target: Target
    last_used: float
    leases: int = 0
    placed: bool = False
    staged: bool = False
    slotted: bool = False
    size_bytes: int = 0
    pin: Tier | None = None
    awaited_until: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    move: asyncio.Task[None] | None = None

    @property
    def tier(self) -> Tier:
        if self.slotted:
            return Tier.GPU
        return Tier.CPU if self.placed else Tier.DISK


class Shelf:
    """The books of one replica. Synchronous: safe between suspensions of one event loop."""

    def __init__(self, engine: LoraEngine, capabilities: Capabilities) -> None:
        self.engine = engine
        self.capabilities = capabilities
        self.room = Wakeup()
        """Woken when something may leave that might not before, or when something left."""
        self.line = Line()
        """Loads that need a place in host memory."""
        self.closed = False
        """True once the replica is out of service."""
        self.changes = 0
        """Grows when a call that changes what the engine holds begins, and when it ends."""
        self._changing = 0
        self._holdings: dict[str, Holding] = {}
        self.holdings: Mapping[str, Holding] = self._holdings

    def holding(self, target: Target, now: float) -> Holding:
        """The entry of `target`, made where it is missing. It stays the only one of its engine name while it is
        leased, placed, or under way."""
        entry = self._holdings.get(target.engine_name)
        if entry is None:
            entry = self._holdings[target.engine_name] = Holding(target, now)
        else:
            entry.target = target  # maybe a version of the same content; the other one's source may be gone by now
        return entry

    def check_open(self) -> None:
        """Before each call to the engine: by now other books may be kept of it. Raises `EngineUnavailable`."""
        if self.closed:
            raise EngineUnavailable(f"Replica {self.engine.replica_id!r} is not in service.", retry_after_s=1.0)

    @contextmanager
    def change(self) -> Iterator[None]:
        """Around each call that changes what the engine holds."""
        self.changes += 1
        self._changing += 1
        try:
            yield
        finally:
            self._changing -= 1
            self.changes += 1

    @property
    def quiet(self) -> bool:
        """No such call is under way."""
        return self._changing == 0

    def staged(self, engine_name: str) -> bool:
        entry = self._holdings.get(engine_name)
        return entry is not None and entry.staged

    def residency(
        self,
        wants: Iterable[Want],
        pins: Mapping[str, Tier],
        rate: Callable[[str], float],
        now: float,
        beside: Iterable[Target] = (),
    ) -> Residency:
        """For `tiers.plan`: what takes room, what is wanted, and `beside` that is not held. `rate` gives the demand for
        an engine name. What is wanted counts as not moving."""
        wants = tuple(wants)
        wanted = {want.engine_name for want in wants}
        held = [
            Place(
                engine_name=name,
                tier=entry.tier,
                leases=entry.leases,
                pin=pins.get(name),
                last_used=entry.last_used,
                demand=rate(name),
                size_bytes=entry.size_bytes,
                answers=entry.staged,
                moving=entry.move is not None and name not in wanted,
                awaited=entry.awaited_until > now,
            )
            for name, entry in self._holdings.items()
            if entry.placed or name in wanted
        ]
        held += [
            Place(target.engine_name, Tier.DISK, demand=rate(target.engine_name))
            for target in beside
            if target.engine_name not in self._holdings
        ]
        return Residency(self.capabilities.max_loras, self.capabilities.max_cpu_loras, tuple(held), wants)

    def learn(self, residents: Iterable[Resident], *, whole: bool) -> None:
        """Set the books right by the engine's report. `whole`: nothing changed between question and answer, so that
        it is told apart from what the report could not know."""
        reported = {resident.engine_name: resident for resident in residents}
        for name, entry in self._holdings.items():
            resident = reported.get(name)
            if resident is not None:
                entry.size_bytes = resident.size_bytes or entry.size_bytes
            if whole:
                self._correct(entry, resident)
        if whole:
            self.room.wake()

    def _correct(self, entry: Holding, resident: Resident | None) -> None:
        staging = self.capabilities.staging
        if resident is None or (staging and resident.tier not in (Tier.GPU, Tier.CPU)):
            entry.staged = entry.slotted = False  # the next lease loads it again, into the place that it has
            entry.pin = None
            return
        entry.pin = resident.pin
        entry.slotted = staging and entry.placed and resident.tier is Tier.GPU

    def forget(self, engine_name: str) -> None:
        """Drop an entry that nothing refers to."""
        entry = self._holdings.get(engine_name)
        if entry is not None and not (entry.placed or entry.leases or entry.move or entry.turn.locked()):
            del self._holdings[engine_name]

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books contradict themselves."""
        able = self.capabilities
        placed = [name for name, entry in self._holdings.items() if entry.placed]
        assert len(placed) <= able.max_cpu_loras, f"{placed} for {able.max_cpu_loras} places"
        slotted = [name for name, entry in self._holdings.items() if entry.slotted]
        assert len(slotted) <= able.max_loras, f"{slotted} for {able.max_loras} slots"
        assert able.staging or not slotted, f"{slotted} in slots, which this engine does not tell"
        for name, entry in self._holdings.items():
            assert name == entry.target.engine_name, f"{name} is the entry of {entry.target.engine_name}"
            assert entry.leases >= 0, f"{name}: {entry.leases} leases"
            assert entry.placed or not entry.staged, f"{name} is staged without a place"
            assert entry.placed or not entry.slotted, f"{name} is in a slot without a place"
            assert entry.move is None or not entry.move.done(), f"{name}: a move that ended is still on the books"
            in_use = entry.placed or entry.leases or entry.move or entry.turn.locked()
            assert in_use, f"{name} is on the books for nothing"
