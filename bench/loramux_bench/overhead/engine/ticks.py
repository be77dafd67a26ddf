"""Calls at times on a grid of milliseconds: what is due in the same one shares a timer, as tokens share an engine's
step."""

import math
from collections.abc import Callable

from loramux_bench.mock.deadlines import Deadlines

_A_SECOND = 1000


class Ticks:
    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._due: dict[int, list[Callable[[], None]]] = {}

    def at(self, due: float, call: Callable[[], None]) -> None:
        """Of `time.perf_counter()`; must be on the grid, see `rounded`."""
        tick = round(due * _A_SECOND)
        calls = self._due.get(tick)
        if calls is None:
            self._due[tick] = [call]
            self._deadlines.at(due, lambda: self._ring(tick))
        else:
            calls.append(call)

    def once(self, due: float, call: Callable[[], None]) -> None:
        """At any time, with a timer of its own."""
        self._deadlines.at(due, call)

    def _ring(self, tick: int) -> None:
        for call in self._due.pop(tick):
            call()


def rounded(at: float) -> float:
    """Down to the grid."""
    return math.floor(at * _A_SECOND) / _A_SECOND
