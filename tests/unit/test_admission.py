import asyncio
from collections.abc import Callable

import pytest

from loramux_adapters.errors import AdmissionError, QueueFull, QueueTimeout, RateLimited
from loramux_adapters.model import Role
from loramux_serving.admission.fair_admission import AdapterLoad, FairAdmission
from loramux_serving.relay.ports import Admission, Principal
from loramux_serving.settings import AdmissionSettings
from tests.fakes.clock import FakeClock

APP = Principal("k", "app", Role.INFERENCE)


class Hall:
    """An admission with a fake clock, and callers who stay inside until they are told to go."""

    def __init__(self, *, replicas: int = 1, slots: int = 8, **settings: int | float) -> None:
        self.clock = FakeClock()
        self.replicas = replicas
        self.slots = slots
        self.admission = FairAdmission(
            AdmissionSettings.model_validate(settings),
            self.clock,
            lambda: self.replicas,
            self.clock.call_later,
            slots=lambda: self.slots,
        )
        self.inside: list[str] = []
        self.waited_s: dict[str, float] = {}
        self.soon: list[str] = []
        """Whose turn is near, as was told."""

    async def come(self, adapter: str, name: str = "") -> "Caller":
        caller = Caller(asyncio.Event())
        caller.task = asyncio.create_task(self._stay(adapter, name or adapter, caller.may_go))
        await settle()
        return caller

    async def _stay(self, adapter: str, name: str, may_go: asyncio.Event) -> None:
        slot = None if adapter == "base" else f"{adapter}@1"
        async with self.admission.admit(APP, adapter, slot, lambda: self.soon.append(name)) as place:
            self.inside.append(name)
            self.waited_s[name] = place.waited_s
            try:
                await may_go.wait()
            finally:
                self.inside.remove(name)

    def counts(self) -> tuple[int, int]:
        self.admission.check_integrity()
        snapshot = self.admission.snapshot()
        return snapshot.running, snapshot.queued


class Caller:
    task: "asyncio.Task[None]"

    def __init__(self, may_go: asyncio.Event) -> None:
        self.may_go = may_go

    async def go(self) -> None:
        self.may_go.set()
        await self.task
        await settle()

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task
        await settle()


async def settle() -> None:
    """Let every task run until it waits for something that a test gives."""
    for _ in range(4):
        await asyncio.sleep(0)


async def test_with_room_a_caller_goes_in_without_the_loop() -> None:
    hall = Hall()
    admission: Admission = hall.admission
    entering = admission.admit(APP, "a", "a@1", pytest.fail).__aenter__()
    with pytest.raises(StopIteration) as entered:
        entering.__await__().__next__()
    assert entered.value.value.waited_s == 0.0
    assert hall.counts() == (1, 0)


async def test_a_place_is_given_back_on_success() -> None:
    hall = Hall()
    async with hall.admission.admit(APP, "a"):
        assert hall.admission.snapshot().adapters == {"a": AdapterLoad(running=1, queued=0)}
    assert hall.counts() == (0, 0)
    assert hall.admission.snapshot().adapters == {}


async def test_a_place_is_given_back_on_error() -> None:
    hall = Hall()
    with pytest.raises(ZeroDivisionError):
        async with hall.admission.admit(APP, "a"):
            raise ZeroDivisionError
    assert hall.counts() == (0, 0)


async def test_a_place_is_given_back_when_the_caller_leaves() -> None:
    hall = Hall()
    caller = await hall.come("a")
    await caller.cancel()
    assert hall.counts() == (0, 0)


async def test_the_next_goes_in_when_one_leaves() -> None:
    hall = Hall(max_concurrent=1)
    first = await hall.come("a", "first")
    second = await hall.come("a", "second")
    assert (hall.inside, hall.counts()) == (["first"], (1, 1))
    hall.clock.advance(2.5)
    await first.go()
    assert hall.inside == ["second"]
    assert hall.waited_s == {"first": 0.0, "second": 2.5}
    await second.go()
    assert hall.counts() == (0, 0)


async def test_a_flood_on_one_adapter_does_not_starve_another() -> None:
    hall = Hall(max_concurrent=2)
    flood = [await hall.come("a", f"a{number}") for number in range(50)]
    await hall.come("b", "b")
    await flood[0].go()
    await flood[1].go()
    assert "b" in hall.inside
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await settle()
    assert hall.counts() == (0, 0)


