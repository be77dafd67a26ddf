"""Operations from beginning to end, over the real registry and disk tier, on two replicas in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loramux_adapters.errors import (
    EngineRejected,
    ModelNotFound,
    NoPreviousVersion,
    OperationInterrupted,
    RequestInvalid,
    SourceNotFound,
)
from loramux_adapters.model import Operation, OperationState, Tier, VersionState
from tests.fakes.domain import Domain, engines
from tests.fakes.manager_bench import refreshed, settle, until

SUCCEEDED, FAILED = OperationState.SUCCEEDED, OperationState.FAILED


@pytest.fixture
async def domain(tmp_path: Path) -> AsyncIterator[Domain]:
    domain = Domain(tmp_path, engines("one", "two"))
    await domain.start()
    yield domain
    domain.manager.check_integrity()
    await domain.close()


def live(domain: Domain, name: str = "tone") -> int | None:
    return domain.registry.resolve(name).version


async def freed(domain: Domain, *engine_names: str | None) -> None:
    await until(lambda: not any(domain.manager.staged_on(name) for name in engine_names if name))


# --- arriving ---


async def test_adding_an_adapter(domain: Domain) -> None:
    operation = await domain.add("tone", domain.source("a"))
    assert (operation.state, operation.progress, operation.failure) == (SUCCEEDED, 1.0, None)
    target = domain.registry.resolve("tone")
    assert target.version == 1
    assert domain.manager.staged_on(target.engine_name) == {"one", "two"}
    version = domain.registry.snapshot.state.versions["tone", 1]
    assert (version.state, version.digest) == (VersionState.READY, target.digest)
    assert version.info is not None
    domain.check()


async def test_an_update_is_seen_when_it_is_acknowledged(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    before = domain.registry.resolve("tone")
    operation = await domain.update("tone", domain.source("b", seed=1))
    assert operation.state is SUCCEEDED
    after = domain.registry.resolve("tone")
    assert after.version == 2
    assert after.engine_name != before.engine_name
    await freed(domain, before.engine_name)
    domain.check()


async def test_the_pointer_moves_only_when_every_replica_has_the_version(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    domain.engines[1].delay_s = 0.05
    seen: list[tuple[int | None, frozenset[str]]] = []
    domain.registry.on_publish(
        lambda snapshot: seen.append(
            (snapshot.names["tone"].live.version, domain.manager.staged_on(snapshot.names["tone"].live.engine_name))
        )
    )
    await domain.update("tone", domain.source("b", seed=1))
    assert {replicas for _, replicas in seen} == {frozenset({"one", "two"})}
    assert [number for number, _ in seen][-1] == 2


async def test_a_request_stays_on_its_version_through_an_update(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    old = domain.registry.resolve("tone")
    async with domain.manager.lease(old, "one"):
        await domain.update("tone", domain.source("b", seed=1))
        await settle()
        assert domain.manager.staged_on(old.engine_name)
        assert old.engine_name in domain.engines[0].held
    await freed(domain, old.engine_name)


async def test_the_same_content_is_kept_and_loaded_once(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    first = domain.registry.resolve("tone")
    await domain.update("tone", domain.source("b"))
    second = domain.registry.resolve("tone")
    assert (second.version, second.engine_name, second.digest) == (2, first.engine_name, first.digest)
    assert [engine.calls["load"] for engine in domain.engines] == [1, 1]
    assert len(domain.disk.entries()) == 1
    await domain.delete_version("tone", 1)
    assert len(domain.disk.entries()) == 1
    domain.check()


async def test_two_adapters_of_the_same_content(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    await domain.add("voice", domain.source("b"))
    assert len(domain.disk.entries()) == 1
    await domain.delete("tone")
    assert len(domain.disk.entries()) == 1
    domain.check()


async def test_a_bad_adapter_never_reaches_an_engine(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    operation = await domain.update("tone", domain.source("bad", rank=64))
    assert operation.state is FAILED
    assert operation.failure is not None
    assert operation.failure.code == "rank_too_large"
    version = domain.registry.snapshot.state.versions["tone", 2]
    assert (version.state, version.failure) == (VersionState.FAILED, operation.failure)
    assert [engine.calls["load"] for engine in domain.engines] == [1, 1]
    assert live(domain) == 1
    domain.check()


async def test_what_an_engine_refuses_fails_and_leaves_the_other(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    source = domain.source("b", seed=1)

    async def refuse(engine_name: str, path: Path, **_: object) -> None:
        raise EngineRejected("no")

    domain.engines[1].load = refuse  # type: ignore[method-assign]
    operation = await domain.update("tone", source)
    assert operation.failure is not None
    assert operation.failure.code == "engine_rejected"
    assert live(domain) == 1
    failed = domain.registry.snapshot.state.versions["tone", 2]
    await freed(domain, failed.engine_name)
    domain.check()


async def test_a_failed_first_version_leaves_a_name_that_can_be_used_again(domain: Domain) -> None:
    assert (await domain.add("tone", str(domain.home / "sources" / "nothing"))).state is FAILED
    with pytest.raises(ModelNotFound):
        domain.registry.resolve("tone")
    assert (await domain.add("tone", domain.source("a"))).state is SUCCEEDED
    assert live(domain) == 2


async def test_an_upload_is_forgotten_when_it_has_arrived(domain: Domain) -> None:
    assert (await domain.add("tone", domain.upload("u1"))).state is SUCCEEDED
    assert list((domain.home / "uploads").iterdir()) == []
    domain.check()


async def test_events_tell_the_story(domain: Domain) -> None:
    async with domain.events.subscribe() as events:
        await domain.add("tone", domain.source("a"))
        types: list[str] = []
        while not types or types[-1] != "operation.succeeded":
            types.append((await anext(events)).type)
    assert types == [
        "version.registered",
        "version.fetching",
        "version.validating",
        "version.staging",
        "version.ready",
        "version.promoted",
        "operation.succeeded",
    ]


async def test_many_updates_at_once_with_few_places(tmp_path: Path) -> None:
    """More arriving versions than places, on two replicas: none may wait for another's place for ever."""
    domain = Domain(tmp_path, engines("one", "two", places=2))
    await domain.start()
    for engine in domain.engines:
        engine.delay_s = 0.002
    async with asyncio.timeout(60):
        ended = await asyncio.gather(
            *(domain.add(f"tone-{number}", domain.source(f"s{number}", seed=number)) for number in range(8))
        )
    assert {operation.state for operation in ended} == {SUCCEEDED}
    domain.manager.check_integrity()
    await domain.close()


