"""What Locust's listeners and pages see of a request: the request itself, and its token timings.

Every request fires `events.request` as Locust's own clients do, and so do `TTFT`, `TPOT`, `ITL` (one a gap) and
`tokens` (the count stands where Locust expects milliseconds). The latter four have rows of their own and are kept out
of the "Aggregated" row, which would otherwise count tokens as requests.
"""

from collections import deque
from collections.abc import Callable

import gevent
from locust.env import Environment
from locust.stats import RequestStats

from loramux_bench.record import RequestRecord

TOKEN_ROWS = ("TTFT", "TPOT", "ITL", "tokens")
_GAPS_AT_ONCE = 32
"""Events between two looks at the network: a long answer's gaps must not delay other streams' time stamps."""


class RequestFailed(Exception):
    """How Locust is told of an endpoint's failure."""


class TokenEvents:
    """Fires the events of records; gaps are fired a few at a time by a greenlet of its own."""

    def __init__(self, environment: Environment, name: Callable[[RequestRecord], str]) -> None:
        self._fire = environment.events.request.fire
        self._name = name
        self._gaps: deque[tuple[str, tuple[float, ...]]] = deque()
        self._wake = gevent.event.Event()
        keep_total_of_requests(environment.stats)
        gevent.spawn(self._fire_gaps)

    def fire(self, record: RequestRecord) -> None:
        if record.cut:
            return
        name = self._name(record)
        self._fire(
            request_type=record.api,
            name=name,
            response_time=record.e2e_s * 1000,
            response_length=record.tokens,
            exception=RequestFailed(f"{record.error}: {record.message}") if record.error else None,
            context={"adapter": record.adapter, "target": record.target, "tenant": record.tenant},
        )
        if not record.ok:
            return
        for row, value_s in (("TTFT", record.ttft_s), ("TPOT", record.tpot_s)):
            if value_s is not None:
                self._row(row, name, value_s * 1000)
        self._row("tokens", name, record.tokens)
        if record.gaps_s:
            self._gaps.append((name, record.gaps_s))
            self._wake.set()

    def _row(self, row: str, name: str, value: float) -> None:
        self._fire(request_type=row, name=name, response_time=value, response_length=0, exception=None, context={})

    def _fire_gaps(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._gaps:
                name, gaps = self._gaps.popleft()
                for number, gap_s in enumerate(gaps):
                    if number % _GAPS_AT_ONCE == 0:
                        gevent.sleep(0)
                    self._row("ITL", name, gap_s * 1000)


def keep_total_of_requests(stats: RequestStats) -> None:
    """From now on `stats.total`, the "Aggregated" row, leaves the token rows out."""
    log_all = stats.log_request

    def log_request(method: str, name: str, response_time: int, content_length: int) -> None:
        if method in TOKEN_ROWS:
            stats.get(name, method).log(response_time, content_length)
        else:
            log_all(method, name, response_time, content_length)

    stats.log_request = log_request
