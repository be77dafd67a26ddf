"""What was live before stays at hand for a rollback, and for nothing else; canaries end as their rules say."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loramux_adapters.errors import NoPreviousVersion, RequestInvalid, StorageFailed
from loramux_adapters.events import Event
from loramux_adapters.model import CanaryRule, OperationState, Sticky, Version, VersionState
from loramux_serving import canary_watch
from loramux_serving.canary_watch import CanaryWatch
from loramux_serving.relay.record import Outcome, RequestRecord
from tests.fakes.domain import Domain, engines
from tests.fakes.manager_bench import settle, until

KEEP_S = 600.0
SUCCEEDED = OperationState.SUCCEEDED


@asynccontextmanager
async def started(home: Path, *, places: int = 8, **options: Any) -> AsyncIterator[Domain]:
    domain = Domain(home, engines("one", "two", places=places), **{"keep_previous_s": KEEP_S, **options})
    await domain.start()
    yield domain
    domain.manager.check_integrity()
    await domain.close()


@pytest.fixture
async def domain(tmp_path: Path) -> AsyncIterator[Domain]:
    async with started(tmp_path) as domain:
        yield domain


async def with_versions(domain: Domain, count: int, name: str = "tone") -> list[str]:
    """`count` versions, the last one live. Their engine names."""
    await domain.add(name, domain.source(f"{name}-1", seed=1))
    for number in range(2, count + 1):
        assert (await domain.update(name, domain.source(f"{name}-{number}", seed=number))).state is SUCCEEDED
    return [engine_name(domain, number, name) for number in range(1, count + 1)]


def version(domain: Domain, number: int, name: str = "tone") -> Version:
    return domain.registry.snapshot.state.versions[name, number]


def engine_name(domain: Domain, number: int, name: str = "tone") -> str:
    found = version(domain, number, name).engine_name
    assert found is not None
    return found


def live(domain: Domain, name: str = "tone") -> int | None:
    return domain.registry.snapshot.state.adapters[name].live


def loads(domain: Domain) -> list[int]:
    return [engine.calls["load"] for engine in domain.engines]


async def freed(domain: Domain, *names: str) -> None:
    await until(lambda: not any(domain.manager.staged_on(name) for name in names))


# --- kept for a rollback ---


async def test_a_rollback_to_what_is_still_staged_asks_no_engine(domain: Domain) -> None:
    first, second = await with_versions(domain, 2)
    await settle()
    assert domain.manager.staged_on(first) == domain.manager.staged_on(second) == {"one", "two"}
    before = loads(domain)
    for engine in domain.engines:
        engine.delay_s = 30.0
    started_at = asyncio.get_running_loop().time()
    assert (await domain.pointers.rollback("tone")).live == domain.registry.resolve("tone").version == 1
    assert asyncio.get_running_loop().time() - started_at < 5.0
    assert loads(domain) == before
    await freed(domain, second)
    for engine in domain.engines:
        engine.delay_s = 0.0
    domain.check()


async def test_what_is_kept_is_freed_when_its_time_is_over(domain: Domain) -> None:
    first, second = await with_versions(domain, 2)
    domain.clock.advance(KEEP_S - 1)
    await domain.manager.sweep(domain.pointers.needed, 60.0)
    assert domain.manager.staged_on(first) == {"one", "two"}
    assert version(domain, 1).digest in domain.pointers.kept_digests()
    domain.clock.advance(2)
    await domain.manager.sweep(domain.pointers.needed, 60.0)
    assert not domain.manager.staged_on(first)
    assert domain.manager.staged_on(second) == {"one", "two"}
    assert domain.pointers.kept_digests() == frozenset()
    assert (await domain.pointers.rollback("tone")).live == 1
    domain.check()


async def test_only_one_version_is_kept(domain: Domain) -> None:
    first, second, third = await with_versions(domain, 3)
    await freed(domain, first)
    assert domain.manager.staged_on(second) == domain.manager.staged_on(third) == {"one", "two"}
    domain.check()


async def test_a_second_rollback_goes_back_one_more(domain: Domain) -> None:
    first, second, third = await with_versions(domain, 3)
    await freed(domain, first)
    assert (await domain.pointers.rollback("tone")).live == 2
    await freed(domain, third)
    assert (await domain.pointers.rollback("tone")).live == domain.registry.resolve("tone").version == 1
    await freed(domain, second)
    with pytest.raises(NoPreviousVersion):
        await domain.pointers.rollback("tone")
    domain.check()


async def test_nothing_is_kept_where_that_is_not_wanted(tmp_path: Path) -> None:
    async with started(tmp_path, keep_previous_s=0.0) as domain:
        first, _ = await with_versions(domain, 2)
        await freed(domain, first)
        assert domain.pointers.needed() == domain.registry.snapshot.wanted.keys()


async def test_what_is_kept_makes_room_in_memory(tmp_path: Path) -> None:
    async with started(tmp_path, places=2) as domain:
        first, second = await with_versions(domain, 2)
        domain.clock.advance(1)
        async with domain.manager.lease(domain.registry.resolve("tone"), "one"):
            pass
        async with domain.manager.lease(domain.registry.resolve("tone"), "two"):
            pass
        assert (await domain.add("voice", domain.source("voice"))).state is SUCCEEDED
        assert not domain.manager.staged_on(first)
        assert domain.manager.staged_on(second) == {"one", "two"}
        assert (await domain.pointers.rollback("tone")).live == 1


async def test_what_is_kept_makes_room_on_the_disk(tmp_path: Path) -> None:
    async with started(tmp_path / "dry") as domain:
        await with_versions(domain, 1)
        size = domain.disk.size_bytes()
    async with started(tmp_path / "wet", disk_bytes=int(2.5 * size)) as domain:
        first, _ = await with_versions(domain, 2)
        assert domain.manager.staged_on(first)
        third = await domain.update("tone", domain.source("c", seed=3))
        assert (third.state, third.failure) == (SUCCEEDED, None)
        assert not domain.manager.staged_on(first)
        digests = {entry.digest for entry in domain.disk.entries()}
        assert digests == {version(domain, 2).digest, version(domain, 3).digest}
        domain.check()
        # It can be fetched again.
        assert (await domain.pointers.rollback("tone")).live == 2


async def test_a_kept_version_can_be_deleted(domain: Domain) -> None:
    first, _ = await with_versions(domain, 2)
    digest = version(domain, 1).digest
    assert (await domain.delete_version("tone", 1)).state is SUCCEEDED
    assert not domain.manager.staged_on(first)
    assert digest not in {entry.digest for entry in domain.disk.entries()}
    with pytest.raises(NoPreviousVersion):
        await domain.pointers.rollback("tone")
    domain.check()


async def test_deleting_an_adapter_takes_what_is_kept_along(domain: Domain) -> None:
    await with_versions(domain, 2)
    assert (await domain.delete("tone")).state is SUCCEEDED
    assert [engine.held for engine in domain.engines] == [{}, {}]
    assert domain.disk.entries() == []
    assert domain.pointers.needed() == frozenset()


async def test_a_restart_keeps_what_was_kept(tmp_path: Path) -> None:
    """Where the engines outlive the gateway, a rollback is as quick after it as before."""
    domain = Domain(tmp_path, engines("one", "two"), keep_previous_s=KEEP_S)
    await domain.start()
    first, _ = await with_versions(domain, 2)
    await domain.close()
    again = Domain(tmp_path, domain.engines, keep_previous_s=KEEP_S)
    await again.start()
    await again.manager.sweep(again.pointers.needed, 0.0)
    assert again.manager.staged_on(first) == {"one", "two"}
    before = loads(again)
    assert (await again.pointers.rollback("tone")).live == 1
    assert loads(again) == before
    await settle()
    again.check()
    await again.close()


async def test_the_same_content_again_is_kept_once(domain: Domain) -> None:
    await domain.add("tone", domain.source("a", seed=1))
    await domain.update("tone", domain.source("b", seed=1))
    name = engine_name(domain, 2)
    assert domain.pointers.needed() == {name}
    assert (await domain.pointers.rollback("tone")).live == 1
    assert domain.manager.staged_on(name) == {"one", "two"}
    domain.check()


# --- who keeps to one side ---


async def test_a_key_keeps_to_its_side_and_a_header_wins(domain: Domain) -> None:
    await with_versions(domain, 2)
    await domain.pointers.set_alias("prod", "tone", None)
    await domain.pointers.set_canary("tone", 1, 0.5, Sticky.KEY)

    def sides(resolve: Callable[[str], object]) -> list[object]:
        return [resolve(f"k{number}") for number in range(200)]

    def by_key(model: str) -> list[object]:
        return sides(lambda key: domain.registry.resolve(model, None, key).version)

    assert set(by_key("tone")) == {1, 2}
    assert by_key("tone") == by_key("tone") == by_key("prod")
    by_text = sides(lambda text: domain.registry.resolve("tone", text, "k0").version)
    assert by_text == sides(lambda text: domain.registry.resolve("prod", text, "k1").version)
    assert set(by_text) == {1, 2}
    # A larger share takes nobody back.
    on_canary = {number for number, side in enumerate(by_key("tone")) if side == 1}
    await domain.pointers.set_canary("tone", 1, 0.8, Sticky.KEY)
    assert on_canary < {number for number, side in enumerate(by_key("tone")) if side == 1}


async def test_without_a_text_each_request_draws(domain: Domain) -> None:
    await with_versions(domain, 2)
    await domain.pointers.set_canary("tone", 1, 0.5)
    assert {domain.registry.resolve("tone", None, "k1").version for _ in range(200)} == {1, 2}


# --- rules ---

RULE = CanaryRule(window_s=60.0, min_requests=20, max_error_rate=0.1, max_p95_ratio=2.0, promote_after_s=300.0)


class Passed:
    """The recorder behind the watch."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def record(self, record: RequestRecord) -> None:
        self.records.append(record)


