"""Leases, loads and evictions over all replicas."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from loramux_adapters.errors import (
    EngineFailed,
    EngineRejected,
    EngineTimeout,
    EngineUnavailable,
    QueueTimeout,
    SourceNotFound,
)
from loramux_adapters.model import Target, Tier
from tests.fakes.manager_bench import A, B, Bench, C, D, GatedEngine, Request, able, settle, target, until


@pytest.fixture
def adapter_dir(tmp_path: Path) -> Path:
    (tmp_path / "adapter_config.json").touch()
    return tmp_path


@pytest.fixture
def bench(adapter_dir: Path) -> Iterator[Bench]:
    bench = Bench(adapter_dir)
    yield bench
    bench.manager.check_integrity()


# --- leases ---


async def test_the_base_needs_no_lease(bench: Bench) -> None:
    async with bench.manager.lease(Target("base", "base"), "nowhere"):
        assert bench.manager.leases("base") == 0


async def test_a_lease_is_held_for_the_block_and_released(bench: Bench) -> None:
    engine = await bench.replica()
    async with bench.manager.lease(A, "engine-0"):
        assert A.engine_name in engine.held
        assert bench.manager.leases(A.engine_name) == 1
        assert bench.manager.in_engines() == {A.digest}
    assert bench.manager.leases(A.engine_name) == 0
    assert bench.manager.staged_on(A.engine_name) == {"engine-0"}


async def test_a_lease_is_released_on_error(bench: Bench) -> None:
    await bench.replica()
    with pytest.raises(RuntimeError, match="broken"):
        async with bench.manager.lease(A, "engine-0"):
            raise RuntimeError("broken")
    assert bench.manager.leases(A.engine_name) == 0


async def test_a_lease_is_released_on_disconnect(bench: Bench) -> None:
    await bench.replica()
    request = Request(bench, A)
    await request.entered.wait()
    request.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request.task
    assert bench.manager.leases(A.engine_name) == 0


async def test_one_task_may_hold_two_leases(bench: Bench) -> None:
    await bench.replica()
    async with bench.manager.lease(A, "engine-0"):
        await bench.use(A)
        assert bench.manager.leases(A.engine_name) == 1
    assert bench.manager.leases(A.engine_name) == 0


async def test_a_replica_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(EngineUnavailable):
        await bench.use(A, "nowhere")
    assert bench.manager.leases(A.engine_name) == 0


async def test_what_an_engine_lost_is_loaded_again(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    async with bench.manager.lease(A, "engine-0"):
        engine.held.clear()
        bench.manager.lost(A, "engine-0")
        bench.manager.check_integrity()
        await bench.use(A)
        assert A.engine_name in engine.held
    bench.manager.lost(B, "engine-0")
    bench.manager.lost(A, "nowhere")
    assert engine.calls["load"] == 2


# --- single flight ---


async def test_concurrent_cold_requests_share_one_load(bench: Bench) -> None:
    engine = await bench.replica()
    engine.load_gate.clear()
    requests = [Request(bench, A) for _ in range(20)]
    await settle()
    engine.load_gate.set()
    await asyncio.gather(*(request.finish() for request in requests))
    assert engine.calls["load"] == 1
    assert bench.observer.loads == [(Tier.DISK, Tier.GPU, "ok")]


async def test_a_waiter_that_leaves_does_not_end_the_load(bench: Bench) -> None:
    engine = await bench.replica()
    engine.load_gate.clear()
    first, second = Request(bench, A), Request(bench, A)
    await settle()
    first.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first.task
    assert bench.manager.leases(A.engine_name) == 1
    engine.load_gate.set()
    await second.finish()
    assert engine.calls["load"] == 1


async def test_a_load_that_everybody_left_ends_in_order(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    engine.load_gate.clear()
    request = Request(bench, A)
    await settle()
    request.task.cancel()
    with suppress(asyncio.CancelledError):
        await request.task
    other = Request(bench, B)
    await settle()
    engine.load_gate.set()
    await other.finish()
    assert list(engine.held) == [B.engine_name]


async def test_a_load_that_fails_fails_all_and_the_next_try_loads_again(bench: Bench) -> None:
    engine = await bench.replica()
    engine.failures[A.engine_name] = EngineRejected("no")
    engine.load_gate.clear()
    requests = [Request(bench, A) for _ in range(3)]
    await settle()
    engine.load_gate.set()
    results = await asyncio.gather(*(request.task for request in requests), return_exceptions=True)
    assert [type(result) for result in results] == [EngineRejected] * 3
    assert bench.manager.leases(A.engine_name) == 0
    assert bench.manager.in_engines() == frozenset()
    assert bench.observer.loads == [(Tier.DISK, Tier.GPU, "failed")]
    engine.failures.clear()
    await bench.use(A)
    assert engine.calls["load"] == 2


async def test_files_that_are_gone(bench: Bench) -> None:
    engine = await bench.replica()
    bench.missing.add(A.engine_name)
    with pytest.raises(SourceNotFound):
        await bench.use(A)
    assert engine.calls["load"] == 0
    assert bench.manager.in_engines() == frozenset()


async def test_a_load_that_broke_off_keeps_its_place_until_the_engine_is_asked(bench: Bench) -> None:
    """It may have arrived after all: the place is not given away before the engine has said that it is free."""
    engine = await bench.replica(places=1)
    engine.failures[A.engine_name] = EngineTimeout("who knows")
    with pytest.raises(EngineTimeout):
        await bench.use(A)
    assert bench.manager.staged_on(A.engine_name) == frozenset()
    engine.held[A.engine_name] = "it did arrive"
    await bench.use(B)
    assert list(engine.held) == [B.engine_name]
    assert engine.calls[f"evict:{A.engine_name}"] == 1


async def test_an_eviction_that_broke_off_is_not_taken_for_granted(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    await bench.use(A)
    engine.evict_failures[A.engine_name] = EngineTimeout("who knows")
    with pytest.raises(EngineTimeout):
        await bench.use(B)
    assert bench.manager.staged_on(A.engine_name) == frozenset()
    engine.evict_failures.clear()
    await bench.use(A)
    assert engine.calls[f"load:{A.engine_name}"] == 2


# --- room ---


async def test_the_least_recently_used_makes_room(bench: Bench) -> None:
    engine = await bench.replica(places=2)
    for each in (A, B, A, C):
        bench.clock.advance(1)
        await bench.use(each)
    assert set(engine.held) == {A.engine_name, C.engine_name}
    assert bench.observer.left(Tier.CPU) == ["lru"]


async def test_the_pinned_stays(bench: Bench) -> None:
    engine = await bench.replica(places=2)
    bench.pins = {A.engine_name: Tier.CPU}
    for each in (A, B, C, D):
        bench.clock.advance(1)
        await bench.use(each)
    assert set(engine.held) == {A.engine_name, D.engine_name}


async def test_more_cold_adapters_than_places_at_once(bench: Bench) -> None:
    """All begin to load at the same moment: none may count on another's place, and all get their turn."""
    engine = await bench.replica(places=2)
    engine.delay_s = 0.001
    targets = [target(f"t{number}") for number in range(12)]
    async with asyncio.timeout(10):
        await asyncio.gather(*(bench.use(each) for each in targets))
    assert engine.calls["load"] == 12
    assert len(engine.held) == 2


