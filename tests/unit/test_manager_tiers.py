"""Slots and host memory, pins, reports and prefetch, over engines in memory."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from loramux_adapters.errors import EngineRejected, EngineTimeout, EngineUnavailable, QueueTimeout
from loramux_adapters.model import Resident, Target, Tier
from tests.fakes.manager_bench import A, B, Bench, C, D, GatedEngine, Request, able, refreshed, settle, target, until

LARGE = 5000
"""More than the bench leaves to the engine's step."""


@pytest.fixture
def adapter_dir(tmp_path: Path) -> Path:
    (tmp_path / "adapter_config.json").touch()
    return tmp_path


@pytest.fixture
def bench(adapter_dir: Path) -> Iterator[Bench]:
    bench = Bench(adapter_dir)
    yield bench
    bench.manager.check_integrity()


async def large(bench: Bench, *targets: Target, places: int = 4, slots: int = 1) -> GatedEngine:
    """A replica on which the targets are large, and in host memory, the last ones in slots."""
    engine = await bench.replica(places=places, slots=slots)
    engine.sizes = {each.engine_name: LARGE for each in (A, B, C, D)}
    for each in targets:
        bench.clock.advance(1)
        await bench.use(each)
    await settle()
    engine.calls.clear()
    return engine


LIVE = {each.engine_name: each for each in (A, B, C, D)}


# --- requests ---


async def test_a_cold_request_loads_straight_into_a_slot(bench: Bench) -> None:
    engine = await bench.replica(slots=2)
    await bench.use(A)
    await bench.use(B)
    async with bench.manager.lease(A, "engine-0"):
        await bench.use(C)
        assert engine.slots == [A.engine_name, C.engine_name]
        assert bench.manager.tiers_on(B.engine_name) == {"engine-0": Tier.CPU}
        assert bench.manager.tiers_on(C.engine_name) == {"engine-0": Tier.GPU}
    assert engine.calls["activate"] == 0
    assert bench.observer.loads == [(Tier.DISK, Tier.GPU, "ok")] * 3
    assert bench.observer.evictions == [(Tier.GPU, "lru")]


async def test_a_cold_request_goes_without_a_slot_where_all_are_in_use(bench: Bench) -> None:
    engine = await bench.replica()
    async with bench.manager.lease(A, "engine-0"):
        await bench.use(B)
    assert engine.load_tiers == {A.engine_name: Tier.GPU, B.engine_name: Tier.CPU}
    assert bench.observer.loads == [(Tier.DISK, Tier.GPU, "ok"), (Tier.DISK, Tier.CPU, "ok")]


async def test_a_small_one_is_left_to_the_engine(bench: Bench) -> None:
    engine = await bench.replica()
    await bench.use(A)
    await bench.use(B)
    assert bench.manager.staged(A, "engine-0")
    await bench.use(A)
    assert engine.calls["activate"] == 0
    assert engine.calls["load"] == 2


async def test_a_large_one_is_in_a_slot_before_its_request_goes(bench: Bench) -> None:
    engine = await large(bench, A, B)
    engine.activate_gate.clear()
    assert not bench.manager.staged(A, "engine-0")
    requests = [Request(bench, A) for _ in range(5)]
    await settle()
    assert not bench.manager.staged(A, "engine-0")
    assert not any(request.entered.is_set() for request in requests)
    engine.activate_gate.set()
    await requests[0].entered.wait()
    assert engine.slots == [A.engine_name]
    assert bench.manager.staged(A, "engine-0")
    await asyncio.gather(*(request.finish() for request in requests))
    assert engine.calls["activate"] == 1
    assert bench.observer.loads[-1] == (Tier.CPU, Tier.GPU, "ok")


async def test_staging_a_large_one_makes_it_ready(bench: Bench) -> None:
    engine = await large(bench, A, B)
    await bench.manager.stage(A, "engine-0")
    assert bench.manager.staged(A, "engine-0")
    assert engine.calls["activate"] == 1


