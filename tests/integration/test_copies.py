"""Adapters where no replica is meant to run, over the real registry and disk tier."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loramux_adapters.errors import EngineUnavailable
from loramux_adapters.model import OperationState, Tier, VersionState
from tests.fakes.domain import Domain, engines
from tests.fakes.manager_bench import GatedEngine, able, until

SUCCEEDED = OperationState.SUCCEEDED


class Waiting(Domain):
    """A domain without replicas. None is `wanted`, until a test says so."""

    def __init__(self, home: Path) -> None:
        self.wanted = False
        super().__init__(home, [], engines_wanted=lambda: self.wanted)

    def state(self, name: str, number: int = 1) -> VersionState:
        return self.registry.snapshot.state.versions[name, number].state


@pytest.fixture
async def domain(tmp_path: Path) -> AsyncIterator[Waiting]:
    domain = Waiting(tmp_path)
    await domain.start()
    yield domain
    domain.manager.check_integrity()
    await domain.close()


async def test_an_adapter_becomes_ready_and_is_loaded_when_a_replica_comes(domain: Waiting) -> None:
    async with asyncio.timeout(20):
        assert (await domain.add("tone", domain.source("a"))).state is SUCCEEDED
        assert (await domain.update("tone", domain.source("b", seed=1))).state is SUCCEEDED
    target = domain.registry.resolve("tone")
    assert target.version == 2
    assert target.digest is not None
    assert domain.disk.get(target.digest) is not None
    (engine,) = domain.engines = engines("one")
    domain.wanted = True
    await domain.attach(engine)
    assert domain.manager.staged_on(target.engine_name) == {"one"}
    domain.check()


async def test_a_bad_adapter_is_refused_all_the_same(domain: Waiting) -> None:
    operation = await domain.add("tone", domain.source("bad", rank=64))
    assert operation.failure is not None
    assert operation.failure.code == "rank_too_large"


async def test_what_names_lead_to_can_be_changed(domain: Waiting) -> None:
    await domain.add("tone", domain.source("a"))
    await domain.update("tone", domain.source("b", seed=1), promote=False)
    assert (await domain.pointers.promote("tone", 2)).live == 2
    assert (await domain.pointers.rollback("tone")).live == 1
    assert (await domain.pointers.set_canary("tone", 2, 0.5)).canary == 2
    assert (await domain.pointers.set_alias("voice", "tone", 2)).version == 2
    assert (await domain.pointers.pin("tone", Tier.GPU)).pin is Tier.GPU
    await domain.pointers.prefetch("tone", Tier.DISK)
    with pytest.raises(EngineUnavailable, match="No copy of the base is wanted"):
        await domain.pointers.prefetch("tone", Tier.CPU)


async def test_an_adapter_waits_for_a_replica_that_is_wanted(domain: Waiting) -> None:
    domain.wanted = True
    adding = asyncio.create_task(domain.add("tone", domain.source("a")))
    await until(lambda: ("tone", 1) in domain.registry.snapshot.state.versions)
    await until(lambda: domain.state("tone") is VersionState.STAGING)
    assert not adding.done()
    domain.wanted = False
    async with asyncio.timeout(20):
        assert (await adding).state is SUCCEEDED, "it waits no more where none is wanted any more"


async def test_the_last_replica_leaves_during_a_staging(domain: Waiting) -> None:
    engine = GatedEngine("one", able(8))
    engine.load_gate.clear()
    domain.engines = [engine]
    domain.wanted = True
    await domain.attach(engine)
    adding = asyncio.create_task(domain.add("tone", domain.source("a")))
    await until(lambda: engine.load_tiers)
    assert domain.manager.in_use("one")
    domain.wanted = False
    domain.manager.detach("one")
    assert not domain.manager.in_use("one")
    engine.up = False  # the call that is with it fails, as when its process ends
    engine.load_gate.set()
    async with asyncio.timeout(20):
        assert (await adding).state is SUCCEEDED
    engine.up = True
    domain.wanted = True
    await domain.attach(engine)
    domain.check()
