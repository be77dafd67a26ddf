"""Who may run and who is next, fairly between adapters. Pure: no time, no waiting."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class FairQueue(Generic[T]):
    """Counts what runs, and holds what waits: first in, first out within an adapter, round robin between adapters.

    - No adapter runs more than `max_per_adapter` items; how many run in all is the caller's `limit`.
    - An adapter that waits and may run is served after at most as many grants as there are other adapters that
      wait, however many items those have. One at its own limit is passed over, and joins the end of the line when
      an item of its own finishes.
    - Every call takes constant time.

    Items for which `wanted` is false (their caller left) are dropped when their turn comes, at no cost to the turn.
    """

    def __init__(self, max_per_adapter: int, wanted: Callable[[T], bool] = lambda item: True) -> None:
        self._max_per_adapter = max_per_adapter
        self._wanted = wanted
        self._running: Counter[str] = Counter()
        self._total = 0
        self._lines: dict[str, OrderedDict[T, None]] = {}
        self._queued = 0
        # The adapters that wait and are below their limit, next one first; the others are in `_lines` only.
        self._turns: OrderedDict[str, None] = OrderedDict()

    @property
    def running(self) -> int:
        return self._total

    @property
    def queued(self) -> int:
        return self._queued

    @property
    def anyone_next(self) -> bool:
        """True where something waits for nothing but a place."""
        return bool(self._turns)

    def running_of(self, adapter: str) -> int:
        return self._running[adapter]

    def queued_of(self, adapter: str) -> int:
        line = self._lines.get(adapter)
        return 0 if line is None else len(line)

    def adapters(self) -> Iterator[str]:
        """Those of which something runs or waits, in no order."""
        return iter(self._running.keys() | self._lines.keys())

    def start(self, adapter: str, limit: int) -> bool:
        """Run one at once, if fewer than `limit` run and nobody would be overtaken. False: it must be pushed."""
        if self._turns or self._total >= limit:
            return False
        running = self._running.get(adapter, 0)
        if running >= self._max_per_adapter:
            return False
        self._running[adapter] = running + 1
        self._total += 1
        return True

    def push(self, adapter: str, item: T) -> None:
        """Wait. The item is given out by `next`, or taken back by `remove`."""
        line = self._lines.get(adapter)
        if line is None:
            line = self._lines[adapter] = OrderedDict()
            if self._running.get(adapter, 0) < self._max_per_adapter:
                self._turns[adapter] = None
        line[item] = None
        self._queued += 1

    def remove(self, adapter: str, item: T) -> bool:
        """Wait no more. False where the item does not wait."""
        line = self._lines.get(adapter)
        if line is None or item not in line:
            return False
        del line[item]
        self._queued -= 1
        if not line:
            del self._lines[adapter]
            self._turns.pop(adapter, None)
        return True

    def next(self, limit: int) -> T | None:
        """The item whose turn it is, running from now on, if fewer than `limit` run. None: nobody can go."""
        while self._turns and self._total < limit:
            adapter, _ = self._turns.popitem(last=False)
            item = self._pop_wanted(adapter)
            if item is None:
                continue
            self._running[adapter] += 1
            self._total += 1
            if adapter in self._lines and self._running[adapter] < self._max_per_adapter:
                self._turns[adapter] = None
            return item
        return None

    def finish(self, adapter: str) -> None:
        """One of the adapter's that ran has given its place back."""
        running = self._running[adapter] - 1
        self._total -= 1
        if running:
            self._running[adapter] = running
        else:
            del self._running[adapter]
        if adapter in self._lines and adapter not in self._turns:
            self._turns[adapter] = None

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books do not agree."""
        assert self._total == sum(self._running.values())
        assert all(0 < running <= self._max_per_adapter for running in self._running.values())
        assert self._queued == sum(len(line) for line in self._lines.values())
        assert all(self._lines.values())
        may_run = {adapter for adapter in self._lines if self._running.get(adapter, 0) < self._max_per_adapter}
        assert set(self._turns) == may_run

    def _pop_wanted(self, adapter: str) -> T | None:
        line = self._lines[adapter]
        wanted = None
        while line and wanted is None:
            item, _ = line.popitem(last=False)
            self._queued -= 1
            if self._wanted(item):
                wanted = item
        if not line:
            del self._lines[adapter]
        return wanted
