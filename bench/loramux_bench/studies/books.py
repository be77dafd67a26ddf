"""What a gateway needs to keep its adapters: memory, the time to list them, the time to be ready again."""

import statistics
import time
from collections.abc import Callable

import httpx
import msgspec
import psutil

from loramux_bench.admin.answers import AdapterPage
from loramux_bench.admin.client import ADMIN
from loramux_bench.bearer import bearer
from loramux_bench.errors import EndpointError
from loramux_bench.studies.scale import Books
from loramux_bench.studies.servers import Loramux

_FIRST_PAGE = 100
_PAGE = 1000
_LISTINGS = 5
_ANSWER_S = 120.0

_STEADY_SHARE = 0.005
_STEADY_LOOKS = 6
_LOOK_EVERY_S = 0.25
_MOST_LOOKS = 60


def keep(gateway: Callable[[], Loramux], restarts: int) -> Books:
    """Start the gateway so often, and measure it each time: medians. It is not running before and after. Raises
    `EndpointError`."""
    found = [_measured(gateway) for _ in range(restarts)]
    return Books(
        memory_bytes=int(statistics.median(one.memory_bytes for one in found)),
        first_page_s=statistics.median(one.first_page_s for one in found),
        list_s=statistics.median(one.list_s for one in found),
        ready_s=statistics.median(one.ready_s for one in found),
    )


def _measured(gateway: Callable[[], Loramux]) -> Books:
    with gateway() as running:
        memory = memory_bytes(running.pid)  # before it is asked for anything
        first_page_s, list_s = listing_s(running.url, running.admin_key)
        return Books(memory_bytes=memory, first_page_s=first_page_s, list_s=list_s, ready_s=running.ready_s)


def memory_bytes(pid: int) -> int:
    """Resident set of a process, once it has kept still for a second and a half; after 15 s as it is."""
    process = psutil.Process(pid)
    seen = [int(process.memory_info().rss)]
    while len(seen) < _MOST_LOOKS and not steady(seen):
        time.sleep(_LOOK_EVERY_S)
        seen.append(int(process.memory_info().rss))
    return seen[-1]


def steady(seen: list[int]) -> bool:
    """Whether the last looks are all the same, but for half a percent."""
    last = seen[-_STEADY_LOOKS:]
    return len(last) == _STEADY_LOOKS and max(last) - min(last) <= _STEADY_SHARE * max(last)


def listing_s(url: str, key: str, *, transport: httpx.BaseTransport | None = None) -> tuple[float, float]:
    """How long it takes to list the first page, and to list all; medians of five, decoding included. Raises
    `EndpointError`."""
    with httpx.Client(
        base_url=url, headers=bearer(key), timeout=_ANSWER_S, transport=transport, trust_env=False
    ) as http:
        _pages(http, _FIRST_PAGE, 1)  # opens the connection
        first = [_timed(lambda: _pages(http, _FIRST_PAGE, 1)) for _ in range(_LISTINGS)]
        every = [_timed(lambda: _pages(http, _PAGE, None)) for _ in range(_LISTINGS)]
    return statistics.median(first), statistics.median(every)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _pages(http: httpx.Client, limit: int, most: int | None) -> int:
    """How many adapters so many pages hold; None: all pages."""
    count, pages, cursor = 0, 0, None
    while True:
        asked: dict[str, str | int] = {"limit": limit} if cursor is None else {"limit": limit, "cursor": cursor}
        try:
            answer = http.get(f"{ADMIN}/adapters", params=asked).raise_for_status()
            page = msgspec.json.decode(answer.content, type=AdapterPage)
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise EndpointError(f"{http.base_url} does not list its adapters: {error}.") from error
        count += len(page.adapters)
        pages += 1
        cursor = page.next_cursor
        if cursor is None or pages == most:
            return count
