"""Offsets from a run's start, the same on every machine whose wall clock is right."""

import time


class RunClock:
    """Turns `perf_counter` readings of this process into seconds since `started_at` (Unix seconds). The wall clock is
    read once, so that its corrections during the run do no harm."""

    def __init__(self, started_at: float) -> None:
        self._shift_s = time.time() - time.perf_counter() - started_at

    def now_s(self) -> float:
        return time.perf_counter() + self._shift_s

    def offset_s(self, perf: float) -> float:
        """Rounded to microseconds."""
        return round(perf + self._shift_s, 6)
