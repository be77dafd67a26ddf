"""How much every version is asked for: a rate that fades. Pure; time is passed in."""

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterable

_FLOOR_LOG2 = -10.0
"""What weighs less than this share of one request, as a power of two, is forgotten: a single one after ten
half-lives."""
_SWEPT_EACH = 2
"""How many of those asked for the longest time ago are looked at with each request: more than can be added."""


class Demand:
    """Requests a second of each name, where a request counts half as much after each `half_life_s`.

    A request and a look at one rate take constant time. Kept are at most `most` names, those asked for last, and none
    that was forgotten by all measure. Not safe between threads.

    A request at time t weighs 2^((t - now) / half_life), so all weights fade alike, and which of two names is in higher
    demand changes with requests only. Kept is log2 of a name's sum of 2^(t / half_life), which does not change as time
    passes and does not overflow. A steady λ requests a second weighs λ · half_life / ln 2 in the long run, which is
    where `rate` has its factor from.
    """

    def __init__(self, half_life_s: float, *, most: int = 65_536) -> None:
        self._half_life_s = half_life_s
        self._most = most
        self._scores: OrderedDict[str, float] = OrderedDict()
        """Asked for the longest time ago first."""

    def __len__(self) -> int:
        return len(self._scores)

    def count(self, name: str, now: float) -> None:
        """One request at `now`, in seconds that never go back."""
        this = now / self._half_life_s
        scores = self._scores
        before = scores.pop(name, None)
        # As no request is of later than now, a sum exceeds this one's weight by at most the number of requests.
        scores[name] = this if before is None else this + math.log2(1.0 + 2.0 ** (before - this))
        if len(scores) > self._most or scores[next(iter(scores))] - this < _FLOOR_LOG2:
            self._sweep(this)

    def inherit(self, name: str, others: Iterable[str]) -> None:
        """From now on `name` is in at least as high demand as each of the others."""
        scores = [score for other in (name, *others) if (score := self._scores.get(other)) is not None]
        if scores:
            self._scores.pop(name, None)
            self._scores[name] = max(scores)

    def rate(self, name: str, now: float) -> float:
        """Requests a second; 0 for what nobody asked for lately."""
        score = self._scores.get(name)
        return 0.0 if score is None else self._rate(score, now)

    def top(self, number: int, now: float) -> list[tuple[str, float]]:
        """The `number` names in highest demand with their rates, highest first."""
        best = heapq.nlargest(number, self._scores.items(), key=lambda item: item[1])
        return [(name, self._rate(score, now)) for name, score in best]

    def _rate(self, score: float, now: float) -> float:
        weight: float = 2.0 ** (score - now / self._half_life_s)
        return weight * math.log(2) / self._half_life_s

    def _sweep(self, this: float) -> None:
        for _ in range(_SWEPT_EACH):
            name = next(iter(self._scores))
            if len(self._scores) <= self._most and self._scores[name] - this >= _FLOOR_LOG2:
                return
            del self._scores[name]
