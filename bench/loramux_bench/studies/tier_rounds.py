"""The rounds of `loramux bench tiers`: one server at a time, each place measured in it."""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from loramux_bench.studies.adapters import LoraShapes, write_adapters
from loramux_bench.studies.buckets import uploaded
from loramux_bench.studies.calls import client
from loramux_bench.studies.registration import Registration
from loramux_bench.studies.servers import EngineShape, Loramux, S3Server, StockVllm
from loramux_bench.studies.study import StudyDir, in_turn
from loramux_bench.studies.tier_servers import LoramuxServer, StockServer
from loramux_bench.studies.tiers import Measured, Place, Sample, Side, measure
from loramux_bench.studies.use_order import UseOrder

_SPARE = 4
"""Adapters beyond those that the engine holds: so many are always on disk."""
_BUCKET = "loramux-bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    sides: tuple[Side, ...]
    places: tuple[Place, ...]
    rounds: int
    samples: int
    """Of each place, in a round."""
    rank: int
    modules: tuple[str, ...]
    seed: int
    s3_endpoint: str = ""
    """Empty: moto's server, where it is installed."""
    s3_bucket: str = _BUCKET


def run(
    plan: Plan, shape: EngineShape, study: StudyDir, *, take: Callable[[Sample], None], tell: Callable[[str], None]
) -> None:
    """`take` gets each sample, `tell` sentences for people. Raises `BenchError`."""
    names = [f"tier-{number}" for number in range(shape.max_cpu_loras + _SPARE)]
    tell(f"writing {len(names)} adapters of rank {plan.rank}")
    adapters = write_adapters(
        study.scratch / "adapters",
        LoraShapes.of(shape.directory),
        names,
        rank=plan.rank,
        seed=plan.seed,
        modules=plan.modules,
    )
    with ExitStack() as stores:
        endpoint, credentials = plan.s3_endpoint, {}
        if "loramux" in plan.sides and "s3" in plan.places and not endpoint:
            if find_spec("moto") is None:
                tell("No s3: moto is not installed; name a store with --s3-endpoint.")
            else:
                store = stores.enter_context(S3Server(log=study.log("s3")))
                endpoint, credentials = store.url, store.environment
        sources: Mapping[str, str] = {name: str(path.absolute()) for name, path in adapters.items()}
        if endpoint:
            tell("uploading them to the store")
            sources = stores.enter_context(
                uploaded(adapters, endpoint=endpoint, bucket=plan.s3_bucket, environment=credentials)
            )
        for number, side in in_turn(plan.sides, plan.rounds):
            tell(f"round {number + 1} of {plan.rounds}, {side}: starting")
            log = study.log(f"{side}-{number + 1}")
            if side == "stock":
                with StockVllm(shape, log=log) as vllm:
                    asyncio.run(_stock(plan, shape, vllm.url, adapters, number, take))
                continue
            home = study.scratch / f"home-{number + 1}"
            settings = {"ARTIFACTS__S3_ENDPOINT_URL": endpoint} if endpoint else {}
            with Loramux(
                shape,
                home=home,
                log=log,
                roots=[study.scratch / "adapters"],
                settings=settings,
                environment={**os.environ, **credentials},
            ) as gateway:
                with gateway.admin() as admin:
                    for name, source in sources.items():
                        admin.wait(admin.add(name, source))
                asyncio.run(_loramux(plan, gateway, list(adapters), bool(endpoint), number, take))


async def _stock(
    plan: Plan, shape: EngineShape, url: str, adapters: Mapping[str, Path], number: int, take: Callable[[Sample], None]
) -> None:
    order = UseOrder(shape.max_loras, shape.max_cpu_loras)
    async with Registration(url, at_a_time=1) as registration:
        for name, path in adapters.items():
            await registration.add({name: path})
            order.used(name)
    async with client(url) as http:
        await _samples(plan, StockServer(http, shape.name, adapters, order), "stock", number, take)


async def _loramux(
    plan: Plan, gateway: Loramux, names: list[str], remote: bool, number: int, take: Callable[[Sample], None]
) -> None:
    async with client(gateway.url, gateway.admin_key) as http:
        server = LoramuxServer(http, gateway.shape.name, names, gateway.home, remote=remote)
        await _samples(plan, server, "loramux", number, take)


async def _samples(plan: Plan, server: Measured, side: Side, number: int, take: Callable[[Sample], None]) -> None:
    async for sample in measure(server, side, plan.places, plan.samples, round=number, seed=plan.seed):
        take(sample)