async def test_a_large_one_does_not_wait_where_all_slots_are_in_use(bench: Bench) -> None:
    engine = await large(bench, A, B)
    async with bench.manager.lease(B, "engine-0"):
        assert bench.manager.staged(A, "engine-0")
        await bench.use(A)
    assert engine.calls["activate"] == 0
    assert not bench.manager.staged(A, "engine-0"), "there is a slot to be had again"


async def test_a_slot_that_the_engine_does_not_give_keeps_no_request(bench: Bench) -> None:
    engine = await large(bench, A, B)
    engine.running[B.engine_name] = 1  # what the gateway does not know
    await bench.use(A)
    assert engine.calls["activate"] == 1
    await settle()
    assert bench.manager.tiers_on(A.engine_name) == {"engine-0": Tier.CPU}
    assert bench.manager.tiers_on(B.engine_name) == {"engine-0": Tier.GPU}, "as the engine reports it"
    assert (Tier.CPU, Tier.GPU, "ok") not in bench.observer.loads


async def test_what_the_engine_lost_before_its_way_into_a_slot_is_loaded_again(bench: Bench) -> None:
    engine = await large(bench, A, B)
    del engine.held[A.engine_name]
    await bench.use(A)
    assert engine.calls["load"] == 1
    assert engine.slots == [A.engine_name]


async def test_a_way_into_a_slot_that_breaks_off_keeps_no_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await large(bench, A, B)

    async def broken(*_: object, **__: object) -> bool:
        raise EngineTimeout("who knows")

    monkeypatch.setattr(engine, "activate", broken)
    await bench.use(A)
    assert bench.observer.loads[-1] == (Tier.CPU, Tier.GPU, "failed")


async def test_the_slot_of_what_is_in_least_demand_is_taken(bench: Bench) -> None:
    engine = await large(bench, A, B, B, C, slots=2)
    assert set(engine.slots) == {B.engine_name, C.engine_name}
    await bench.use(A)
    assert set(engine.slots) == {A.engine_name, B.engine_name}


async def test_demand_keeps_what_is_often_asked_for_in_host_memory(bench: Bench) -> None:
    engine = await bench.replica(places=2)
    for each in (A, A, A, B, C, D):
        bench.clock.advance(1)
        await bench.use(each)
    assert set(engine.held) == {A.engine_name, D.engine_name}
    rates = [bench.manager.demand(name) for name in (A.engine_name, D.engine_name, "nobody@0")]
    assert rates[0] > rates[1] > rates[2] == 0.0


async def test_a_version_that_becomes_live_has_its_adapters_demand(bench: Bench) -> None:
    engine = await bench.replica(places=2)
    for each in (A, A, A, B):
        await bench.use(each)
    newer = target("a", 2)
    async with bench.manager.hold(newer):
        pass
    assert bench.manager.demand(newer.engine_name) == bench.manager.demand(A.engine_name) > 0
    bench.clock.advance(600)  # nobody calls the older one any more
    for each in (newer, C):
        await bench.use(each)
    assert set(engine.held) == {newer.engine_name, C.engine_name}


async def test_an_engine_without_staging_is_not_told_about_slots(bench: Bench) -> None:
    engine = await bench.replica(staging=False)
    bench.pins = {A.engine_name: Tier.GPU}
    engine.sizes = {each.engine_name: LARGE for each in (A, B)}
    for each in (A, B, A):
        await bench.use(each)
    await bench.manager.prefetch(B, Tier.GPU)
    await bench.manager.pin(A, Tier.GPU)
    await refreshed(bench.manager)
    assert engine.calls["activate"] == engine.calls["pin"] == 0
    assert bench.manager.tiers_on(A.engine_name) == {"engine-0": Tier.CPU}
    assert bench.observer.loads == [(Tier.DISK, Tier.GPU, "ok")] * 2


# --- what will be asked for ---


async def test_what_is_foreseen_is_on_its_way_when_the_request_comes(bench: Bench) -> None:
    engine = await bench.replica()
    engine.load_gate.clear()
    bench.manager.foresee(A, "engine-0")
    bench.manager.foresee(A, "engine-0")
    await settle()
    assert bench.manager.leases(A.engine_name) == 0
    request = Request(bench, A)
    await settle()
    engine.load_gate.set()
    await request.finish()
    assert engine.calls["load"] == 1


