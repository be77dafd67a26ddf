"""Brings adapters to a side, count by count, and measures it at each: the acting part of `scale.py`."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from loramux_bench.record import RequestRecord
from loramux_bench.studies.books import keep
from loramux_bench.studies.registration import Registration
from loramux_bench.studies.scale import Load, Registered, Row, row, traffic
from loramux_bench.studies.servers import EngineShape, Loramux, StockVllm
from loramux_bench.studies.study import StudyDir
from loramux_bench.studies.traffic import Clients


def grow_loramux(load: Load, shape: EngineShape, adapters: Mapping[str, Path], study: StudyDir) -> Iterator[Row]:
    """A row for each count, that without adapters first. One engine runs all the time, below a gateway that knows of no
    adapter; the gateway that is measured is another one."""
    with Loramux(shape, home=study.scratch / "engine-home", log=study.log("engine")) as keeper:
        engine_url = keeper.engine_url

        def gateway() -> Loramux:
            return Loramux(
                shape,
                home=study.scratch / "loramux-home",
                log=study.log("loramux"),
                roots=[study.scratch],
                settings={"ENGINE__URLS": engine_url},
            )

        yield from grow_gateway(load, gateway, adapters)


def grow_gateway(load: Load, gateway: Callable[[], Loramux], adapters: Mapping[str, Path]) -> Iterator[Row]:
    """Likewise. The gateway begins and ends as often as it is needed, above an engine that stays."""
    with gateway():
        pass  # its first start makes its home: no restart is like it
    yield row("loramux", 0, books=keep(gateway, load.restarts))
    for before, count in pairwise((0, *load.counts)):
        with gateway() as running:
            fresh = _fresh(load, before, count, adapters)
            registered = asyncio.run(_register(running.url, running.admin_key, fresh))
        books = keep(gateway, load.restarts)
        with gateway() as running:
            records = asyncio.run(_traffic(running.url, running.admin_key, load, count))
        yield row("loramux", count, registered=registered, books=books, records=records)


def grow_stock(load: Load, shape: EngineShape, adapters: Mapping[str, Path], study: StudyDir) -> Iterator[Row]:
    """A row for each count. vLLM loads each adapter as it is registered, and loads it again inside a step when it is
    asked for one that it had to drop."""
    with StockVllm(shape, log=study.log("stock")) as vllm:
        for before, count in pairwise((0, *load.counts)):
            registered = asyncio.run(_register(vllm.url, "", _fresh(load, before, count, adapters)))
            records = asyncio.run(_traffic(vllm.url, "", load, count))
            yield row("stock", count, registered=registered, records=records)


def _fresh(load: Load, before: int, count: int, adapters: Mapping[str, Path]) -> dict[str, Path]:
    return {name: adapters[name] for name in load.names(count)[before:]}


async def _register(url: str, admin_key: str, fresh: Mapping[str, Path]) -> Registered:
    async with Registration(url, admin_key) as registration:
        return Registered(adapters=len(fresh), length_s=await registration.add(fresh))


async def _traffic(url: str, key: str, load: Load, count: int) -> Sequence[RequestRecord]:
    async with Clients(url, key) as clients:
        return await clients.loop(traffic(load, count), load.clients)
