"""Random schedules of requests, updates, sweeps and failing engines: the books never contradict themselves, no request
runs on what its engine does not hold, and everything comes to an end."""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from loramux_adapters.errors import EngineError, EngineRejected, EngineTimeout, LoramuxError, QueueTimeout
from loramux_adapters.model import Target, Tier
from tests.fakes.lora_engine import FakeEngine
from tests.fakes.manager_bench import Bench, able, refreshed, target

REPLICAS = ("one", "two")
TARGETS = tuple(target(name) for name in "abcdef")

step = st.one_of(
    st.tuples(st.just("request"), st.sampled_from(TARGETS), st.sampled_from(REPLICAS), st.integers(0, 12)),
    st.tuples(st.just("leave"), st.sampled_from(TARGETS), st.sampled_from(REPLICAS), st.integers(0, 12)),
    st.tuples(st.just("hold"), st.sampled_from(TARGETS), st.just(""), st.integers(0, 12)),
    st.tuples(st.just("retire"), st.sampled_from(TARGETS), st.just(""), st.integers(0, 1)),
    st.tuples(st.just("pin"), st.sampled_from(TARGETS), st.just(""), st.integers(0, 2)),
    st.tuples(st.just("prefetch"), st.sampled_from(TARGETS), st.just(""), st.integers(0, 1)),
    st.tuples(st.just("foresee"), st.sampled_from(TARGETS), st.sampled_from(REPLICAS), st.just(0)),
    st.tuples(st.just("demand"), st.just(TARGETS[0]), st.just(""), st.just(0)),
    st.tuples(st.just("refresh"), st.just(TARGETS[0]), st.just(""), st.just(0)),
    st.tuples(st.just("sweep"), st.just(TARGETS[0]), st.just(""), st.integers(0, 5)),
    st.tuples(st.just("crash"), st.just(TARGETS[0]), st.sampled_from(REPLICAS), st.just(0)),
    st.tuples(st.just("attach"), st.just(TARGETS[0]), st.sampled_from(REPLICAS), st.just(0)),
    st.tuples(st.just("pause"), st.just(TARGETS[0]), st.just(""), st.integers(0, 20)),
)


class UnsteadyEngine(FakeEngine):
    """Takes a random number of turns of the loop, refuses now and then, and now and then breaks off before or after
    the work is done. It never takes more than its places, as that is for the manager to see to."""

    def __init__(
        self, replica_id: str, places: int, slots: int, chance: random.Random, trouble: float, *, staging: bool
    ) -> None:
        super().__init__(replica_id, able(places, slots, staging=staging))
        self._chance = chance
        self._trouble = trouble
        self.busy: set[str] = set()
        self.leaving: set[str] = set()
        self.sizes = {each.engine_name: 5000 * (at % 2) for at, each in enumerate(TARGETS)}

    async def load(self, engine_name: str, path: Path, *, tier: Tier = Tier.GPU, keep: Collection[str] = ()) -> None:
        async with self._unsteady(engine_name):
            self._maybe(EngineRejected("no"))
            await super().load(engine_name, path, tier=tier, keep=keep)
            assert len(self.held) <= self.able.max_cpu_loras, "an engine was given more than fits"

    async def activate(self, engine_name: str, *, keep: Collection[str] = ()) -> bool:
        async with self._unsteady(engine_name):
            given = await super().activate(engine_name, keep=keep)
        return given

    async def pin(self, engine_name: str, tier: Tier) -> None:
        async with self._unsteady(engine_name):
            await super().pin(engine_name, tier)

    async def unpin(self, engine_name: str) -> None:
        async with self._unsteady(engine_name):
            await super().unpin(engine_name)

    async def evict(self, engine_name: str) -> None:
        self.leaving.add(engine_name)
        try:
            async with self._unsteady(engine_name):
                await super().evict(engine_name)
        finally:
            self.leaving.discard(engine_name)

    @asynccontextmanager
    async def _unsteady(self, engine_name: str) -> AsyncIterator[None]:
        async with _alone(self, engine_name):
            for _ in range(self._chance.randrange(6)):
                await asyncio.sleep(0)
            self._maybe(EngineTimeout("before"))
            yield
            self._maybe(EngineTimeout("after"))

    def _maybe(self, error: EngineError) -> None:
        if self._chance.random() < self._trouble:
            raise error


class _alone:
    """Asserts that nothing else is done with one name at a time."""

    def __init__(self, engine: UnsteadyEngine, name: str) -> None:
        self._busy, self._name = engine.busy, name

    async def __aenter__(self) -> None:
        assert self._name not in self._busy, f"two calls at once for {self._name}"
        self._busy.add(self._name)

    async def __aexit__(self, *_: object) -> None:
        self._busy.discard(self._name)