def request(number: int | None, outcome: Outcome = "ok", duration_s: float = 1.0) -> RequestRecord:
    status = {"ok": 200, "client_error": 400, "cancelled": 499}.get(outcome, 503)
    return RequestRecord("r", "/v1/completions", "k", "tone", number, "one", status, outcome, False, duration_s)


@asynccontextmanager
async def watching(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CanaryWatch]:
    """With version 1 live and version 2 its canary under `RULE`."""
    monkeypatch.setattr(canary_watch, "_LOOK_S", 0.002)
    watch = CanaryWatch(domain.registry, domain.pointers, domain.clock, Passed())
    await with_versions(domain, 2)
    await domain.pointers.rollback("tone")
    await domain.pointers.set_canary("tone", 2, 0.5, rule=RULE)
    task = asyncio.create_task(watch.run())
    yield watch
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def answer(watch: CanaryWatch, times: int, *requests: RequestRecord) -> None:
    for _ in range(times):
        for each in requests:
            watch.record(each)


async def ended(events: AsyncIterator[Event]) -> Event:
    async with asyncio.timeout(10):
        while not (event := await anext(events)).type.startswith(("canary.promoted", "canary.rolled_back")):
            pass
    return event


async def test_errors_end_a_canary(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(domain, monkeypatch) as watch, domain.events.subscribe() as events:
        answer(watch, 17, request(1), request(2))
        answer(watch, 3, request(2, "engine_error"))
        event = await ended(events)
    assert (event.type, event.version) == ("canary.rolled_back", 2)
    assert event.data["reason"] == "3 of 20 requests failed within 60 s, more than 10 %."
    assert (event.data["requests"], event.data["errors"], event.data["live_requests"]) == (20, 3, 17)
    adapter = domain.registry.snapshot.state.adapters["tone"]
    assert (adapter.live, adapter.canary, adapter.canary_rule) == (1, None, None)
    assert adapter.canary_end is not None
    assert (adapter.canary_end.by_rule, adapter.canary_end.reason) == (True, event.data["reason"])
    assert watch.figures("tone") is None
    await freed(domain, engine_name(domain, 2))
    domain.check()


async def test_slow_answers_end_a_canary(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(domain, monkeypatch) as watch, domain.events.subscribe() as events:
        answer(watch, 30, request(1, duration_s=0.5), request(2, duration_s=1.5))
        event = await ended(events)
    assert event.type == "canary.rolled_back"
    assert event.data["reason"].startswith("p95 was 1.5")


async def test_a_canary_that_holds_is_promoted(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(domain, monkeypatch) as watch, domain.events.subscribe() as events:
        for _ in range(10):
            answer(watch, 5, request(1), request(2), request(2, "client_error"), request(2, "cancelled"))
            domain.clock.advance(29.0)
        await settle()
        assert live(domain) == 1
        domain.clock.advance(20.0)
        answer(watch, 15, request(1), request(2), request(2, "rejected"), request(None))
        event = await ended(events)
    assert (event.type, event.version, event.data["errors"]) == ("canary.promoted", 2, 0)
    assert event.data["requests"] == 20, "what callers did wrong, or broke off, does not count"
    assert live(domain) == domain.registry.resolve("tone").version == 2
    assert (await domain.pointers.rollback("tone")).live == 1
    domain.check()


async def test_too_few_requests_decide_nothing(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(domain, monkeypatch) as watch:
        domain.clock.advance(10_000.0)
        answer(watch, 19, request(1), request(2))
        answer(watch, 50, request(2, "client_error"), request(2, "cancelled"), request(None, "engine_error"))
        for _ in range(20):
            await asyncio.sleep(0.002)
        figures = watch.figures("tone")
        assert figures is not None
        assert (figures.requests, figures.errors) == (19, 0)
        assert domain.registry.snapshot.state.adapters["tone"].canary == 2


async def test_every_request_is_handed_on(domain: Domain) -> None:
    passed = Passed()
    watch = CanaryWatch(domain.registry, domain.pointers, domain.clock, passed)
    answer(watch, 2, request(1), request(None, "rejected"))
    assert len(passed.records) == 4


@pytest.mark.parametrize("by_hand", ["end", "promote", "anew", "other", "delete"])
async def test_an_operators_own_action_wins(domain: Domain, monkeypatch: pytest.MonkeyPatch, by_hand: str) -> None:
    """The rule decides while the operator's change is on its way into the registry."""
    async with watching(domain, monkeypatch) as watch:
        await domain.update("tone", domain.source("c", seed=9), promote=False)
        ends: list[object] = []
        original = domain.pointers.end_canary

        async def end_canary(*arguments: Any) -> object:
            if not ends:
                ends.append(None)
                await {
                    "end": lambda: domain.pointers.set_canary("tone", None, 0.0),
                    "promote": lambda: domain.pointers.promote("tone", 2),
                    "anew": lambda: domain.pointers.set_canary("tone", 2, 0.9, rule=RULE),
                    "other": lambda: domain.pointers.set_canary("tone", 3, 0.9, rule=RULE),
                    "delete": lambda: domain.delete("tone"),
                }[by_hand]()
                domain.clock.advance(1.0)
                before = domain.registry.snapshot.state.adapters.get("tone")
                try:
                    ends[0] = await original(*arguments)
                finally:
                    assert domain.registry.snapshot.state.adapters.get("tone") == before
            return None

        monkeypatch.setattr(domain.pointers, "end_canary", end_canary)
        domain.clock.advance(1.0)
        answer(watch, 20, request(2, "engine_error"))
        await until(lambda: ends)
        await settle()
        await until(lambda: not watch._ending)
        assert ends == [None]
    await settle()
    domain.check()


async def test_a_rule_goes_on_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = Domain(tmp_path, engines("one", "two"))
    await domain.start()
    await with_versions(domain, 2)
    await domain.pointers.rollback("tone")
    await domain.pointers.set_canary("tone", 2, 0.5, rule=RULE)
    await domain.close()
    monkeypatch.setattr(canary_watch, "_LOOK_S", 0.002)
    again = Domain(tmp_path, domain.engines)
    watch = CanaryWatch(again.registry, again.pointers, again.clock, Passed())
    await again.start()
    again.clock.advance(301.0)
    async with again.events.subscribe() as events:
        task = asyncio.create_task(watch.run())
        answer(watch, 20, request(1), request(2))
        assert (await ended(events)).type == "canary.promoted"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert live(again) == 2
    again.check()
    await again.close()


async def test_a_rule_that_can_not_be_followed_is_followed_later(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(domain, monkeypatch) as watch, domain.events.subscribe() as events:
        original, tries = domain.pointers.end_canary, 0

        async def end_canary(*arguments: Any) -> object:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise StorageFailed("The registry's database did not do its work.")
            return await original(*arguments)

        monkeypatch.setattr(domain.pointers, "end_canary", end_canary)
        answer(watch, 20, request(2, "interrupted"))
        assert (await ended(events)).type == "canary.rolled_back"
        assert tries == 3


async def test_rules_that_are_refused(domain: Domain) -> None:
    await with_versions(domain, 2)
    for number, rule in ((1, CanaryRule()), (1, CanaryRule(max_error_rate=2.0)), (None, RULE)):
        with pytest.raises(RequestInvalid):
            await domain.pointers.set_canary("tone", number, 0.5, rule=rule)
    assert domain.registry.snapshot.state.adapters["tone"].canary is None
    assert version(domain, 1).state is VersionState.READY
