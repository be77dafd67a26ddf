"""How long a warm stream waits for its next token while cold adapters arrive.

A cell is one stretch of time: some streams go on, and so many adapters a second arrive beside them, in one way, their
files in the page cache or dropped from it. Each round has its own quiet cell, and ratios are taken within a round.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import httpx
import msgspec
import numpy as np

from loramux_bench.results.distributions import Distribution, distribution
from loramux_bench.results.measures import Values
from loramux_bench.studies import page_cache
from loramux_bench.studies.arriving import Way
from loramux_bench.studies.calls import Refused
from loramux_bench.studies.ratio import Ratio, over_rounds
from loramux_bench.studies.streams import WarmStreams

Side = Literal["stock-load", "stock-lazy", "loramux-prefetch", "loramux-request"]
Cache = Literal["warm", "dropped"]

SIDES: tuple[Side, ...] = get_args(Side)
CACHES: tuple[Cache, ...] = get_args(Cache)

GOAL = 1.2
"""Highest ratio of p99 to quiet that we want to see."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What goes on in a cell. Quiet: no arrivals."""

    per_s: float = 0.0
    cache: Cache = "warm"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one cell found."""

    side: Side
    round: int
    weather: Weather
    gaps_s: Values
    """Those that began in the cell's time."""
    loads_s: Values
    """How long those took that ended in the cell's time, from their call to their answer."""
    due: int
    """Arrivals that the rate asks for."""
    begun: int
    """Arrivals that were called: fewer than are due, where they take so long that there is no place for more."""
    failures: tuple[str, ...]
    engine_loads: int | None
    """Loads by the gateway's own count, where there is one."""
    seconds: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One side in one weather, over its rounds. Times are in seconds."""

    side: str
    arrivals_per_s: float
    cache: str
    rounds: int
    gaps: Distribution | None
    ratio_p50: Ratio | None
    """To the quiet of the same side and round; None for the quiet itself."""
    ratio_p99: Ratio | None
    due: int
    begun: int
    loads: Distribution | None
    """Of those that ended in the window."""
    loads_per_s: float
    failures: int
    failure: str
    """What the first said."""
    engine_loads: int | None


async def measure(
    http: httpx.AsyncClient,
    way: Way,
    model: str,
    weather: Weather,
    *,
    side: Side,
    round: int,
    first: int,
    streams: int,
    seconds: float,
    at_a_time: int,
    max_model_len: int,
) -> Seen:
    """One cell. Arrivals are numbered from `first` on; those that are due while `at_a_time` are under way wait. Raises
    `EndpointError` where the streams break; arrivals that fail are in what was seen."""
    async with WarmStreams(http, model, streams, max_model_len=max_model_len) as warm:
        begin = time.perf_counter()
        end = begin + seconds
        arrivals = _Arrivals(way, weather, first, at_a_time, begin, end)
        await arrivals.run()
        await asyncio.sleep(max(0.0, end - time.perf_counter()))
        await warm.past(end)
        gaps = warm.gaps(begin, end)
    await arrivals.settled()
    return Seen(
        side=side,
        round=round,
        weather=weather,
        gaps_s=gaps,
        loads_s=np.array(arrivals.in_time_s, dtype=np.float64),
        due=arrivals.due,
        begun=arrivals.begun,
        failures=tuple(arrivals.failures),
        engine_loads=None,
        seconds=seconds,
    )


class _Arrivals:
    """At an even rate, from `begin` on, until `end`."""

    def __init__(self, way: Way, weather: Weather, first: int, at_a_time: int, begin: float, end: float) -> None:
        self._way = way
        self._weather = weather
        self._first = first
        self._begin = begin
        self._end = end
        self._places = asyncio.Semaphore(at_a_time)
        self._tasks: list[asyncio.Task[None]] = []
        self.due = int((end - begin) * weather.per_s + 1e-9)
        self.begun = 0
        self.in_time_s: list[float] = []
        self.failures: list[str] = []

    async def run(self) -> None:
        """Returns when no more will begin."""
        for number in range(self.due):
            await asyncio.sleep(max(0.0, self._begin + number / self._weather.per_s - time.perf_counter()))
            try:
                async with asyncio.timeout(max(0.0, self._end - time.perf_counter())):
                    await self._places.acquire()
            except TimeoutError:
                return
            self.begun += 1
            self._tasks.append(asyncio.create_task(self._one(self._first + number)))

    async def settled(self) -> None:
        await asyncio.gather(*self._tasks)

    async def _one(self, number: int) -> None:
        try:
            if self._weather.cache == "dropped":
                await asyncio.to_thread(page_cache.drop, self._way.files(number))
            called = time.perf_counter()
            await self._way.arrive(number)
            done = time.perf_counter()
            if done <= self._end:
                self.in_time_s.append(done - called)
            await self._way.leave(number)
        except Refused as refused:
            self.failures.append(str(refused))
        finally:
            self._places.release()


def counted(seen: Seen, engine_loads: int | None) -> Seen:
    return replace(seen, engine_loads=engine_loads)


def summarise(cells: Sequence[Seen]) -> tuple[Row, ...]:
    """A row for each side and weather, in the order in which they were first seen. Gaps and loads of all rounds are
    pooled; ratios are of rounds. Pure."""
    quiet = {(cell.side, cell.round): cell for cell in cells if not cell.weather.per_s}
    rows = []
    for side, weather in dict.fromkeys((cell.side, cell.weather) for cell in cells):
        mine = [cell for cell in cells if (cell.side, cell.weather) == (side, weather)]
        rows.append(_row(mine, [quiet.get((cell.side, cell.round)) for cell in mine]))
    return tuple(rows)


def _row(cells: Sequence[Seen], quiet: Sequence[Seen | None]) -> Row:
    first = cells[0]
    failures = [said for cell in cells for said in cell.failures]
    loads = np.concatenate([cell.loads_s for cell in cells])
    counts = [cell.engine_loads for cell in cells if cell.engine_loads is not None]
    against = list(zip(cells, quiet, strict=True)) if first.weather.per_s else []
    return Row(
        side=first.side,
        arrivals_per_s=first.weather.per_s,
        cache=first.weather.cache,
        rounds=len(cells),
        gaps=distribution(np.concatenate([cell.gaps_s for cell in cells])),
        ratio_p50=over_rounds(_over(cell, base, 50) for cell, base in against),
        ratio_p99=over_rounds(_over(cell, base, 99) for cell, base in against),
        due=sum(cell.due for cell in cells),
        begun=sum(cell.begun for cell in cells),
        loads=distribution(loads),
        loads_per_s=loads.size / sum(cell.seconds for cell in cells),
        failures=len(failures),
        failure=failures[0] if failures else "",
        engine_loads=sum(counts) if counts else None,
    )


def _over(cell: Seen, quiet: Seen | None, percentile: int) -> float | None:
    if quiet is None or not cell.gaps_s.size or not quiet.gaps_s.size:
        return None
    below = float(np.percentile(quiet.gaps_s, percentile))
    return float(np.percentile(cell.gaps_s, percentile)) / below if below > 0 else None