async def test_an_adapter_has_a_limit_of_its_own() -> None:
    hall = Hall(max_concurrent=10, max_concurrent_per_adapter=1)
    first = await hall.come("a", "a1")
    second = await hall.come("a", "a2")
    other = await hall.come("b", "b1")
    assert hall.inside == ["a1", "b1"]
    await first.go()
    assert hall.inside == ["b1", "a2"]
    await second.go()
    await other.go()


async def test_each_ready_replica_brings_room() -> None:
    hall = Hall(max_concurrent=1, replicas=0)
    callers = [await hall.come("a", str(number)) for number in range(4)]
    assert hall.counts() == (1, 3), "one replica's room while none is ready"
    hall.replicas = 3
    hall.admission.capacity_changed()
    await settle()
    assert hall.inside == ["0", "1", "2"]
    assert hall.admission.snapshot().capacity == 3
    hall.replicas = 1
    await callers[0].go()
    await callers[1].go()
    assert hall.inside == ["2"], "what runs over the new limit ends by itself"
    await callers[2].go()
    assert hall.inside == ["3"]
    await callers[3].go()


async def test_room_that_came_goes_to_those_who_wait_before_a_newcomer() -> None:
    hall = Hall(max_concurrent=1)
    callers = [await hall.come("a", "1"), await hall.come("a", "2")]
    hall.replicas = 2
    callers.append(await hall.come("b", "3"))
    assert hall.inside == ["1", "2"]
    for caller in callers:
        await caller.go()


async def test_a_full_queue_refuses() -> None:
    hall = Hall(max_concurrent=1, max_queue=2, max_queue_per_adapter=1)
    callers = [await hall.come("a"), await hall.come("a")]
    refused = await hall.come("a")
    with pytest.raises(QueueFull, match="'a'") as error:
        await refused.task
    assert error.value.retry_after_s is not None
    callers.append(await hall.come("b"))
    refused = await hall.come("c")
    with pytest.raises(QueueFull):
        await refused.task
    for caller in callers:
        await caller.go()
    assert hall.counts() == (0, 0)


async def test_a_queue_of_0_refuses_at_once() -> None:
    hall = Hall(max_concurrent=1, max_queue=0)
    async with hall.admission.admit(APP, "a"):
        with pytest.raises(QueueFull):
            await hall.admission.admit(APP, "b").__aenter__()


async def test_the_wait_has_an_end() -> None:
    hall = Hall(max_concurrent=1, queue_timeout_s=5)
    first = await hall.come("a", "first")
    second = await hall.come("a", "second")
    hall.clock.advance(4.9)
    await settle()
    assert not second.task.done()
    hall.clock.advance(0.1)
    with pytest.raises(QueueTimeout) as error:
        await second.task
    assert error.value.retry_after_s is not None
    assert hall.counts() == (1, 0)
    await first.go()
    assert hall.counts() == (0, 0)


async def test_the_running_loop_keeps_the_time_by_default() -> None:
    admission = FairAdmission(AdmissionSettings(max_concurrent=1, queue_timeout_s=0.01), FakeClock(), lambda: 1)
    async with admission.admit(APP, "a"):
        with pytest.raises(QueueTimeout):
            async with asyncio.timeout(10), admission.admit(APP, "a"):
                pass
    admission.check_integrity()
    assert admission.snapshot().running == 0


async def test_a_waiter_who_leaves_makes_room_in_the_queue() -> None:
    hall = Hall(max_concurrent=1)
    first = await hall.come("a", "first")
    second = await hall.come("a", "second")
    third = await hall.come("a", "third")
    await second.cancel()
    assert hall.counts() == (1, 1)
    await first.go()
    assert hall.inside == ["third"]
    await third.go()


@pytest.mark.parametrize("order", ["granted then cancelled", "cancelled then granted"])
async def test_a_waiter_cancelled_in_the_tick_of_its_grant_leaves_no_place_behind(order: str) -> None:
    hall = Hall(max_concurrent=1)
    holder = hall.admission.admit(APP, "a")
    await holder.__aenter__()
    waiter = await hall.come("a", "second")
    third = await hall.come("b", "third")

    def leave() -> None:
        with pytest.raises(StopIteration):
            holder.__aexit__(None, None, None).__await__().__next__()

    acts: list[Callable[[], object]] = [leave, waiter.task.cancel]
    for act in acts if order.startswith("granted") else reversed(acts):
        act()
    await settle()
    assert waiter.task.cancelled()
    assert hall.inside == ["third"]
    assert hall.counts() == (1, 0)
    await third.go()
    assert hall.counts() == (0, 0)