class Schedule:
    def __init__(self, directory: Path, places: int, slots: int, seed: int, trouble: float, *, staging: bool) -> None:
        chance = random.Random(seed)
        self.bench = Bench(directory, room_timeout_s=20.0, drain_timeout_s=20.0)
        self.engines = {
            name: UnsteadyEngine(name, places, min(slots, places), chance, trouble, staging=staging)
            for name in REPLICAS
        }
        self.bench.known = {each.engine_name: each for each in TARGETS}
        self.tasks: list[asyncio.Task[None]] = []
        self.places = places
        self.attaching: set[str] = set()
        self.crashes = dict.fromkeys(REPLICAS, 0)

    async def run(self, steps: list[tuple[str, Target, str, int]]) -> None:
        for name in REPLICAS:
            await self._attach(name)
        for each in steps:
            await self._step(*each)
            self.check()
        self.bench.pins = {}
        await self.bench.manager.repin()
        async with asyncio.timeout(15):
            while not all(task.done() for task in self.tasks):
                await asyncio.sleep(0)
                self.check()
        for task in self.tasks:
            if not task.cancelled():
                task.result()
        await self.bench.manager.close()
        self.check()

    def check(self) -> None:
        self.bench.manager.check_integrity()

    async def _step(self, kind: str, wanted: Target, replica: str, number: int) -> None:
        manager = self.bench.manager
        self.bench.clock.advance(0.5)
        if kind == "request":
            self._begin(self._request(wanted, replica, number))
        elif kind == "leave":
            task = self._begin(self._request(wanted, replica, 1000))
            asyncio.get_running_loop().call_later(0.001 * number, task.cancel)
        elif kind == "hold":
            self._begin(self._hold(wanted, number))
        elif kind == "retire":
            self._begin(self._retire(wanted, bool(number)))
        elif kind == "pin":  # never as many as there are places, else nothing could load
            room = self.places > 1 and bool(number)
            self.bench.pins = {wanted.engine_name: (Tier.CPU, Tier.GPU)[number - 1]} if room else {}
            self._begin(manager.repin())
        elif kind == "prefetch":
            self._begin(self._prefetch(wanted, (Tier.CPU, Tier.GPU)[number]))
        elif kind == "foresee":
            manager.foresee(wanted, replica)
        elif kind == "demand":
            manager.prefetch_by_demand(self.bench.known)
        elif kind == "refresh":
            self._begin(refreshed(manager))
        elif kind == "sweep":
            self._begin(manager.sweep(frozenset, float(number)))
        elif kind == "crash":
            self.crashes[replica] += 1
            manager.detach(replica)
            self.engines[replica].restart()
            self.engines[replica].up = False
        elif kind == "attach":
            await self._attach(replica)
        else:
            for _ in range(number):
                await asyncio.sleep(0)
                self.check()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.append(task)
        return task

    async def _attach(self, replica: str) -> None:
        engine = self.engines[replica]
        if replica in self.bench.manager.replicas:
            return
        engine.up = True
        self.bench.first = TARGETS[: self.places]
        self.attaching.add(replica)
        try:
            await self.bench.attach(engine)
        except EngineError:
            assert replica not in self.bench.manager.replicas
        finally:
            self.attaching.discard(replica)

    async def _request(self, wanted: Target, replica: str, turns: int) -> None:
        engine, manager = self.engines[replica], self.bench.manager
        try:
            async with manager.lease(wanted, replica):
                process = self.crashes[replica]
                for _ in range(turns):
                    if self.crashes[replica] != process or not engine.up:
                        return  # it died, and the request with it
                    assert wanted.engine_name in engine.held, f"{wanted.adapter} taken away on {replica}"
                    assert wanted.engine_name not in engine.leaving, f"{wanted.adapter} moved on {replica}"
                    with engine.step(wanted.engine_name):
                        await asyncio.sleep(0)
        except QueueTimeout:
            raise AssertionError("there was room in the end") from None
        except LoramuxError:
            pass

    async def _hold(self, wanted: Target, turns: int) -> None:
        manager = self.bench.manager
        try:
            async with manager.hold(wanted):
                for _ in range(turns):
                    missing = manager.replicas - manager.staged_on(wanted.engine_name)
                    assert missing <= self.attaching, "a replica serves without what is about to become live"
                    await asyncio.sleep(0)
        except QueueTimeout:
            raise AssertionError("there was room in the end") from None
        except LoramuxError:
            pass

    async def _prefetch(self, wanted: Target, tier: Tier) -> None:
        try:
            await self.bench.manager.prefetch(wanted, tier)
        except QueueTimeout:
            raise AssertionError("there was room in the end") from None
        except LoramuxError:
            pass

    async def _retire(self, wanted: Target, end: bool) -> None:
        await self.bench.manager.retire(wanted.engine_name, "replaced", lambda: False, end_requests=end)


@settings(
    deadline=None,
    max_examples=150,
    phases=(Phase.explicit, Phase.generate),  # to shrink a schedule takes longer than a test may
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    steps=st.lists(step, min_size=10, max_size=80),
    places=st.integers(1, 3),
    slots=st.integers(1, 3),
    staging=st.booleans(),
    seed=st.integers(0, 2**32),
    trouble=st.sampled_from([0.0, 0.0, 0.1]),
)
def test_any_schedule(
    steps: list[tuple[str, Target, str, int]], places: int, slots: int, staging: bool, seed: int, trouble: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "adapter_config.json").touch()

        async def main() -> None:
            await Schedule(Path(name), places, slots, seed, trouble, staging=staging).run(steps)

        asyncio.run(main())
