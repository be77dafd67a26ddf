"""An `AdapterManager` with its surroundings, and requests that a test begins and ends."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from loramux_adapters.errors import EngineTimeout, SourceNotFound
from loramux_adapters.manager import AdapterManager, TierPolicy
from loramux_adapters.model import Capabilities, Target, Tier
from tests.fakes.clock import FakeClock
from tests.fakes.lora_engine import FakeEngine
from tests.fakes.tier_observer import FakeObserver

_POLICY = TierPolicy(demand_half_life_s=60.0, inline_activation_bytes=1000, prefetch_concurrency=2)


class GatedEngine(FakeEngine):
    """Loads, ways into a slot and evictions stand at gates that the test opens."""

    def __init__(self, replica_id: str, capabilities: Capabilities) -> None:
        super().__init__(replica_id, capabilities)
        self.load_gate = asyncio.Event()
        self.evict_gate = asyncio.Event()
        self.activate_gate = asyncio.Event()
        for gate in (self.load_gate, self.evict_gate, self.activate_gate):
            gate.set()
        self.load_tiers: dict[str, Tier] = {}
        self.evict_failures: dict[str, EngineTimeout] = {}

    async def load(self, engine_name: str, path: Path, *, tier: Tier = Tier.GPU, keep: Collection[str] = ()) -> None:
        self.load_tiers[engine_name] = tier
        await self.load_gate.wait()
        await super().load(engine_name, path, tier=tier, keep=keep)

    async def activate(self, engine_name: str, *, keep: Collection[str] = ()) -> bool:
        await self.activate_gate.wait()
        return await super().activate(engine_name, keep=keep)

    async def evict(self, engine_name: str) -> None:
        await self.evict_gate.wait()
        if engine_name in self.evict_failures:
            raise self.evict_failures[engine_name]
        await super().evict(engine_name)


class Bench:
    """A manager with its surroundings. `missing` are engine names whose files can not be found, `located`
    counts how often they were looked for."""

    def __init__(
        self,
        directory: Path,
        *,
        room_timeout_s: float = 5.0,
        drain_timeout_s: float = 5.0,
        policy: TierPolicy = _POLICY,
    ) -> None:
        self._directory = directory
        self.clock = FakeClock()
        self.observer = FakeObserver()
        self.pins: Mapping[str, Tier] = {}
        self.missing: set[str] = set()
        self.located: Counter[str] = Counter()
        self.known: dict[str, Target] = {}
        self.first: tuple[Target, ...] = ()
        self.manager = AdapterManager(
            self._locate,
            lambda: self.pins,
            self.clock,
            self.observer,
            room_timeout_s=room_timeout_s,
            drain_timeout_s=drain_timeout_s,
            policy=policy,
        )

    async def _locate(self, target: Target) -> Path:
        self.located[target.engine_name] += 1
        await asyncio.sleep(0)
        if target.engine_name in self.missing:
            raise SourceNotFound("it is gone")
        return self._directory

    async def attach(self, engine: FakeEngine) -> None:
        await self.manager.attach(engine, lambda: self.known, lambda: self.first)

    async def replica(
        self, name: str = "engine-0", places: int = 4, *, slots: int = 1, staging: bool = True
    ) -> GatedEngine:
        engine = GatedEngine(name, able(places, slots, staging=staging))
        await self.attach(engine)
        return engine

    async def stage(self, target: Target) -> None:
        """On every replica."""
        async with self.manager.hold(target):
            pass

    async def use(self, target: Target, replica: str = "engine-0") -> None:
        """One request, from beginning to end."""
        async with self.manager.lease(target, replica):
            pass
        self.manager.check_integrity()


def able(places: int, slots: int = 1, *, staging: bool = True) -> Capabilities:
    return Capabilities(
        dynamic_lora=True, max_loras=slots, max_cpu_loras=places, max_lora_rank=8, evict=True, staging=staging
    )


def target(name: str, number: int = 1) -> Target:
    return Target(name, f"{name}@{number:012x}", number, f"{number:064x}")


A, B, C, D = (target(name) for name in "abcd")


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any condition at all, not one event
            await asyncio.sleep(0.001)


async def refreshed(manager: AdapterManager) -> None:
    """Once more, and until every replica has been asked."""
    manager.refresh_soon()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name().startswith("refresh ")))


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
