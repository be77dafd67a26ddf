"""The sides of a study: each is a server of its own, with the same adapters."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from loramux_bench.studies.registration import Registration
from loramux_bench.studies.servers import EngineShape, Loramux, StockVllm
from loramux_bench.studies.study import StudyDir

Side = Literal["stock", "loramux", "loramux-torch"]
"""A plain vLLM, loramux, and loramux with vLLM's own LoRA kernels in place of the plugin's (CPU)."""

SIDES: tuple[Side, ...] = get_args(Side)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that answers. `key` is for inference and, of loramux, for the admin interface."""

    side: Side
    url: str
    key: str
    base: str


@contextmanager
def serving(side: Side, shape: EngineShape, adapters: Mapping[str, Path], study: StudyDir) -> Iterator[Endpoint]:
    """The side's server with these adapters (by name, all below the study's scratch), each of them in host memory as
    far as there is room. Raises `EndpointError` where it does not come up or refuses one."""
    log = study.log(side)
    if side == "stock":
        with StockVllm(shape, log=log) as vllm:
            asyncio.run(_load(vllm.url, "", adapters))
            yield Endpoint(side, vllm.url, "", shape.name)
        return
    settings = {} if side == "loramux" else {"ENGINE__CPU_LORA_KERNELS": "false"}
    home = study.scratch / f"{side}-home"
    with Loramux(shape, home=home, log=log, roots=[study.scratch], settings=settings) as gateway:
        asyncio.run(_load(gateway.url, gateway.admin_key, adapters))
        yield Endpoint(side, gateway.url, gateway.admin_key, shape.name)


async def _load(url: str, admin_key: str, adapters: Mapping[str, Path]) -> None:
    async with Registration(url, admin_key) as registration:
        await registration.add(adapters)
        if admin_key:
            await registration.prefetch(adapters, "cpu")