@pytest.mark.parametrize("first", ["time", "place"])
async def test_a_place_and_the_time_out_in_one_tick(first: str) -> None:
    hall = Hall(max_concurrent=1, queue_timeout_s=5)
    holder = hall.admission.admit(APP, "a")
    await holder.__aenter__()
    waiter = await hall.come("a", "waiter")
    leaving = holder.__aexit__(None, None, None)
    if first == "time":
        hall.clock.advance(5)
        await leaving
        with pytest.raises(QueueTimeout):
            await waiter.task
    else:
        await leaving
        hall.clock.advance(5)
        await settle()
        assert hall.inside == ["waiter"]
        await waiter.go()
    assert hall.counts() == (0, 0)


async def test_limits_are_checked_before_the_queue() -> None:
    hall = Hall(max_concurrent=1, key_requests_per_minute=2)
    callers = [await hall.come("a"), await hall.come("a")]
    refused = await hall.come("a")
    with pytest.raises(RateLimited) as error:
        await refused.task
    assert error.value.retry_after_s == pytest.approx(30.0)
    for caller in callers:
        await caller.go()
    hall.clock.advance(30.0)
    await (await hall.come("a")).go()


async def test_a_full_queue_takes_nothing_from_the_limits() -> None:
    hall = Hall(max_concurrent=1, max_queue=0, key_requests_per_minute=2)
    first = await hall.come("a")
    for _ in range(5):
        with pytest.raises(QueueFull):
            await hall.admission.admit(APP, "a").__aenter__()
    await first.go()
    await (await hall.come("a")).go()


async def test_tokens_may_be_spent_after_the_place_was_given_back() -> None:
    hall = Hall(adapter_tokens_per_minute=60)
    async with hall.admission.admit(APP, "a") as place:
        place.spend(60)
    async with hall.admission.admit(APP, "a") as place:
        pass
    place.spend(30)
    with pytest.raises(AdmissionError) as error:
        await hall.admission.admit(APP, "a").__aenter__()
    assert error.value.retry_after_s == pytest.approx(30.0)
    async with hall.admission.admit(APP, "b"):
        pass
    hall.clock.advance(error.value.retry_after_s or 0.0)
    async with hall.admission.admit(APP, "a"):
        pass


async def test_who_steps_aside_lets_others_in_and_comes_back() -> None:
    hall = Hall(max_concurrent=1)
    order: list[str] = []
    loaded = asyncio.Event()

    async def cold() -> None:
        async with hall.admission.admit(APP, "cold") as place:
            async with place.aside():
                order.append("aside")
                await loaded.wait()
            order.append("back")

    task = asyncio.create_task(cold())
    await settle()
    assert hall.counts() == (0, 1)
    warm = await hall.come("warm")
    assert hall.counts() == (1, 1)
    loaded.set()
    await settle()
    assert order == ["aside"]
    assert hall.counts() == (1, 1)
    await warm.go()
    await task
    assert order == ["aside", "back"]
    assert hall.counts() == (0, 0)


async def test_who_leaves_while_aside_leaves_nothing_behind() -> None:
    hall = Hall(max_concurrent=1)

    async def cold(error: Exception | None) -> None:
        async with hall.admission.admit(APP, "cold") as place, place.aside():
            if error is not None:
                raise error
            await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError):
        await cold(ZeroDivisionError())
    assert hall.counts() == (0, 0)
    task = asyncio.create_task(cold(None))
    await settle()
    assert hall.counts() == (0, 1)
    task.cancel()
    await asyncio.wait([task])
    assert hall.counts() == (0, 0)


async def test_those_aside_count_as_waiting() -> None:
    hall = Hall(max_concurrent=1, max_queue=1)
    loaded = asyncio.Event()

    async def cold() -> None:
        async with hall.admission.admit(APP, "cold") as place, place.aside():
            await loaded.wait()

    task = asyncio.create_task(cold())
    await settle()
    warm = await hall.come("warm")
    with pytest.raises(QueueFull):
        async with hall.admission.admit(APP, "warm"):
            pass
    await warm.go()
    with pytest.raises(QueueFull):
        await cold()
    assert hall.counts() == (0, 1)
    loaded.set()
    await task
    assert hall.counts() == (0, 0)


async def test_no_more_adapters_run_than_there_are_slots() -> None:
    hall = Hall(slots=2)
    callers = {name: await hall.come(name) for name in ("a", "b", "c", "base")}
    assert hall.inside == ["a", "b", "base"]
    snapshot = hall.admission.snapshot()
    assert (snapshot.slots, snapshot.slots_held, snapshot.queued) == (2, 2, 1)
    await callers["b"].go()
    assert hall.inside == ["a", "base", "c"]
    for name in ("a", "c", "base"):
        await callers[name].go()
    assert hall.counts() == (0, 0)
    assert hall.admission.snapshot().slots_held == 0