# --- pointers ---


async def test_promotion_and_rollback(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    for number in (1, 2):
        await domain.update("tone", domain.source(f"b{number}", seed=number))
    assert (await domain.pointers.rollback("tone")).live == live(domain) == 2
    assert (await domain.pointers.rollback("tone")).live == live(domain) == 1
    with pytest.raises(NoPreviousVersion):
        await domain.pointers.rollback("tone")
    assert (await domain.pointers.promote("tone", 3)).live == live(domain) == 3
    domain.check()


async def test_a_rollback_stages_before_it_moves(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    old = domain.registry.resolve("tone")
    await domain.update("tone", domain.source("b", seed=1))
    await freed(domain, old.engine_name)
    domain.engines[1].up = False
    with pytest.raises(Exception, match="engine"):
        await domain.pointers.rollback("tone")
    assert live(domain) == 2
    domain.engines[1].up = True
    await domain.pointers.rollback("tone")
    assert domain.manager.staged_on(old.engine_name) == {"one", "two"}


async def test_a_canary_takes_its_share(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    await domain.update("tone", domain.source("b", seed=1), promote=0.25)
    drawn = [domain.registry.resolve("tone", f"caller-{number}").version for number in range(2000)]
    assert set(drawn) == {1, 2}
    assert 0.2 < drawn.count(2) / len(drawn) < 0.3
    await domain.pointers.set_canary("tone", None, 0.0)
    assert {domain.registry.resolve("tone", f"caller-{number}").version for number in range(50)} == {1}
    await freed(domain, domain.registry.snapshot.state.versions["tone", 2].engine_name)
    domain.check()


async def test_a_version_that_is_not_promoted_is_freed(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    await domain.update("tone", domain.source("b", seed=1), promote=False)
    assert live(domain) == 1
    await freed(domain, domain.registry.snapshot.state.versions["tone", 2].engine_name)
    assert domain.registry.resolve("tone@2").version == 2


async def test_an_alias_keeps_its_version_staged(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    first = domain.registry.resolve("tone")
    await domain.pointers.set_alias("stable", "tone", 1)
    await domain.update("tone", domain.source("b", seed=1))
    await settle()
    assert domain.registry.resolve("stable") == first
    assert domain.manager.staged_on(first.engine_name) == {"one", "two"}
    await domain.pointers.delete_alias("stable")
    await freed(domain, first.engine_name)


async def test_an_alias_that_moves_is_staged_first(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    await domain.update("tone", domain.source("b", seed=1))
    await domain.pointers.set_alias("stable", "tone", 2)
    first = domain.registry.snapshot.state.versions["tone", 1]
    await freed(domain, first.engine_name)
    await domain.pointers.set_alias("stable", "tone", 1)
    assert first.engine_name is not None
    assert domain.manager.staged_on(first.engine_name) == {"one", "two"}


async def test_pinning_moves_up(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    target = domain.registry.resolve("tone")
    await domain.manager.sweep(frozenset, 0.0)
    assert not domain.manager.staged_on(target.engine_name)
    await domain.pointers.pin("tone", Tier.GPU)
    assert domain.manager.staged_on(target.engine_name) == {"one", "two"}
    assert domain.registry.snapshot.pinned == {target.engine_name}


async def test_a_pin_that_has_no_slot_is_refused_before_it_is_registered(domain: Domain) -> None:
    for number, name in enumerate(("tone", "law")):
        await domain.add(name, domain.source(name, seed=number))
    await domain.pointers.pin("tone", Tier.GPU)
    with pytest.raises(RequestInvalid, match="at most 1 "):
        await domain.pointers.pin("law", Tier.GPU)
    assert domain.registry.snapshot.state.adapters["law"].pin is None
    await domain.pointers.pin("tone", Tier.GPU)
    await domain.pointers.pin("law", Tier.CPU)
    await domain.pointers.pin("tone", None)
    await domain.pointers.pin("law", Tier.GPU)
    assert domain.registry.snapshot.pins == {domain.registry.resolve("law").engine_name: Tier.GPU}


async def test_what_is_pinned_stays_pinned_in_the_engines(domain: Domain) -> None:
    for engine in domain.engines:
        engine.able = replace(engine.able, staging=True)
        await domain.attach(engine)
    await domain.add("tone", domain.source("a"), pin=Tier.GPU)
    first = domain.registry.resolve("tone").engine_name
    await refreshed(domain.manager)
    assert [engine.pins for engine in domain.engines] == [{first: Tier.GPU}] * 2
    await domain.update("tone", domain.source("b", seed=1))
    second = domain.registry.resolve("tone").engine_name
    await refreshed(domain.manager)
    assert [engine.pins for engine in domain.engines] == [{second: Tier.GPU}] * 2
    assert all(second in engine.slots for engine in domain.engines)
    await domain.pointers.pin("tone", None)
    assert [engine.pins for engine in domain.engines] == [{}] * 2


async def test_prefetching_to_disk_fetches_what_left_it(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    await domain.manager.sweep(frozenset, 0.0)
    digest = domain.registry.resolve("tone").digest
    assert digest is not None
    domain.disk.remove(digest)
    await domain.pointers.prefetch("tone", Tier.DISK)
    assert domain.disk.get(digest) is not None
    assert domain.observer.loads[-1] == (Tier.REMOTE, Tier.DISK, "ok")
    assert not domain.manager.staged_on(domain.registry.resolve("tone").engine_name)


# --- leaving ---


async def test_deleting_an_adapter(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    await domain.update("tone", domain.source("b", seed=1))
    assert (await domain.delete("tone")).state is SUCCEEDED
    with pytest.raises(ModelNotFound):
        domain.registry.resolve("tone")
    assert list(domain.disk.entries()) == []
    assert [engine.held for engine in domain.engines] == [{}, {}]
    assert (await domain.add("tone", domain.source("a"))).state is SUCCEEDED
    domain.check()


async def test_deletion_waits_for_requests(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    target = domain.registry.resolve("tone")
    async with domain.manager.lease(target, "two"):
        operation = await domain.registry.begin_delete("tone")
        domain.lifecycle.begin(operation)
        with pytest.raises(ModelNotFound):
            domain.registry.resolve("tone")
        await settle()
        assert target.engine_name in domain.engines[1].held
        assert len(domain.disk.entries()) == 1
    assert (await domain.lifecycle.wait(operation.id)).state is SUCCEEDED
    assert domain.engines[1].held == {}


async def test_deleting_a_version(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    await domain.update("tone", domain.source("b", seed=1))
    assert (await domain.delete_version("tone", 1)).state is SUCCEEDED
    assert len(domain.disk.entries()) == 1
    with pytest.raises(ModelNotFound):
        domain.registry.resolve("tone@1")
    with pytest.raises(NoPreviousVersion):
        await domain.pointers.rollback("tone")
    domain.check()


async def test_deleting_an_adapter_that_is_arriving(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    for engine in domain.engines:
        engine.delay_s = 0.05
    _, arriving = await domain.registry.update("tone", domain.source("b", seed=1), promote=True)
    domain.lifecycle.begin(arriving)
    await until(lambda: domain.engines[0].calls["load"] == 2)
    assert (await domain.delete("tone")).state is SUCCEEDED
    ended = await domain.lifecycle.wait(arriving.id)
    assert ended.failure is not None
    assert ended.failure.code == "adapter_busy"
    await until(lambda: not any(engine.held for engine in domain.engines))
    domain.check()


async def test_deleting_an_adapter_that_waits_for_its_engines(domain: Domain) -> None:
    for engine in domain.engines:
        engine.up = False
    _, _, arriving = await domain.registry.add("tone", domain.source("a"), base=None, promote=True, pin=None)
    domain.lifecycle.begin(arriving)
    await until(lambda: domain.engines[0].calls["load"])
    async with asyncio.timeout(30):
        assert (await domain.delete("tone")).state is SUCCEEDED
        assert (await domain.lifecycle.wait(arriving.id)).state is FAILED
    domain.check()


# --- engines and processes that come and go ---


async def test_an_arriving_version_waits_for_its_engines(domain: Domain) -> None:
    for engine in domain.engines:
        domain.manager.detach(engine.replica_id)
    _, _, operation = await domain.registry.add("tone", domain.source("a"), base=None, promote=True, pin=None)
    domain.lifecycle.begin(operation)
    await until(lambda: domain.registry.snapshot.state.versions["tone", 1].state is VersionState.STAGING)
    await settle()
    assert (await domain.lifecycle.operation(operation.id)).stage == "staging"
    for engine in domain.engines:
        await domain.attach(engine)
    async with asyncio.timeout(30):
        assert (await domain.lifecycle.wait(operation.id)).state is SUCCEEDED
    domain.check()


async def test_a_replica_that_was_away_has_the_live_version_when_it_is_back(domain: Domain) -> None:
    await domain.add("tone", domain.source("a"))
    away = domain.engines[1]
    domain.manager.detach("two")
    away.restart()
    await domain.update("tone", domain.source("b", seed=1))
    await domain.attach(away)
    domain.check()


async def test_closing_leaves_the_operation_for_the_next_process(domain: Domain) -> None:
    for engine in domain.engines:
        engine.up = False
    _, _, operation = await domain.registry.add("tone", domain.upload("u1"), base=None, promote=True, pin=None)
    domain.lifecycle.begin(operation)
    waiting = asyncio.create_task(domain.lifecycle.wait(operation.id))
    await until(lambda: domain.engines[0].calls["load"])
    await domain.lifecycle.close()
    with pytest.raises(OperationInterrupted):
        await waiting
    assert list((domain.home / "uploads").iterdir())
    for engine in domain.engines:
        engine.restart()
    again = Domain(domain.home, domain.engines)
    await again.start()
    assert (await again.lifecycle.wait(operation.id)).state is SUCCEEDED
    again.check()
    await again.close()


async def test_files_that_left_the_disk_are_fetched_again(domain: Domain) -> None:
    source = domain.source("a")
    await domain.add("tone", source)
    await domain.add("sent", domain.upload("u1", seed=3))
    await domain.manager.sweep(frozenset, 0.0)
    for entry in domain.disk.entries():
        domain.disk.remove(entry.digest)
    async with domain.manager.lease(domain.registry.resolve("tone"), "one"):
        pass
    with pytest.raises(SourceNotFound, match="upload"):
        async with domain.manager.lease(domain.registry.resolve("sent"), "one"):
            pass


# --- crashes ---


def script(domain: Domain) -> list[Callable[[], object]]:
    """What clients ask for, one after the other."""
    return [
        lambda: domain.add("tone", domain.source("a")),
        lambda: domain.update("tone", domain.upload("u", seed=1)),
        lambda: domain.update("tone", domain.source("bad", rank=64)),
        lambda: domain.update("tone", domain.source("c", seed=2), promote=0.5),
        lambda: domain.pointers.rollback("tone"),
        lambda: domain.delete_version("tone", 2),
        lambda: domain.add("voice", domain.source("a")),
        lambda: domain.delete("tone"),
    ]


async def play(domain: Domain) -> list[object]:
    ended = []
    for step in script(domain):
        ended.append(await step())  # type: ignore[misc]
    return ended


async def count_writes(home: Path) -> int:
    domain = Domain(home, engines("one", "two"))
    await domain.start()
    ended = [each.state for each in await play(domain) if isinstance(each, Operation)]
    assert ended == [SUCCEEDED, SUCCEEDED, FAILED, SUCCEEDED, SUCCEEDED, SUCCEEDED, SUCCEEDED]
    domain.check()
    await domain.close()
    return len(domain.store.writes)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.timeout(300)
async def test_a_crash_at_every_write(tmp_path: Path, after: bool) -> None:
    """Whatever the registry acknowledged comes to an end in the next process, whose state is whole."""
    total = await count_writes(tmp_path / "dry")
    assert total > 20
    for crash_at in range(1, total + 1):
        home = tmp_path / str(crash_at)
        replicas = engines("one", "two")
        domain = Domain(home, replicas, crash_at=crash_at, crash_after=after)
        await domain.start()
        playing = asyncio.create_task(play(domain))
        async with asyncio.timeout(20):
            await domain.store.crashed.wait()
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await domain.close()

        again = Domain(home, replicas)
        await again.start()
        async with asyncio.timeout(20):
            for operation in again.store.unfinished_operations():
                ended = await again.lifecycle.wait(operation.id)
                assert ended.state.finished, (crash_at, domain.store.writes)
        await settle()
        again.check()
        fresh = await again.add("fresh", again.source("fresh", seed=9))
        assert fresh.state is SUCCEEDED
        again.check()
        await again.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_database_that_fails_once(tmp_path: Path, after: bool) -> None:
    """Wherever it does, the operation ends, as what is in the registry says; what became live is not taken away."""
    states = set()
    for crash_at in range(8, 13):  # the writes of the update, after those of the first version and its own row
        domain = Domain(
            tmp_path / str(crash_at), engines("one", "two"), crash_at=crash_at, crash_after=after, recovers=True
        )
        await domain.start()
        await domain.add("tone", domain.source("a"))
        _, operation = await domain.registry.update("tone", domain.source("b", seed=1), promote=True)
        async with domain.events.subscribe() as events, asyncio.timeout(20):
            ended = await domain.finish(operation)
            while not (event := await anext(events)).type.startswith("operation."):
                pass
        assert event.type == f"operation.{ended.state}"
        version = domain.registry.snapshot.state.versions["tone", 2]
        assert version.state == ("ready" if ended.state is SUCCEEDED else "failed")
        assert live(domain) == (2 if ended.state is SUCCEEDED else 1)
        await settle()
        domain.check()
        states.add(ended.state)
        await domain.close()
    assert states == ({SUCCEEDED, FAILED} if after else {FAILED})
