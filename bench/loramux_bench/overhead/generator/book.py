"""What came when, and the figures of it. Pure."""

from array import array

import numpy as np

from loramux_bench.overhead.generator.job import Job, Report, Spread


class Book:
    """Times are of one clock, CLOCK_MONOTONIC; only what comes from `begins_at` on counts."""

    def __init__(self, job: Job, begins_at: float) -> None:
        self._job = job
        self._begins_at = begins_at
        self._frames = 0
        self._ended = 0
        self._errors = 0
        self._failure = ""
        self._late = 0
        self._worst_s = 0.0
        self._ttft = array("d")
        self._gap = array("d")
        self._delay = array("d")
        self._engine_late = array("d")

    def first(self, came_at: float, asked_at: float, written_at: float, engine_late_s: float) -> None:
        """A stream's first frame with a token."""
        if asked_at < self._begins_at:
            return
        ttft_s = came_at - asked_at
        self._ttft.append(ttft_s)
        self._note(came_at, written_at, engine_late_s, ttft_s - self._job.ttft_s)

    def next(self, came_at: float, last_at: float, written_at: float, engine_late_s: float) -> None:
        """Any other; `last_at` is when the one before came."""
        if came_at < self._begins_at:
            return
        self._gap.append(came_at - last_at)
        self._note(came_at, written_at, engine_late_s, came_at - written_at + engine_late_s)

    def passed(self, frames: int, at: float) -> None:
        """Frames of which nobody asks how long they took."""
        if at >= self._begins_at:
            self._frames += frames

    def ended(self, at: float) -> None:
        if at >= self._begins_at:
            self._ended += 1

    def failed(self, why: str) -> None:
        self._errors += 1
        self._failure = self._failure or why

    def _note(self, came_at: float, written_at: float, engine_late_s: float, late_s: float) -> None:
        self._frames += 1
        self._delay.append(came_at - written_at)
        self._engine_late.append(engine_late_s)
        if late_s > self._job.late_s:
            self._late += 1
        self._worst_s = max(self._worst_s, late_s)

    def report(self, now: float) -> Report:
        return Report(
            seconds=now - self._begins_at,
            frames=self._frames,
            ended=self._ended,
            errors=self._errors,
            failure=self._failure,
            ttft=spread(self._ttft),
            gap=spread(self._gap),
            delay=spread(self._delay),
            late=self._late,
            worst_s=self._worst_s,
            engine_late=spread(self._engine_late),
        )


def spread(values: "array[float]") -> Spread | None:
    if not values:
        return None
    p50, p99, longest = (float(value) for value in np.quantile(values, (0.5, 0.99, 1.0)))
    return Spread(len(values), p50, p99, longest)
