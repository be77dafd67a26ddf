"""An `AdapterManager` with its surroundings, and requests that a test begins and ends."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from loramux_adapters.errors import EngineTimeout, SourceNotFound
from loramux_adapters.manager import AdapterManager
from loramux_adapters.model import Capabilities, Target
from tests.fakes.clock import FakeClock
from tests.fakes.lora_engine import FakeEngine
from tests.fakes.tier_observer import FakeObserver


class GatedEngine(FakeEngine):
    """Loads and evictions stand at a gate that the test opens."""

    def __init__(self, replica_id: str, capabilities: Capabilities) -> None:
        super().__init__(replica_id, capabilities)
        self.load_gate = asyncio.Event()
        self.evict_gate = asyncio.Event()
        self.load_gate.set()
        self.evict_gate.set()
        self.evict_failures: dict[str, EngineTimeout] = {}

    async def load(self, engine_name: str, path: Path) -> None:
        await self.load_gate.wait()
        await super().load(engine_name, path)

    async def evict(self, engine_name: str) -> None:
        await self.evict_gate.wait()
        if engine_name in self.evict_failures:
            raise self.evict_failures[engine_name]
        await super().evict(engine_name)


class Bench:
    """A manager with its surroundings. `missing` are engine names whose files can not be found."""

    def __init__(self, directory: Path, *, room_timeout_s: float = 5.0, drain_timeout_s: float = 5.0) -> None:
        self._directory = directory
        self.clock = FakeClock()
        self.observer = FakeObserver()
        self.pinned: frozenset[str] = frozenset()
        self.missing: set[str] = set()
        self.known: dict[str, Target] = {}
        self.first: tuple[Target, ...] = ()
        self.manager = AdapterManager(
            self._locate,
            lambda: self.pinned,
            self.clock,
            self.observer,
            room_timeout_s=room_timeout_s,
            drain_timeout_s=drain_timeout_s,
        )

    async def _locate(self, target: Target) -> Path:
        await asyncio.sleep(0)
        if target.engine_name in self.missing:
            raise SourceNotFound("it is gone")
        return self._directory

    async def attach(self, engine: FakeEngine) -> None:
        await self.manager.attach(engine, lambda: self.known, lambda: self.first)

    async def replica(self, name: str = "engine-0", places: int = 4) -> GatedEngine:
        engine = GatedEngine(name, able(places))
        await self.attach(engine)
        return engine

    async def use(self, target: Target, replica: str = "engine-0") -> None:
        """One request, from beginning to end."""
        async with self.manager.lease(target, replica):
            pass
        self.manager.check_integrity()


def able(places: int) -> Capabilities:
    return Capabilities(dynamic_lora=True, max_loras=1, max_cpu_loras=places, max_lora_rank=8, evict=True)


def target(name: str, number: int = 1) -> Target:
    return Target(name, f"{name}@{number:012x}", number, f"{number:064x}")


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any condition at all, not one event
            await asyncio.sleep(0.001)


async def settle() -> None:
    """Let every task go on until it waits for something outside."""
    for _ in range(30):
        await asyncio.sleep(0)


class Request:
    """A request in a task of its own, which stays on its lease until it is told to end."""

    def __init__(self, bench: Bench, wanted: Target, replica: str = "engine-0") -> None:
        self.entered = asyncio.Event()
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run(bench, wanted, replica))

    async def _run(self, bench: Bench, wanted: Target, replica: str) -> None:
        async with bench.manager.lease(wanted, replica):
            self.entered.set()
            await self.end.wait()

    async def finish(self) -> None:
        self.end.set()
        await self.task