async def test_what_is_foreseen_takes_no_slot(bench: Bench) -> None:
    engine = await bench.replica(slots=2)
    bench.manager.foresee(A, "engine-0")
    await until(lambda: bench.manager.staged_on(A.engine_name))
    assert engine.slots == []
    assert bench.observer.loads == [(Tier.DISK, Tier.CPU, "ok")]


async def test_foreseeing_never_raises(bench: Bench) -> None:
    bench.manager.foresee(A, "nowhere")
    engine = await bench.replica()
    bench.manager.foresee(Target("base", "base"), "engine-0")
    engine.failures[A.engine_name] = EngineRejected("no")
    bench.missing.add(B.engine_name)
    bench.manager.foresee(A, "engine-0")
    bench.manager.foresee(B, "engine-0")
    await until(lambda: len(bench.observer.loads) == 2)
    assert bench.manager.in_engines() == frozenset()


async def test_what_is_foreseen_waits_for_no_room(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    async with bench.manager.lease(A, "engine-0"):
        bench.manager.foresee(B, "engine-0")
        await settle()
    await settle()
    assert list(engine.held) == [A.engine_name]


async def test_what_is_foreseen_is_not_pushed_out_by_what_is_foreseen_next(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    bench.manager.foresee(A, "engine-0")
    await until(lambda: bench.manager.staged_on(A.engine_name))
    bench.manager.foresee(B, "engine-0")
    await settle()
    assert list(engine.held) == [A.engine_name]
    await bench.use(C)
    assert list(engine.held) == [C.engine_name], "a request is not kept waiting by it"


async def test_a_request_that_joins_makes_a_foreseen_load_wait_for_room(bench: Bench) -> None:
    engine = await bench.replica(places=1)
    await bench.use(A)
    engine.evict_gate.clear()
    bench.manager.foresee(B, "engine-0")
    await settle()
    cold, joined = Request(bench, C), Request(bench, B)
    await settle()
    engine.evict_gate.set()
    await asyncio.gather(cold.finish(), joined.finish())
    assert engine.calls[f"load:{B.engine_name}"] == engine.calls[f"load:{C.engine_name}"] == 1


async def test_retiring_waits_for_a_load_that_nobody_waits_for(bench: Bench) -> None:
    engine = await bench.replica()
    bench.manager.foresee(A, "engine-0")
    assert await bench.manager.retire(A.engine_name, "deleted", lambda: False)
    await settle()
    assert engine.held == {}


# --- reports ---


async def test_reports_follow_every_move(bench: Bench) -> None:
    engine = await bench.replica()
    assert bench.manager.reports()["engine-0"].residents == ()
    bench.clock.advance(5)
    await bench.use(A)
    await settle()
    report = bench.manager.reports()["engine-0"]
    assert report.at == bench.clock.now()
    assert report.residents == tuple(await engine.residents())
    assert [(each.engine_name, each.tier) for each in report.residents] == [(A.engine_name, Tier.GPU)]
    assert bench.manager.capabilities() == {"engine-0": engine.able}


async def test_who_moved_something_finds_it_in_the_report(bench: Bench) -> None:
    await bench.replica(slots=2)

    def shown() -> dict[str, Tier]:
        return {each.engine_name: each.tier for each in bench.manager.reports()["engine-0"].residents}

    await bench.manager.prefetch(A, Tier.CPU)
    assert shown() == {A.engine_name: Tier.CPU}
    await bench.manager.pin(A, Tier.GPU)
    assert shown() == {A.engine_name: Tier.GPU}
    async with bench.manager.hold(B):
        assert shown()[B.engine_name] is Tier.GPU
    await bench.manager.retire(B.engine_name, "replaced", lambda: False)
    assert shown() == {A.engine_name: Tier.GPU}


async def test_a_report_that_does_not_come_keeps_nobody_for_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loramux_adapters.residency.reports._CATCH_UP_S", 0.01)
    engine = await bench.replica()
    never = asyncio.Event()
    monkeypatch.setattr(engine, "residents", never.wait)
    async with asyncio.timeout(5):
        await bench.manager.prefetch(A, Tier.CPU)
    assert bench.manager.staged(A, "engine-0")
    await bench.manager.close()


async def test_an_engine_that_does_not_answer_keeps_its_last_report(bench: Bench) -> None:
    engine = await bench.replica()
    before = bench.manager.reports()["engine-0"]
    bench.clock.advance(60)
    engine.up = False
    await refreshed(bench.manager)
    assert bench.manager.reports() == {"engine-0": before}
    bench.manager.detach("engine-0")
    assert bench.manager.reports() == {}


async def test_asking_now_is_a_report_too(bench: Bench) -> None:
    engine = await bench.replica()
    engine.held["stranger@1"] = "x"
    found = await bench.manager.residents()
    assert found == {"engine-0": (Resident("stranger@1", Tier.CPU, "x", size_bytes=1),)}
    assert bench.manager.reports()["engine-0"].residents == found["engine-0"]


async def test_the_report_wins_over_the_books(bench: Bench) -> None:
    engine = await large(bench, A, B)
    engine.slots[:] = [A.engine_name]  # the engine's own doing
    await refreshed(bench.manager)
    assert bench.manager.tiers_on(A.engine_name) == {"engine-0": Tier.GPU}
    assert bench.manager.tiers_on(B.engine_name) == {"engine-0": Tier.CPU}
    await bench.use(A)
    assert engine.calls["activate"] == 0
    engine.dropped.add(B.engine_name)
    del engine.held[A.engine_name]
    await refreshed(bench.manager)
    assert bench.manager.tiers_on(A.engine_name) == bench.manager.tiers_on(B.engine_name) == {}
    await bench.use(B)
    assert engine.calls[f"load:{B.engine_name}"] == 1


async def test_a_report_from_before_a_move_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await bench.replica()
    answer, asked = asyncio.Event(), asyncio.Event()
    residents = engine.residents

    async def slow() -> object:
        found = await residents()
        asked.set()
        await answer.wait()
        return found

    monkeypatch.setattr(engine, "residents", slow)
    asking = asyncio.create_task(refreshed(bench.manager))
    await asked.wait()
    await bench.use(A)
    answer.set()
    await asking
    assert bench.manager.staged(A, "engine-0")
    assert bench.manager.tiers_on(A.engine_name) == {"engine-0": Tier.GPU}


async def test_one_refresh_of_a_slow_engine_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = await bench.replica("slow"), await bench.replica("quick")
    answer = asyncio.Event()

    async def hang() -> tuple[Resident, ...]:
        slow.calls["hang"] += 1
        await answer.wait()
        return ()

    monkeypatch.setattr(slow, "residents", hang)
    quick.calls.clear()
    for _ in range(3):
        bench.manager.refresh_soon()
        await settle()
    assert (slow.calls["hang"], quick.calls["residents"]) == (1, 3)
    answer.set()
    await settle()


# --- pins ---


async def test_a_pin_moves_up_and_stays_in_the_engine(bench: Bench) -> None:
    engine = await bench.replica(slots=2)
    bench.pins = {A.engine_name: Tier.GPU, B.engine_name: Tier.CPU}
    await bench.manager.pin(A, Tier.GPU)
    await bench.manager.pin(B, Tier.CPU)
    assert engine.pins == {A.engine_name: Tier.GPU, B.engine_name: Tier.CPU}
    for each in (C, D, C, D):
        await bench.use(each)
    assert A.engine_name in engine.slots
    assert set(engine.held) >= {A.engine_name, B.engine_name}
    bench.pins = {B.engine_name: Tier.CPU}
    await bench.manager.repin()
    assert engine.pins == {B.engine_name: Tier.CPU}


async def test_pins_survive_the_engine(bench: Bench) -> None:
    engine = await bench.replica(slots=2)
    bench.pins = {A.engine_name: Tier.GPU, B.engine_name: Tier.CPU}
    bench.first = (A, B)
    engine.restart()
    await bench.attach(engine)
    assert engine.pins == bench.pins
    assert A.engine_name in engine.slots


async def test_pins_that_are_no_more_are_undone_when_a_replica_joins(bench: Bench) -> None:
    engine = GatedEngine("engine-0", able(4, 2))
    engine.held = {A.engine_name: "x", B.engine_name: "y"}
    engine.slots = [A.engine_name]
    engine.pins = {A.engine_name: Tier.GPU}
    bench.known = {each.engine_name: each for each in (A, B)}
    bench.pins = {B.engine_name: Tier.GPU}
    await bench.attach(engine)
    assert engine.pins == bench.pins


async def test_a_pin_that_finds_no_slot_gets_one_later(bench: Bench) -> None:
    engine = await bench.replica(slots=2)
    requests = [Request(bench, each) for each in (A, B)]
    await until(lambda: all(request.entered.is_set() for request in requests))
    bench.pins = {C.engine_name: Tier.GPU}
    pinning = asyncio.create_task(bench.manager.pin(C, Tier.GPU))
    await until(lambda: engine.held.get(C.engine_name))
    await bench.manager.repin()
    assert engine.pins == {C.engine_name: Tier.CPU}
    for request in requests:
        await request.finish()
    await pinning
    assert engine.pins == bench.pins


async def test_how_many_may_be_pinned_in_slots(bench: Bench) -> None:
    assert bench.manager.most_gpu_pins() is None
    await bench.replica("one", slots=4)
    await bench.replica("two", slots=2)
    assert bench.manager.most_gpu_pins() == 1


async def test_a_pin_that_an_engine_refuses_does_not_keep_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await bench.replica(slots=2)
    pin = engine.pin

    async def refusing(name: str, tier: Tier) -> None:
        if name == A.engine_name:
            raise EngineRejected("no")
        await pin(name, tier)

    monkeypatch.setattr(engine, "pin", refusing)
    bench.pins = {A.engine_name: Tier.CPU, B.engine_name: Tier.CPU}
    for each in (A, B):
        await bench.manager.pin(each, Tier.CPU)
    assert engine.pins == {B.engine_name: Tier.CPU}


# --- prefetch ---


async def test_prefetching_into_host_memory_and_into_slots_everywhere(bench: Bench) -> None:
    engines = [await bench.replica(name, slots=2) for name in ("one", "two")]
    await bench.manager.prefetch(A, Tier.CPU)
    assert [engine.slots for engine in engines] == [[], []]
    await bench.manager.prefetch(A, Tier.GPU)
    assert [engine.slots for engine in engines] == [[A.engine_name]] * 2
    await bench.manager.prefetch(B, Tier.GPU)
    assert [engine.slots for engine in engines] == [[A.engine_name, B.engine_name]] * 2


async def test_prefetching_without_replicas(bench: Bench) -> None:
    with pytest.raises(EngineUnavailable):
        await bench.manager.prefetch(A, Tier.GPU)


async def test_prefetching_into_a_slot_waits_for_one(adapter_dir: Path) -> None:
    bench = Bench(adapter_dir, room_timeout_s=0.05)
    engine = await bench.replica()
    holder = Request(bench, A)
    await holder.entered.wait()
    with pytest.raises(QueueTimeout, match="slot"):
        await bench.manager.prefetch(B, Tier.GPU)
    waiting = asyncio.create_task(bench.manager.prefetch(B, Tier.GPU))
    await settle()
    await holder.finish()
    await waiting
    assert engine.slots == [B.engine_name]


async def test_an_engine_that_gives_no_slot_in_time(adapter_dir: Path) -> None:
    bench = Bench(adapter_dir, room_timeout_s=0.15)
    engine = await bench.replica()
    await bench.use(A)
    engine.running[A.engine_name] = 1
    with pytest.raises(QueueTimeout, match="slot"):
        await bench.manager.prefetch(B, Tier.GPU)
    assert 1 <= engine.calls["activate"] <= 4, "it is not asked all the time"


# --- prefetch by demand ---


async def ask_for(bench: Bench, *targets: Target) -> None:
    """Demand, from a replica that leaves again."""
    await bench.replica("elsewhere", places=8)
    for each in targets:
        await bench.use(each, "elsewhere")
    bench.manager.detach("elsewhere")


async def test_what_is_in_demand_moves_up_ahead_of_need(bench: Bench) -> None:
    await ask_for(bench, A, B, B, C, C, C)
    engine = await bench.replica(places=2)
    bench.manager.prefetch_by_demand(LIVE)
    await until(lambda: len(engine.held) == 2)
    assert set(engine.held) == {B.engine_name, C.engine_name}
    assert engine.slots == []
    for _ in range(5):
        bench.manager.prefetch_by_demand(LIVE)
        await settle()
    assert engine.calls["load"] == 2


async def test_what_is_clearly_less_wanted_gives_way(bench: Bench) -> None:
    await ask_for(bench, B, B, B, C, D, D)
    engine = await bench.replica(places=1)
    await bench.use(A)
    await bench.use(C)
    assert list(engine.held) == [C.engine_name]
    bench.manager.prefetch_by_demand({each.engine_name: each for each in (A, C, D)})
    await settle()
    assert list(engine.held) == [C.engine_name], "d is not clearly more wanted"
    await ask_for(bench, B, B)
    bench.manager.prefetch_by_demand(LIVE)
    await until(lambda: list(engine.held) == [B.engine_name])
    for _ in range(5):
        bench.manager.prefetch_by_demand(LIVE)
        await settle()
    assert list(engine.held) == [B.engine_name]


async def test_no_more_than_a_few_at_a_time_move_ahead_of_need(bench: Bench) -> None:
    await ask_for(bench, A, B, C, D)
    engine = await bench.replica(places=4)
    engine.load_gate.clear()
    for _ in range(3):
        bench.manager.prefetch_by_demand(LIVE)
        await settle()
    engine.load_gate.set()
    await settle()
    assert engine.most_loading == 2


async def test_nothing_moves_ahead_of_need_while_a_request_waits_for_room(bench: Bench) -> None:
    await ask_for(bench, C, C, C)
    engine = await bench.replica(places=1)
    holder = Request(bench, A)
    await holder.entered.wait()
    cold = Request(bench, B)
    await settle()
    bench.manager.prefetch_by_demand(LIVE)
    await settle()
    await holder.finish()
    await cold.entered.wait()
    assert list(engine.held) == [B.engine_name]
    await cold.finish()


async def test_nothing_is_loaded_ahead_of_need_on_an_engines_step_loop(bench: Bench) -> None:
    await ask_for(bench, A)
    engine = await bench.replica(staging=False)
    bench.manager.prefetch_by_demand(LIVE)
    await settle()
    assert engine.calls["load"] == 0
    assert bench.located[A.engine_name] == 2, "but its files are fetched"


async def test_what_has_no_room_is_fetched_to_disk_once_in_a_while(bench: Bench) -> None:
    await ask_for(bench, A, B)
    await bench.replica(places=2)
    holders = [Request(bench, each) for each in (C, D)]
    await until(lambda: all(holder.entered.is_set() for holder in holders))
    bench.located.clear()
    for _ in range(3):
        bench.manager.prefetch_by_demand(LIVE)
        await settle()
    assert bench.located == {A.engine_name: 1, B.engine_name: 1}
    bench.clock.advance(61)
    bench.manager.prefetch_by_demand(LIVE)
    await settle()
    assert bench.located == {A.engine_name: 2, B.engine_name: 2}
    await asyncio.gather(*(holder.finish() for holder in holders))


async def test_what_fails_ahead_of_need_rests(bench: Bench) -> None:
    await ask_for(bench, A)
    engine = await bench.replica()
    engine.failures[A.engine_name] = EngineRejected("no")
    for _ in range(3):
        bench.manager.prefetch_by_demand(LIVE)
        await settle()
    assert engine.calls["load"] == 1
    bench.clock.advance(61)
    engine.failures.clear()
    bench.manager.prefetch_by_demand(LIVE)
    await until(lambda: engine.held)
