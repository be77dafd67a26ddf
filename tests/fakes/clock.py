"""A clock that stands still until it is told."""

import heapq
from collections.abc import Callable
from itertools import count


class FakeTimer:
    """What `FakeClock.call_later` gives: `cancel` makes sure that the callback is not called."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """`ports.Clock` by hand, with timers that fire, in order, within `advance`."""

    def __init__(self, now: float = 1_700_000_000.0, monotonic: float = 1_000.0) -> None:
        self._now = now
        self._monotonic = monotonic
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._order = count()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self._monotonic + delay_s, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move both times on by `seconds` (not negative), calling the timers that fall due."""
        assert seconds >= 0, "time does not go back"
        end = self._monotonic + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, timer = heapq.heappop(self._timers)
            self._move_to(at)
            if not timer.cancelled:
                timer.callback()
        self._move_to(end)

    def _move_to(self, monotonic: float) -> None:
        self._now += monotonic - self._monotonic
        self._monotonic = monotonic