async def test_without_slots_given_all_adapters_run() -> None:
    admission = FairAdmission(AdmissionSettings(), FakeClock(), lambda: 1)
    async with admission.admit(APP, "a", "a@1"), admission.admit(APP, "b", "b@1"):
        assert (admission.snapshot().slots, admission.snapshot().slots_held) == (None, 2)


async def test_a_stream_of_requests_on_one_adapter_does_not_keep_the_slot() -> None:
    hall = Hall(slots=1, slot_turn_s=2)
    first = await hall.come("a", "a1")
    others = [await hall.come("b", f"b{number}") for number in range(3)]
    second = await hall.come("a", "a2")
    assert hall.inside == ["a1", "a2"], "its turn is not over"
    hall.clock.advance(2)
    third = await hall.come("a", "a3")
    await first.go()
    assert hall.inside == ["a2"], "it drains"
    await second.go()
    assert hall.inside == ["b0", "b1", "b2"], "they start together"
    assert hall.waited_s["b0"] == 2.0
    for caller in others:
        await caller.go()
    assert hall.inside == ["a3"]
    await third.go()
    assert hall.counts() == (0, 0)


async def test_who_leaves_at_the_head_of_the_line_for_slots_lets_the_next_go_on() -> None:
    hall = Hall(slots=1, slot_turn_s=2)
    first = await hall.come("a", "a1")
    hall.clock.advance(2)
    waiter = await hall.come("b")
    second = await hall.come("a", "a2")
    assert hall.inside == ["a1"]
    await waiter.cancel()
    assert hall.inside == ["a1", "a2"]
    await first.go()
    await second.go()
    assert hall.counts() == (0, 0)


async def test_slots_that_came_are_filled_and_those_that_went_drain() -> None:
    hall = Hall(slots=1)
    callers = {name: await hall.come(name) for name in "abc"}
    hall.slots = 3
    hall.admission.capacity_changed()
    await settle()
    assert hall.inside == ["a", "b", "c"]
    hall.slots = 1
    callers["late"] = await hall.come("a", "late")
    assert hall.inside == ["a", "b", "c"]
    for name in "abc":
        assert "late" not in hall.inside
        await callers[name].go()
    assert hall.inside == ["late"]
    await callers["late"].go()
    assert hall.counts() == (0, 0)


async def test_the_next_in_line_for_slots_hear_of_it_once() -> None:
    hall = Hall(slots=2, max_concurrent_per_adapter=2)
    running = [await hall.come("a"), await hall.come("b")]
    waiting = [await hall.come(name) for name in "cdef"]
    assert hall.soon == ["c", "d"], "as many as there are slots"
    await running[0].go()
    assert hall.soon == ["c", "d", "e"]
    running.append(await hall.come("b", "b2"))
    running.append(await hall.come("b", "b3"))
    assert hall.soon[3:] == ["b3"], "it waits for no slot: its turn is near"
    for caller in (*running[1:], *waiting):
        await caller.go()
    assert hall.soon == ["c", "d", "e", "b3", "f"]


async def test_a_cold_adapter_holds_no_slot_while_it_is_loaded_and_has_its_turn_afterwards() -> None:
    hall = Hall(slots=1)
    loaded = asyncio.Event()
    order: list[str] = []

    async def cold() -> None:
        async with hall.admission.admit(APP, "cold", "cold@1") as place:
            async with place.aside():
                await loaded.wait()
            order.append("cold")

    task = asyncio.create_task(cold())
    await settle()
    warm = await hall.come("warm")
    later = await hall.come("later")
    assert hall.inside == ["warm"]
    loaded.set()
    await settle()
    assert order == []
    await warm.go()
    await task
    assert order == ["cold"]
    assert hall.inside == ["later"]
    await later.go()
    assert hall.counts() == (0, 0)


async def test_what_runs_and_waits_together_has_a_limit_of_its_own() -> None:
    hall = Hall(max_concurrent=2, max_requests=3, key_requests_per_minute=4)
    callers = [await hall.come(name) for name in ("a", "b", "c")]
    assert hall.counts() == (2, 1)
    refused = await hall.come("d")
    with pytest.raises(QueueFull, match="3 requests run and wait already") as error:
        await refused.task
    assert error.value.retry_after_s is not None
    await callers.pop().cancel()
    callers.append(await hall.come("d"))  # the refused one did not count against the key's limit
    for caller in callers:
        await caller.go()
    assert hall.counts() == (0, 0)
