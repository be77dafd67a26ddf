"""The end of an attempt: in time, or not."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import gevent

from loramux_bench.apis.port import Trace


@contextmanager
def deadline(trace: Trace, timeout_s: float) -> Iterator[None]:
    """Breaks off what runs within after `timeout_s` seconds, which `trace` then has as the error `timeout`. Notes
    `end_at` however it ends. Other exceptions, a `GreenletExit` and other time-outs among them, pass through."""
    timeout = gevent.Timeout(timeout_s)
    timeout.start()
    try:
        yield
    except gevent.Timeout as fired:
        if fired is not timeout:
            raise
        trace.fail("timeout", f"The answer was not complete after {timeout_s:g} s.")
    finally:
        timeout.close()
        if trace.end_at is None:
            trace.end_at = time.perf_counter()
