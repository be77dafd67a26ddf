"""Who may run and who is next, fairly between adapters. Pure: time is passed in, nothing waits."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from loramux_serving.admission.slots import Slots

T = TypeVar("T", bound=Hashable)


class FairQueue(Generic[T]):
    """Counts what runs, and holds what waits: first in, first out within a line, round robin between lines.

    An adapter has a line for each `slot` that its items need: the engine's name of a version, so one line as a rule,
    and two while a canary is called too. Items without a slot, as the base's, have a line of their own.

    - No adapter runs more than `max_per_adapter` items; how many run in all is the caller's `limit`.
    - Items of at most `slots` different slots run at a time. Who holds one, and for how long, is said in `Slots`.
    - A line that waits and may run is served after at most as many grants as there are other lines that may, however
      many items those have. One whose adapter is at its limit is passed over, and joins the end of the round when an
      item of the adapter finishes; one that gets a slot joins the end too, and as it then has its turn in each round,
      what waits in it starts together as far as there are places.
    - Every call takes constant time, but for `next` while slots are short: see `Slots`.

    Items for which `wanted` is false (their caller left) are dropped when their turn comes, at no cost to the turn.
    """

    def __init__(
        self,
        max_per_adapter: int,
        wanted: Callable[[T], bool] = lambda item: True,
        *,
        slot_turn_s: float = 1.0,
    ) -> None:
        self._max_per_adapter = max_per_adapter
        self._wanted = wanted
        self._slots = Slots(slot_turn_s)
        self._running: dict[str, int] = {}
        self._waiting: Counter[str] = Counter()
        """Both by adapter, without zeros."""
        self.running = 0
        """Of all adapters. Others read it only."""
        self._queued = 0
        self._lines: dict[str, _Line[T]] = {}
        """Those of which something runs or waits, by their slot, or by their adapter where they need none."""
        self._turns: OrderedDict[str, _Line[T]] = OrderedDict()
        """Those that wait for nothing but a place, next one first."""
        self._full: dict[str, list[_Line[T]]] = {}
        """By adapter that is at its limit, those that would be in `_turns` otherwise."""

    @property
    def queued(self) -> int:
        return self._queued

    @property
    def slots_held(self) -> int:
        return self._slots.held

    @property
    def anyone_next(self) -> bool:
        """True where `next` may have something to give: something waits for a place or a slot."""
        return bool(self._turns) or self._slots.contended

    def crowded(self, slots: int) -> bool:
        """More slots are held than there are: `next` must be asked, so that some are given back."""
        return self._slots.crowded(slots)

    def waits_for_slot(self, slot: str) -> bool:
        return self._slots.waits(slot)

    def running_of(self, adapter: str) -> int:
        return self._running.get(adapter, 0)

    def queued_of(self, adapter: str) -> int:
        return self._waiting[adapter]

    def adapters(self) -> Iterator[str]:
        """Those of which something runs or waits, in no order."""
        return iter(self._running.keys() | self._waiting.keys())

    def start(
        self, adapter: str, slot: str | None, limit: int, slots: int, now: float, *, calmly: bool = False
    ) -> bool:
        """Run one at once, if fewer than `limit` run, it has one of `slots` slots or needs none, and nobody would be
        overtaken; `calmly`, only where nobody waits for anything. False: it must be pushed."""
        if self._turns or self.running >= limit or (calmly and self._slots.contended):
            return False
        running = self._running.get(adapter, 0)
        if running >= self._max_per_adapter:
            return False
        if slot is not None and not self._slots.take(slot, slots, now):
            return False
        line = self._lines.get(slot or adapter)
        if line is None:
            line = self._lines[slot or adapter] = _Line(adapter, slot)
        line.running += 1
        self._running[adapter] = running + 1
        self.running += 1
        return True

    def push(self, adapter: str, slot: str | None, item: T, now: float, *, ahead: bool = False) -> None:
        """Wait. The item is given out by `next`, or taken back by `remove`. `ahead`: its line had a slot and could not
        use it; if it needs one, it comes before the lines that had none yet."""
        line = self._lines.get(slot or adapter)
        if line is None:
            line = self._lines[slot or adapter] = _Line(adapter, slot)
        if not line.items:
            line.items = OrderedDict()
        line.items[item] = None
        self._waiting[adapter] += 1
        self._queued += 1
        if slot is not None and not self._slots.open(slot):
            self._slots.want(slot, now, ahead=ahead)
        elif len(line.items) == 1:
            self._offer(line)

    def remove(self, adapter: str, slot: str | None, item: T) -> bool:
        """Wait no more. False where the item does not wait."""
        line = self._lines.get(slot or adapter)
        if line is None or item not in line.items:
            return False
        del line.items[item]
        self._waits_less(line)
        if not line.items:
            self._emptied(line)
        return True

    def next(self, limit: int, slots: int, now: float) -> T | None:
        """The item whose turn it is, running from now on, if fewer than `limit` run. None: nobody can go."""
        while True:
            if self._slots.contended or self._slots.crowded(slots):
                self._move_slots(slots, now)
            if not self._turns or self.running >= limit:
                return None
            _, line = self._turns.popitem(last=False)
            running = self._running.get(line.adapter, 0)
            if running >= self._max_per_adapter:
                self._offer(line)
                continue
            item = self._pop_wanted(line)
            if item is None:
                self._emptied(line)
                continue
            line.running += 1
            self._running[line.adapter] = running + 1
            self.running += 1
            if line.slot is not None:
                self._slots.began(line.slot, now)
            if line.items:
                self._offer(line)
            return item

    def finish(self, adapter: str, slot: str | None) -> bool:
        """One of those that ran has given its place back. Gives `anyone_next`."""
        line = self._lines[slot or adapter]
        line.running -= 1
        self.running -= 1
        running = self._running[adapter] - 1
        if running:
            self._running[adapter] = running
        else:
            del self._running[adapter]
        if not line.running:
            if slot is not None and not (line.items and self._slots.open(slot)):
                self._slots.release(slot)
            if not line.items:
                del self._lines[line.key]
        if self._full:
            for each in self._full.pop(adapter, ()):
                self._turns[each.key] = each
        return bool(self._turns) or self._slots.contended

    def soon(self, lines: int) -> Iterator[T]:
        """Of the first so many lines that wait for a slot, what waits longest."""
        return (next(iter(self._lines[slot].items)) for slot in self._slots.first_in_line(lines))

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books do not agree."""
        self._slots.check_integrity()
        running: Counter[str] = Counter()
        waiting: Counter[str] = Counter()
        may_run = set()
        for key, line in self._lines.items():
            assert key == line.key
            assert line.running or line.items
            running[line.adapter] += line.running
            waiting[line.adapter] += len(line.items)
            opened = line.slot is None or self._slots.open(line.slot)
            assert line.slot is None or not line.running or self._slots.holds(line.slot)
            assert line.slot is None or self._slots.waits(line.slot) is bool(line.items and not opened)
            if line.items and opened:
                may_run.add(key)
        assert self._slots.held == sum(self._slots.holds(line.slot) for line in self._lines.values() if line.slot)
        assert +running == self._running
        assert +waiting == self._waiting
        assert (self.running, self._queued) == (running.total(), waiting.total())
        assert all(number <= self._max_per_adapter for number in running.values())
        full = [line for lines in self._full.values() for line in lines]
        assert all(running[adapter] == self._max_per_adapter for adapter in self._full)
        assert sorted([*self._turns, *(line.key for line in full)]) == sorted(may_run)

    def _offer(self, line: "_Line[T]") -> None:
        """It waits for a place, or for one of its adapter's to finish."""
        if self._running.get(line.adapter, 0) < self._max_per_adapter:
            self._turns[line.key] = line
        else:
            self._full.setdefault(line.adapter, []).append(line)

    def _withdraw(self, line: "_Line[T]") -> None:
        if self._turns.pop(line.key, None) is None and line in (full := self._full.get(line.adapter, [])):
            full.remove(line)
            if not full:
                del self._full[line.adapter]

    def _move_slots(self, slots: int, now: float) -> None:
        for slot in self._slots.close(slots, now, lambda slot: self._lines[slot].running):
            line = self._lines[slot]
            self._withdraw(line)
            if line.items:
                self._slots.want(slot, now)
            if not line.running:
                self._slots.release(slot)
        while (opened := self._slots.open_next(slots, now)) is not None:
            self._offer(self._lines[opened])

    def _emptied(self, line: "_Line[T]") -> None:
        """Nothing of it waits any more."""
        self._withdraw(line)
        if line.slot is not None:
            self._slots.unwant(line.slot)
        if not line.running:
            if line.slot is not None and self._slots.holds(line.slot):
                self._slots.release(line.slot)
            del self._lines[line.key]

    def _pop_wanted(self, line: "_Line[T]") -> T | None:
        while line.items:
            item, _ = line.items.popitem(last=False)
            self._waits_less(line)
            if self._wanted(item):
                return item
        return None

    def _waits_less(self, line: "_Line[T]") -> None:
        self._queued -= 1
        self._waiting[line.adapter] -= 1
        if not self._waiting[line.adapter]:
            del self._waiting[line.adapter]


_NONE: OrderedDict[Any, None] = OrderedDict()
"""What waits in a line in which nothing ever waited, as in most: one for all of them, as it takes long to make one."""


class _Line(Generic[T]):
    __slots__ = ("adapter", "items", "key", "running", "slot")

    def __init__(self, adapter: str, slot: str | None) -> None:
        self.adapter = adapter
        self.slot = slot
        self.key = slot or adapter
        self.running = 0
        self.items: OrderedDict[T, None] = _NONE
