"""The sides of a study: each is a server of its own, with the same adapters, asked the same."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar, get_args

from loramux_bench.studies.adapters import LoraShapes, write_adapters
from loramux_bench.studies.registration import Registration
from loramux_bench.studies.servers import EngineShape, Loramux, StockVllm
from loramux_bench.studies.study import StudyDir
from loramux_bench.studies.traffic import Clients

Answered = TypeVar("Answered")
Row = TypeVar("Row")

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


class Load(Protocol):
    """What is asked of every side, in a study's own words."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of all that are needed."""

    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """Sides that are measured one after the other."""

    sides: Sequence[Side]
    shape: EngineShape
    lora: LoraShapes
    """Of the shape's base."""
    rank: int
    modules: Sequence[str]
    load: Load

    def measure(
        self,
        study: StudyDir,
        ask: Callable[[Clients, str], Awaitable[Answered]],
        rows: Callable[[Side, Answered], Sequence[Row]],
        *,
        tell: Callable[[str], None],
    ) -> list[Row]:
        """All rows, side after side; the study's result has those that there are when a side is over. `ask` gets a
        side's clients and the name of its base. Raises `BenchError`."""
        adapters = write_adapters(
            study.scratch / "adapters",
            self.lora,
            self.load.adapters,
            rank=self.rank,
            seed=self.load.seed,
            modules=self.modules,
        )
        found: list[Row] = []
        for side in self.sides:
            tell(f"{side}: starting")
            with serving(side, self.shape, adapters, study) as endpoint:
                found += rows(side, asyncio.run(_asked(endpoint, ask)))
            study.write({"load": self.load, "rank": self.rank, "modules": self.modules, "rows": found}, self.shape)
        return found


async def _asked(endpoint: Endpoint, ask: Callable[[Clients, str], Awaitable[Answered]]) -> Answered:
    async with Clients(endpoint.url, endpoint.key) as clients:
        return await ask(clients, endpoint.base)
