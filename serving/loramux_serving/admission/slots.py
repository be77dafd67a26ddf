"""Which adapters may run at the engines, where these take only so many at a time. Pure: time is passed in."""

from collections import OrderedDict
from collections.abc import Callable

_NOT_BEGUN = float("inf")


class Slots:
    """The engines' places for adapters: who holds one, who drains, and who is next. Callers name the holders.

    vLLM takes `max_loras` adapters into a batch, and lets requests of these overtake all others for as long as they
    come. So nobody is let in who would have to wait there: at most `limit` names hold a slot at a time.

    - While nobody waits, a name keeps its slot as long as it has something to do; nothing here costs time.
    - A turn begins with the first request that runs in it, and lasts `turn_s`. After that, and only if somebody
      waits, a holder is closed: what it runs may finish, nothing new begins, and then its slot goes to the first in
      line. As many are closed as are needed, those first that run least: they drain soonest, and fewest callers
      mind. A request that is long can not hold up the others: with every `turn_s` in which no slot was handed over,
      one holder more is closed.
    - A holder that was closed and has more to do stands in line like all others. Where its turn comes before it has
      drained, it is opened again.

    So the first in line has a slot after at most `turn_s` for each slot and the longest request of the holder that
    drains first, and whoever is k-th in line after k times that, however many requests others send.

    It is a time and not a number of requests that ends a turn, as slots are short, not requests: a slot in which one
    long answer follows the other would take as many requests as it likes to hand over, while one that starts 50 at
    once keeps nobody waiting longer than one that starts a single one.

    Calls take constant time; to find who is to be closed takes as many steps as there are slots.
    """

    def __init__(self, turn_s: float) -> None:
        self._turn_s = turn_s
        self._held: dict[str, float] = {}
        """To when the turn began."""
        self._closed: set[str] = set()
        self._line: OrderedDict[str, None] = OrderedDict()
        """Who waits, holders that were closed among them."""
        self._ahead: OrderedDict[str, None] = OrderedDict()
        """Who waits, but had its turn and could not use it: before all in `_line`."""
        self._handed_over = 0.0
        """When a slot was last given to one that waited, or the first began to wait."""
        self.contended = False
        """False: nobody waits, and no holder is closed."""

    @property
    def held(self) -> int:
        return len(self._held)

    def crowded(self, limit: int) -> bool:
        """More hold a slot than there are, as when a replica left."""
        return len(self._held) > limit

    def holds(self, name: str) -> bool:
        return name in self._held

    def waits(self, name: str) -> bool:
        return name in self._line or name in self._ahead

    def open(self, name: str) -> bool:
        """Whether the name holds a slot and may begin something."""
        return name in self._held and name not in self._closed

    def take(self, name: str, limit: int, now: float) -> bool:
        """A slot for who begins something now: the one that it holds, or a free one that nobody waits for."""
        began = self._held.get(name)
        if began is None:
            if self.contended or len(self._held) >= limit:
                return False
        elif len(self._held) > limit or name in self._closed:
            return False
        elif began != _NOT_BEGUN:
            return True
        self._held[name] = now
        return True

    def began(self, name: str, now: float) -> None:
        """A request of a holder runs from now on."""
        if self._held[name] == _NOT_BEGUN:
            self._held[name] = now

    def want(self, name: str, now: float, *, ahead: bool = False) -> None:
        """Stand in line, if not yet; `ahead` of those who were not served yet."""
        if not self._line and not self._ahead:
            self._handed_over = now
        if ahead:
            self._line.pop(name, None)
            self._ahead[name] = None
        elif name not in self._ahead:
            self._line[name] = None
        self.contended = True

    def unwant(self, name: str) -> None:
        """Stand in line no more."""
        self._line.pop(name, None)
        self._ahead.pop(name, None)
        self._look()

    def release(self, name: str) -> None:
        """Nothing of it runs. It may wait: then it keeps its place in line."""
        del self._held[name]
        if self.contended:
            self._closed.discard(name)
            self._look()

    def close(self, limit: int, now: float, running: Callable[[str], int]) -> list[str]:
        """Who must begin nothing more from now on. `running`: how much a holder runs."""
        needed = self._needed(limit, now)
        crowded = len(self._held) > limit
        chosen: list[str] = []
        while needed > len(self._closed):
            spent = (
                name
                for name, began in self._held.items()
                if name not in self._closed and (crowded or now - began >= self._turn_s)
            )
            victim = min(spent, key=running, default=None)
            if victim is None:
                break
            self._closed.add(victim)
            self.contended = True
            chosen.append(victim)
        return chosen

    def open_next(self, limit: int, now: float) -> str | None:
        """The first in line, if it may begin now. None: nobody may. To be called until then."""
        line = self._ahead or self._line
        if not line:
            if len(self._held) <= limit:
                self._closed.clear()
                self.contended = False
            return None
        name = next(iter(line))
        if len(self._held) + (name not in self._held) > limit:
            return None
        del line[name]
        self._closed.discard(name)
        self._held.pop(name, None)
        self._held[name] = _NOT_BEGUN
        self._handed_over = now
        self._look()
        return name

    def first_in_line(self, count: int) -> list[str]:
        """Those who will get slots next."""
        names: list[str] = []
        for line in (self._ahead, self._line):
            for name in line:
                if len(names) == count:
                    return names
                names.append(name)
        return names

    def _look(self) -> None:
        self.contended = bool(self._line or self._ahead or self._closed)

    def _needed(self, limit: int, now: float) -> int:
        """How many should be draining."""
        over = len(self._held) - limit
        waiting = len(self._line) + len(self._ahead)
        waiting -= sum(self.waits(name) for name in self._closed)
        if waiting + over <= 0 or waiting <= 0:
            return max(0, over)
        return waiting + over + int((now - self._handed_over) / self._turn_s)

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books do not agree."""
        assert self._closed <= self._held.keys()
        assert self.contended is bool(self._line or self._ahead or self._closed)
        assert not self._line.keys() & self._ahead.keys()
        for name in [*self._line, *self._ahead]:
            assert name not in self._held or name in self._closed, f"{name} waits for what it has"
