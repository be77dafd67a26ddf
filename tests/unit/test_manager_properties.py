"""Random schedules of requests, updates, sweeps and failing engines: the books never contradict themselves, no request
runs on what its engine does not hold, and everything comes to an end."""

import asyncio
import random
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loramux_adapters.errors import EngineError, EngineRejected, EngineTimeout, LoramuxError, QueueTimeout
from loramux_adapters.model import Target
from tests.fakes.lora_engine import FakeEngine
from tests.fakes.manager_bench import Bench, able, target

REPLICAS = ("one", "two")
TARGETS = tuple(target(name) for name in "abcdef")

step = st.one_of(
    st.tuples(st.just("request"), st.sampled_from(TARGETS), st.sampled_from(REPLICAS), st.integers(0, 12)),
    st.tuples(st.just("leave"), st.sampled_from(TARGETS), st.sampled_from(REPLICAS), st.integers(0, 12)),
    st.tuples(st.just("hold"), st.sampled_from(TARGETS), st.just(""), st.integers(0, 12)),
    st.tuples(st.just("retire"), st.sampled_from(TARGETS), st.just(""), st.integers(0, 1)),
    st.tuples(st.just("pin"), st.sampled_from(TARGETS), st.just(""), st.integers(0, 1)),
    st.tuples(st.just("sweep"), st.just(TARGETS[0]), st.just(""), st.integers(0, 5)),
    st.tuples(st.just("crash"), st.just(TARGETS[0]), st.sampled_from(REPLICAS), st.just(0)),
    st.tuples(st.just("attach"), st.just(TARGETS[0]), st.sampled_from(REPLICAS), st.just(0)),
    st.tuples(st.just("pause"), st.just(TARGETS[0]), st.just(""), st.integers(0, 20)),
)


class UnsteadyEngine(FakeEngine):
    """Takes a random number of turns of the loop, refuses now and then, and now and then breaks off before or after
    the work is done. It never takes more than its places, as that is for the manager to see to."""

    def __init__(self, replica_id: str, places: int, chance: random.Random, trouble: float) -> None:
        super().__init__(replica_id, able(places))
        self._chance = chance
        self._trouble = trouble
        self.busy: set[str] = set()

    async def load(self, engine_name: str, path: Path) -> None:
        async with _alone(self, engine_name):
            await self._turns()
            self._maybe(EngineRejected("no"))
            self._maybe(EngineTimeout("before"))
            await super().load(engine_name, path)
            assert len(self.held) <= self.able.max_cpu_loras, "an engine was given more than fits"
            self._maybe(EngineTimeout("after"))

    async def evict(self, engine_name: str) -> None:
        async with _alone(self, engine_name):
            await self._turns()
            self._maybe(EngineTimeout("before"))
            await super().evict(engine_name)
            self._maybe(EngineTimeout("after"))

    async def _turns(self) -> None:
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)

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
    def __init__(self, directory: Path, places: int, seed: int, trouble: float) -> None:
        chance = random.Random(seed)
        self.bench = Bench(directory, room_timeout_s=20.0, drain_timeout_s=20.0)
        self.engines = {name: UnsteadyEngine(name, places, chance, trouble) for name in REPLICAS}
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
        self.bench.pinned = frozenset()
        async with asyncio.timeout(15):
            while not all(task.done() for task in self.tasks):
                await asyncio.sleep(0)
                self.check()
        for task in self.tasks:
            if not task.cancelled():
                task.result()

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
            self.bench.pinned = frozenset({wanted.engine_name}) if room else frozenset()
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
        engine = self.engines[replica]
        try:
            async with self.bench.manager.lease(wanted, replica):
                process = self.crashes[replica]
                for _ in range(turns):
                    if self.crashes[replica] != process or not engine.up:
                        return  # it died, and the request with it
                    assert wanted.engine_name in engine.held, f"{wanted.adapter} taken away on {replica}"
                    assert wanted.engine_name not in engine.busy, f"{wanted.adapter} moved on {replica}"
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

    async def _retire(self, wanted: Target, end: bool) -> None:
        await self.bench.manager.retire(wanted.engine_name, "replaced", lambda: False, end_requests=end)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(step, min_size=10, max_size=80),
    places=st.integers(1, 3),
    seed=st.integers(0, 2**32),
    trouble=st.sampled_from([0.0, 0.0, 0.1]),
)
def test_any_schedule(steps: list[tuple[str, Target, str, int]], places: int, seed: int, trouble: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "adapter_config.json").touch()

        async def main() -> None:
            await Schedule(Path(name), places, seed, trouble).run(steps)

        asyncio.run(main())
