"""The rounds of `loramux bench stall`: one server at a time, as two would disturb each other, and all cells in it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from loramux_bench.admin.artifact import WEIGHTS
from loramux_bench.admin.metrics_page import read_page
from loramux_bench.errors import ResultsError, ScenarioError
from loramux_bench.studies import page_cache
from loramux_bench.studies.adapters import LoraShapes, write_adapters
from loramux_bench.studies.arriving import OneToken, PlainLoad, Prefetch, Way
from loramux_bench.studies.calls import client
from loramux_bench.studies.disk_tier import weights_of
from loramux_bench.studies.registration import Registration
from loramux_bench.studies.servers import EngineShape, Loramux, StockVllm
from loramux_bench.studies.stall import Cache, Seen, Side, Weather, counted, measure
from loramux_bench.studies.study import StudyDir, in_turn

_WARM = "warm"
_MOST_AT_A_TIME = 16
_STAYED = 0.05
"""Share of a file's pages that may stay when it was dropped."""
_LOADS = "loramux_adapter_load_seconds_count{"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    sides: tuple[Side, ...]
    rates: tuple[float, ...]
    """Cold adapters a second."""
    caches: tuple[Cache, ...]
    rounds: int
    seconds: float
    """Of a cell."""
    streams: int
    adapters: int
    """That arrive, round and round: more than the engine holds."""
    rank: int
    modules: tuple[str, ...]
    on_base: bool
    """The warm streams are the base's, not an adapter's."""
    seed: int

    def at_a_time(self, shape: EngineShape) -> int:
        """How many may arrive at once, so that each that comes has been pushed out. Raises `ScenarioError` where the
        engine would hold all."""
        spare = self.adapters - shape.max_cpu_loras
        if spare < 1:
            raise ScenarioError(
                f"{self.adapters} adapters fit into the {shape.max_cpu_loras} places of the engine, and none would be "
                f"cold: choose more (--adapters)."
            )
        return min(spare, _MOST_AT_A_TIME)

    def weathers(self, number: int) -> tuple[Weather, ...]:
        """Of a round: the quiet first; then there in even rounds, and back in odd ones."""
        busy = [Weather(rate, cache) for cache in self.caches for rate in self.rates]
        return (Weather(), *(busy if number % 2 == 0 else reversed(busy)))


def run(
    plan: Plan, shape: EngineShape, study: StudyDir, *, take: Callable[[Seen], None], tell: Callable[[str], None]
) -> None:
    """`take` gets each cell when it is over, `tell` sentences for people. Raises `BenchError`."""
    at_a_time = plan.at_a_time(shape)
    names = [f"cold-{number}" for number in range(plan.adapters)]
    tell(f"writing {len(names) + 1} adapters of rank {plan.rank}")
    adapters = write_adapters(
        study.scratch / "adapters",
        LoraShapes.of(shape.directory),
        [_WARM, *names],
        rank=plan.rank,
        seed=plan.seed,
        modules=plan.modules,
    )
    if "dropped" in plan.caches:
        require_droppable(adapters[_WARM] / WEIGHTS)
    servers = list(dict.fromkeys(side.partition("-")[0] for side in plan.sides))
    for number, server in in_turn(servers, plan.rounds):
        tell(f"round {number + 1} of {plan.rounds}, {server}: starting")
        log = study.log(f"{server}-{number + 1}")
        if server == "stock":
            with StockVllm(shape, log=log) as vllm:
                session = _Session(plan, shape, number, vllm.url, "", adapters, {}, at_a_time, take, tell)
                session.run()
            continue
        home = study.scratch / f"home-{number + 1}"
        disk_bytes = 2 * sum(path.stat().st_size for path in adapters[_WARM].iterdir()) * len(adapters)
        settings = {"ARTIFACTS__DISK_BYTES": str(disk_bytes)}
        with Loramux(shape, home=home, log=log, roots=[study.scratch / "adapters"], settings=settings) as gateway:
            key = gateway.admin_key
            asyncio.run(_register(gateway.url, key, adapters))
            with gateway.admin() as admin:
                kept = {name: weights_of(home, admin.adapter(name)) for name in names}
            session = _Session(plan, shape, number, gateway.url, key, adapters, kept, at_a_time, take, tell)
            session.run()


