"""When bytes came: told by the event loop's poll, not by whose turn it is to look at them.

When a batch of an engine's streams writes at once, all their sockets are ready in one poll, and are read one after the
other. The time that is taken when each is read would count what the ones before it cost as latency, some milliseconds
with a hundred streams. So the time of the poll counts, for all of them.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import gevent

T = TypeVar("T")

_MOST_S = 0.25
"""No poll's batch takes longer to read; more than that is a wall clock that was set meanwhile."""


def received(receive: Callable[[], T]) -> tuple[T, float]:
    """What `receive` gives, and when it was there (`time.perf_counter()`): when the loop's last poll saw it, or now
    where it did not have to wait for a poll. libev keeps the time of the poll (`ev_now`), on the wall clock."""
    now = gevent.get_hub().loop.now
    before = now()
    data = receive()
    polled = now()
    at = time.perf_counter()
    return data, at if polled == before else at - min(max(0.0, time.time() - polled), _MOST_S)
