"""Calls at absolute times of `time.perf_counter()`: never early, late by some 50 µs where the loop is free.

The timers of asyncio and of uvloop count whole milliseconds; uvloop's are early or late by one. That is 5 % of an
inter-token latency of 20 ms, so on Linux the alarm is a timerfd.
"""

import asyncio
import ctypes
import heapq
import os
import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Protocol

_CLOCK_MONOTONIC = 1
"""Of <time.h>; on Linux the clock of `time.perf_counter()`."""
_TFD_TIMER_ABSTIME = 1
"""Of <sys/timerfd.h>."""


class Alarm(Protocol):
    def set(self, at: float) -> None:
        """Ring once at this time, at once if it is past, and not at the time set before."""

    def close(self) -> None: ...


class _Itimerspec(ctypes.Structure):
    """`struct itimerspec` of timerfd_settime(2)."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class TimerFd:
    """Linux' timer as a file (timerfd_create(2)): nanoseconds, absolute. Raises `OSError`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._spec = _Itimerspec()
        self._fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._fd, self._rang)

    def set(self, at: float) -> None:
        # A value of 0 would stop the timer.
        nanoseconds = max(1, int(at * 1e9))
        self._spec.value_s, self._spec.value_ns = divmod(nanoseconds, 1_000_000_000)
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _rang(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # set anew between the ring and the read
        self._ring()


class LoopTimer:
    """The loop's own timer, for other systems."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        self.close()
        self._handle = self._loop.call_later(max(0.0, at - time.perf_counter()), self._ring)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class Deadlines:
    """What is due, and when. What is due together is called in one turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        kind = TimerFd if sys.platform == "linux" else LoopTimer
        self._alarm: Alarm = kind(loop, self._ring)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._armed: float | None = None

    def at(self, due: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (due, next(self._number), call))
        self._arm()

    def close(self) -> None:
        self._due.clear()
        self._alarm.close()

    def _ring(self) -> None:
        self._armed = None
        # One look at the clock: what falls due meanwhile waits for the next turn, so that sockets are read between.
        now = time.perf_counter()
        try:
            while self._due and self._due[0][0] <= now:
                # What is called adds its next deadline: armed once, after all of them.
                self._armed = now
                heapq.heappop(self._due)[2]()
        finally:
            self._armed = None
            if self._due:
                self._arm()

    def _arm(self) -> None:
        first = self._due[0][0]
        if self._armed is None or first < self._armed:
            self._armed = first
            self._alarm.set(first)