async def test_room_is_given_in_the_order_of_arrival(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    holder = Request(bench, A)
    await holder.entered.wait()
    order: list[str] = []

    async def use(each: Target) -> None:
        async with bench.manager.lease(each, "engine-0"):
            order.append(each.adapter)

    waiting = []
    for each in (D, B, C):
        waiting.append(asyncio.create_task(use(each)))
        await settle()
    await holder.finish()
    await asyncio.gather(*waiting)
    assert order == ["d", "b", "c"]
    assert engine.most_loading == 1


async def test_a_warm_adapter_does_not_wait_for_cold_ones(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    holder = Request(bench, A)
    await holder.entered.wait()
    cold = Request(bench, B)
    await settle()
    async with asyncio.timeout(1):
        await bench.use(A)
    assert not cold.entered.is_set()
    await holder.finish()
    await cold.finish()
    assert list(engine.held) == [B.engine_name]


async def test_no_room_in_time(adapter_dir: Path) -> None:
    bench = Bench(adapter_dir, room_timeout_s=0.05)
    await bench.replica(places=1)
    holder = Request(bench, A)
    await holder.entered.wait()
    results = await asyncio.gather(bench.use(B), bench.use(C), bench.use(D), return_exceptions=True)
    assert [type(result) for result in results] == [QueueTimeout] * 3
    await holder.finish()
    await bench.use(B)


async def test_a_lease_that_comes_during_the_eviction_loads_again(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    await bench.use(A)
    engine.evict_gate.clear()
    cold = Request(bench, B)
    await settle()
    assert bench.manager.staged_on(A.engine_name) == frozenset()
    back = Request(bench, A)
    await settle()
    engine.evict_gate.set()
    await cold.entered.wait()
    assert not back.entered.is_set()
    await cold.finish()
    await back.finish()
    assert list(engine.held) == [A.engine_name]


async def test_a_victim_that_is_leased_meanwhile_stays(bench: Bench) -> None:
    """Two loads choose the same victim; the second one looks again."""
    engine = await bench.replica(places=2)
    await bench.use(A)
    bench.clock.advance(1)
    await bench.use(B)
    engine.evict_gate.clear()
    cold = [Request(bench, C), Request(bench, D)]
    await settle()
    async with bench.manager.lease(B, "engine-0"):
        engine.evict_gate.set()
        await until(lambda: cold[0].entered.is_set())
        assert B.engine_name in engine.held
        assert not cold[1].entered.is_set()
        assert len(engine.held) == 2
    await asyncio.gather(*(request.finish() for request in cold))


async def test_versions_of_the_same_content_share_a_place(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    again = Target(A.adapter, A.engine_name, 2, A.digest)
    async with bench.manager.lease(A, "engine-0"), bench.manager.lease(again, "engine-0"):
        assert bench.manager.leases(A.engine_name) == 2
    assert engine.calls["load"] == 1


# --- staging everywhere ---


async def test_staging_goes_to_every_replica(bench: Bench) -> None:
    await bench.replica("one")
    await bench.replica("two")
    await bench.stage(A)
    assert bench.manager.staged_on(A.engine_name) == {"one", "two"}


async def test_staging_without_replicas(bench: Bench) -> None:
    with pytest.raises(EngineUnavailable):
        await bench.stage(A)


async def test_a_replica_that_dies_while_it_stages_is_left_out(bench: Bench) -> None:
    await bench.replica("one")
    two = await bench.replica("two")
    two.load_gate.clear()
    staging = asyncio.create_task(bench.stage(A))
    await settle()
    two.up = False
    bench.manager.detach("two")
    two.load_gate.set()
    await staging
    assert bench.manager.staged_on(A.engine_name) == {"one"}


async def test_a_replica_that_does_not_answer_but_stays_fails_the_staging(bench: Bench) -> None:
    await bench.replica("one")
    two = await bench.replica("two")
    two.up = False
    with pytest.raises(EngineUnavailable):
        await bench.stage(A)
    two.up = True
    await bench.stage(A)


async def test_all_replicas_die(bench: Bench) -> None:
    one = await bench.replica("one")
    one.load_gate.clear()
    staging = asyncio.create_task(bench.stage(A))
    await settle()
    one.up = False
    bench.manager.detach("one")
    one.load_gate.set()
    with pytest.raises(EngineUnavailable):
        await staging


async def test_what_is_held_stays_staged(bench: Bench) -> None:
    """Between staging and the move of the pointer nothing may take it away again."""
    await bench.replica(places=1)
    async with bench.manager.hold(A):
        bench.clock.advance(1000)
        retiring = asyncio.create_task(bench.manager.retire(A.engine_name, "replaced", lambda: False))
        await bench.manager.sweep(frozenset, 1.0)
        cold = Request(bench, B)
        await settle()
        assert bench.manager.staged_on(A.engine_name) == {"engine-0"}
    assert await retiring
    await cold.finish()


async def test_a_replica_that_joins_stages_what_is_held(bench: Bench) -> None:
    await bench.replica("one")
    async with bench.manager.hold(A):
        await bench.replica("two")
        assert bench.manager.staged_on(A.engine_name) == {"one", "two"}


async def test_a_replica_that_joins_while_staging_goes_on(bench: Bench) -> None:
    one = await bench.replica("one")
    one.load_gate.clear()
    staging = asyncio.create_task(bench.stage(A))
    await settle()
    await bench.replica("two")
    one.load_gate.set()
    await staging
    assert bench.manager.staged_on(A.engine_name) == {"one", "two"}


async def test_staging_that_is_given_up_holds_nothing(bench: Bench) -> None:
    engine = await bench.replica()
    engine.load_gate.clear()
    staging = asyncio.create_task(bench.stage(A))
    await settle()
    staging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await staging
    engine.load_gate.set()
    assert await bench.manager.retire(A.engine_name, "replaced", lambda: False)
    assert engine.held == {}


# --- retiring ---


async def test_retiring_frees_every_replica(bench: Bench) -> None:
    engines = [await bench.replica("one"), await bench.replica("two")]
    await bench.stage(A)
    assert await bench.manager.retire(A.engine_name, "replaced", lambda: False)
    assert [engine.held for engine in engines] == [{}, {}]
    assert bench.observer.left(Tier.CPU) == ["replaced"] * 2
    assert bench.manager.in_engines() == frozenset()


async def test_retiring_waits_for_requests(bench: Bench) -> None:
    engines = [await bench.replica("one"), await bench.replica("two")]
    await bench.stage(A)
    requests = [Request(bench, A, "one"), Request(bench, A, "two")]
    await settle()
    retiring = asyncio.create_task(bench.manager.retire(A.engine_name, "replaced", lambda: False))
    await settle()
    await requests[0].finish()
    await settle()
    assert not retiring.done()
    assert all(A.engine_name in engine.held for engine in engines)
    await requests[1].finish()
    assert await retiring


async def test_retiring_gives_up_what_is_wanted_again(bench: Bench) -> None:
    await bench.replica()
    wanted = False
    request = Request(bench, A)
    await request.entered.wait()
    retiring = asyncio.create_task(bench.manager.retire(A.engine_name, "replaced", lambda: wanted))
    await settle()
    wanted = True
    await request.finish()
    assert not await retiring
    assert bench.manager.staged_on(A.engine_name) == {"engine-0"}


async def test_a_request_that_comes_between_two_evictions_is_waited_for(bench: Bench) -> None:
    one = await bench.replica("one")
    await bench.replica("two")
    await bench.stage(A)
    one.evict_gate.clear()
    retiring = asyncio.create_task(bench.manager.retire(A.engine_name, "replaced", lambda: False))
    await settle()
    request = Request(bench, A, "two")
    await request.entered.wait()
    one.evict_gate.set()
    await settle()
    assert bench.manager.staged_on(A.engine_name) == {"two"}
    await request.finish()
    assert await retiring


async def test_a_replaced_version_never_ends_its_requests(adapter_dir: Path) -> None:
    bench = Bench(adapter_dir, drain_timeout_s=0.0)
    await bench.replica()
    request = Request(bench, A)
    await request.entered.wait()
    retiring = asyncio.create_task(bench.manager.retire(A.engine_name, "replaced", lambda: False))
    await settle()
    assert not request.task.done()
    await request.finish()
    assert await retiring


async def test_a_deleted_version_ends_requests_that_outlast_the_drain(adapter_dir: Path) -> None:
    bench = Bench(adapter_dir, drain_timeout_s=0.05)
    engine = await bench.replica()
    request = Request(bench, A)
    await request.entered.wait()
    assert await bench.manager.retire(A.engine_name, "deleted", lambda: False, end_requests=True)
    assert request.task.cancelled()
    assert engine.held == {}


async def test_a_request_is_told_to_end_once(adapter_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loramux_adapters.residency.retiring._LOOK_AGAIN_S", 0.001)
    bench = Bench(adapter_dir, drain_timeout_s=0.0)
    await bench.replica()
    told = looks = 0
    cleaned = asyncio.Event()

    async def slow_to_leave() -> None:
        nonlocal told
        async with bench.manager.lease(A, "engine-0"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told += 1
                await cleaned.wait()

    task = asyncio.create_task(slow_to_leave())
    await until(lambda: bench.manager.staged_on(A.engine_name))

    def look() -> bool:
        nonlocal looks
        looks += 1
        return False

    retiring = asyncio.create_task(bench.manager.retire(A.engine_name, "deleted", look, end_requests=True))
    await until(lambda: looks > 5)
    assert told == 1
    cleaned.set()
    await task
    assert await retiring


async def test_retiring_passes_over_a_replica_that_does_not_answer(bench: Bench) -> None:
    one, two = await bench.replica("one"), await bench.replica("two")
    await bench.stage(A)
    one.up = False
    async with asyncio.timeout(1):
        assert await bench.manager.retire(A.engine_name, "deleted", lambda: False)
    assert two.held == {}
    assert bench.manager.staged_on(A.engine_name) == frozenset()
    one.up = True
    bench.clock.advance(10)
    await bench.manager.sweep(frozenset, 5.0)
    assert one.held == {}


async def test_retiring_waits_for_requests_on_a_replica_that_is_leaving(bench: Bench) -> None:
    await bench.replica()
    request = Request(bench, A)
    await request.entered.wait()
    bench.manager.detach("engine-0")
    retiring = asyncio.create_task(bench.manager.retire(A.engine_name, "deleted", lambda: False))
    await settle()
    assert not retiring.done()
    await request.finish()
    assert await retiring


async def test_retiring_what_nobody_holds(bench: Bench) -> None:
    assert await bench.manager.retire("nothing@0", "replaced", lambda: False)
    assert not await bench.manager.retire("nothing@0", "replaced", lambda: True)


# --- sweeping ---


async def test_the_sweep_frees_what_is_idle_and_unwanted(bench: Bench) -> None:
    engine = await bench.replica()
    for each in (A, B):
        await bench.use(each)
    bench.clock.advance(10)
    await bench.use(C)
    async with bench.manager.lease(D, "engine-0"):
        bench.clock.advance(5)
        await bench.manager.sweep(lambda: frozenset({A.engine_name}), 10.0)
    assert set(engine.held) == {A.engine_name, C.engine_name, D.engine_name}
    assert bench.observer.left(Tier.CPU) == ["idle"]


async def test_a_replica_that_does_not_answer_does_not_end_the_sweep(bench: Bench) -> None:
    one, two = await bench.replica("one"), await bench.replica("two")
    await bench.stage(A)
    bench.clock.advance(10)
    one.up = False
    await bench.manager.sweep(frozenset, 1.0)
    assert two.held == {}


# --- replicas come and go ---


async def test_attaching_reconciles(bench: Bench) -> None:
    engine = GatedEngine("engine-0", able(2))
    engine.held = {A.engine_name: "x", "stranger@1": "y", B.engine_name: "z"}
    bench.known = {each.engine_name: each for each in (A, B, C)}
    await bench.attach(engine)
    assert set(engine.held) == {A.engine_name, B.engine_name}
    await bench.use(A)
    assert engine.calls["load"] == 0


async def test_an_engine_that_holds_more_than_its_places(bench: Bench) -> None:
    engine = GatedEngine("engine-0", able(1))
    engine.held = {A.engine_name: "x", B.engine_name: "z"}
    bench.known = {each.engine_name: each for each in (A, B)}
    bench.first = (B,)
    await bench.attach(engine)
    assert set(engine.held) == {B.engine_name}
    assert engine.calls["load"] == 0


async def test_attaching_stages_what_comes_first_as_far_as_there_are_places(bench: Bench) -> None:
    engine = GatedEngine("engine-0", able(2))
    engine.held = {D.engine_name: "x"}
    bench.known = {each.engine_name: each for each in (A, B, C, D)}
    bench.first = (A, B, C)
    await bench.attach(engine)
    assert set(engine.held) == {A.engine_name, B.engine_name}
    assert engine.calls["load"] == 2


async def test_a_name_that_moves_while_a_replica_is_made_ready(bench: Bench) -> None:
    engine = GatedEngine("engine-0", able(2))
    engine.load_gate.clear()
    bench.first = (A,)
    attaching = asyncio.create_task(bench.attach(engine))
    await settle()
    bench.first = (B,)
    engine.load_gate.set()
    await attaching
    assert B.engine_name in engine.held


async def test_an_adapter_that_does_not_load_does_not_keep_a_replica_out(bench: Bench) -> None:
    engine = GatedEngine("engine-0", able(3))
    engine.failures[A.engine_name] = EngineRejected("no")
    bench.missing.add(B.engine_name)
    bench.first = (A, B, C)
    await bench.attach(engine)
    assert set(engine.held) == {C.engine_name}


@pytest.mark.parametrize("error", [EngineUnavailable("gone"), EngineTimeout("slow"), EngineFailed("rubbish")])
async def test_an_engine_that_fails_while_it_is_attached_stays_out(
    bench: Bench, error: EngineUnavailable | EngineTimeout | EngineFailed
) -> None:
    engine = GatedEngine("engine-0", able(3))
    engine.failures[A.engine_name] = error
    bench.first = (A,)
    with pytest.raises(type(error)):
        await bench.attach(engine)
    assert bench.manager.replicas == frozenset()


async def test_detaching_ends_the_wait_for_room(bench: Bench) -> None:
    await bench.replica(places=1)
    holder = Request(bench, A)
    await holder.entered.wait()
    waiting = [Request(bench, B), Request(bench, C)]
    await settle()
    bench.manager.detach("engine-0")
    async with asyncio.timeout(1):
        results = await asyncio.gather(*(request.task for request in waiting), return_exceptions=True)
    assert [type(result) for result in results] == [EngineUnavailable] * 2
    await holder.finish()
    assert bench.manager.replicas == frozenset()
    bench.manager.detach("engine-0")


async def test_a_replica_that_comes_back_starts_with_new_books(bench: Bench) -> None:
    engine = await bench.replica()
    request = Request(bench, A)
    await request.entered.wait()
    engine.restart()
    await bench.attach(engine)
    assert bench.manager.staged_on(A.engine_name) == frozenset()
    await request.finish()
    await bench.use(A)
    assert engine.calls["load"] == 2


async def test_what_engines_say_of_themselves(bench: Bench) -> None:
    await bench.replica("one")
    two = await bench.replica("two")
    await bench.stage(A)
    two.up = False
    assert {
        replica: [each.engine_name for each in found] for replica, found in (await bench.manager.residents()).items()
    } == {"one": [A.engine_name]}


async def test_a_request_that_outlives_its_replicas_absence_is_still_counted(bench: Bench) -> None:
    """A health check failed, but the process did not: what the request runs on may not be freed under it."""
    engine = await bench.replica(places=1)
    request = Request(bench, A)
    await request.entered.wait()
    bench.manager.detach("engine-0")
    bench.first = (B,)
    attaching = asyncio.create_task(bench.attach(engine))
    await settle()
    assert list(engine.held) == [A.engine_name]
    await request.finish()
    await attaching
    assert list(engine.held) == [B.engine_name]


async def test_a_replica_comes_back_when_old_calls_to_it_have_ended(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    engine.load_gate.clear()
    request = Request(bench, A)
    await settle()
    bench.manager.detach("engine-0")
    attaching = asyncio.create_task(bench.attach(engine))
    await settle()
    assert not attaching.done()
    engine.load_gate.set()
    await attaching
    with pytest.raises(EngineUnavailable):
        await request.task
    await bench.use(B)
    assert list(engine.held) == [B.engine_name]


async def test_a_refusal_after_a_load_that_broke_off_says_nothing_of_its_place(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    for error in (EngineTimeout("who knows"), EngineRejected("no")):
        engine.failures[A.engine_name] = error
        with pytest.raises(type(error)):
            await bench.use(A)
    engine.held[A.engine_name] = "it did arrive"
    await bench.use(B)
    assert list(engine.held) == [B.engine_name]


# --- closing ---


async def test_closing_ends_loads(bench: Bench) -> None:
    engine = await bench.replica()
    engine.load_gate.clear()
    requests = [Request(bench, A), Request(bench, B)]
    await settle()
    await bench.manager.close()
    results = await asyncio.gather(*(request.task for request in requests), return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    assert bench.manager.leases(A.engine_name) == 0


async def test_closing_ends_loads_that_have_not_begun(bench: Bench) -> None:
    await bench.replica()
    async with AsyncExitStack() as stack:
        entering = asyncio.create_task(stack.enter_async_context(bench.manager.lease(A, "engine-0")))
        await asyncio.sleep(0)
        await bench.manager.close()
        with pytest.raises(asyncio.CancelledError):
            await entering
    await bench.use(A)