def require_droppable(weights: Path) -> None:
    """Raises `ResultsError` where this file system keeps its pages, as one in memory does."""
    page_cache.drop([weights])
    if page_cache.cached_share(weights) > _STAYED:
        raise ResultsError(
            f"Pages of files below {weights.parents[3]} stay in the page cache when they are dropped: choose a place "
            f"on a disk (--results), or leave the dropped cache out (--caches warm)."
        )


async def _register(url: str, admin_key: str, adapters: Mapping[str, Path]) -> None:
    async with Registration(url, admin_key, at_a_time=1) as registration:
        await registration.add(adapters)


class _Session:
    """One server, from its readiness to its end. With a key it is loramux."""

    def __init__(
        self,
        plan: Plan,
        shape: EngineShape,
        number: int,
        url: str,
        key: str,
        adapters: Mapping[str, Path],
        kept: Mapping[str, Path],
        at_a_time: int,
        take: Callable[[Seen], None],
        tell: Callable[[str], None],
    ) -> None:
        """`kept` has the files of the gateway's own disk tier."""
        self._plan = plan
        self._shape = shape
        self._number = number
        self._url = url
        self._key = key
        self._warm = adapters[_WARM]
        self._cold = {name: path for name, path in adapters.items() if name != _WARM}
        self._kept = kept
        self._at_a_time = at_a_time
        self._take = take
        self._tell = tell
        self._arrived = 0
        """Goes on from cell to cell, and so does the round through the adapters."""

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        if not self._key:
            lazy = "stock-lazy" in self._plan.sides
            await _register(self._url, "", {_WARM: self._warm, **(self._cold if lazy else {})})
        async with client(self._url, self._key) as http:
            for side in self._plan.sides:
                if side.startswith("loramux") == bool(self._key):
                    for weather in self._plan.weathers(self._number):
                        self._take(await self._cell(http, side, weather))

    async def _cell(self, http: httpx.AsyncClient, side: Side, weather: Weather) -> Seen:
        before = await self._loads(http)
        seen = await measure(
            http,
            self._way(http, side),
            self._shape.name if self._plan.on_base else _WARM,
            weather,
            side=side,
            round=self._number,
            first=self._arrived,
            streams=self._plan.streams,
            seconds=self._plan.seconds,
            at_a_time=self._at_a_time,
            max_model_len=self._shape.max_model_len,
        )
        self._arrived += seen.begun
        after = await self._loads(http)
        busy = f"{weather.per_s:g} a second, {weather.cache}" if weather.per_s else "quiet"
        self._tell(f"round {self._number + 1} of {self._plan.rounds}, {side}: {busy}: {seen.gaps_s.size} gaps")
        return seen if before is None or after is None else counted(seen, after - before)

    def _way(self, http: httpx.AsyncClient, side: Side) -> Way:
        match side:
            case "stock-load":
                return PlainLoad(http, self._cold)
            case "stock-lazy":
                return OneToken(http, {name: path / WEIGHTS for name, path in self._cold.items()})
            case "loramux-prefetch":
                return Prefetch(http, self._kept)
            case "loramux-request":
                return OneToken(http, self._kept)

    async def _loads(self, http: httpx.AsyncClient) -> int | None:
        """So far, into the engine, by the gateway's own count; None of a stock vLLM."""
        if not self._key:
            return None
        series, _ = read_page((await http.get("/metrics")).text)
        return int(sum(value for name, value in series.items() if name.startswith(_LOADS) and _into_engine(name)))


def _into_engine(series: str) -> bool:
    return 'transition="disk_' in series and 'outcome="ok"' in series
