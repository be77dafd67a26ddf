"""How many replicas run, over supervisors as they are and engines in memory."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.errors import EngineUnavailable, RequestInvalid
from loramux_adapters.events import EventLog
from loramux_adapters.model import Target
from loramux_adapters.ports import LoraEngine
from loramux_serving.engine.copies import Copies, choose
from loramux_serving.engine.fleet import Fleet
from loramux_serving.engine.replica import EngineReplica, ReplicaState
from loramux_serving.engine.supervisor import Patience, Supervisor
from tests.fakes.clock import FakeClock
from tests.fakes.engine_hosts import FakeHosts
from tests.fakes.lora_engine import FakeEngine
from tests.fakes.manager_bench import settle, until

BASE = Target("base", "base")
PATIENCE = Patience(start_timeout_s=20.0, restart_backoff_s=0.02, restart_backoff_max_s=0.02)
READY, STOPPED, DRAINING = ReplicaState.READY, ReplicaState.STOPPED, ReplicaState.DRAINING


class Scene:
    """`detached` has the ids of replicas whose books were closed; `busy` those on which an adapter is in use."""

    def __init__(self, limit: int, wanted: int, drain_timeout_s: float) -> None:
        self.hosts = FakeHosts()
        self.clock = FakeClock()
        self.events = EventLog(self.clock)
        self.replicas = [EngineReplica(f"engine-{index}", clock=self.clock) for index in range(limit)]
        self.fleet = Fleet(self.replicas, lambda name: {})
        self.detached: list[str] = []
        self.busy: set[str] = set()
        self.looks = 0
        self.attach: Callable[[LoraEngine], Awaitable[None]] = self._attach
        client = self.hosts.client()
        self.copies = Copies(
            [
                Supervisor(
                    replica,
                    FakeEngine(replica.id),
                    self.hosts,
                    client,
                    patience=PATIENCE,
                    health_interval_s=5.0,
                    on_ready=lambda engine: self.attach(engine),
                    on_lost=self.detached.append,
                )
                for replica in self.replicas
            ],
            self.events,
            wanted=wanted,
            drain_timeout_s=drain_timeout_s,
            busy=self._look,
            detach=self.detached.append,
            most="as the test says",
        )

    def _look(self, replica_id: str) -> bool:
        self.looks += 1
        return replica_id in self.busy

    async def looked(self, times: int) -> None:
        """So many times more whether a replica has come to an end of its requests."""
        so_far = self.looks
        await until(lambda: self.looks >= so_far + times)

    async def _attach(self, engine: LoraEngine) -> None:
        await asyncio.sleep(0)

    @property
    def states(self) -> list[ReplicaState]:
        return [replica.state for replica in self.replicas]

    async def settled(self) -> None:
        await until(lambda: self.copies.settled)
        assert self.copies.ready == self.copies.wanted == len(self.hosts.running)


@asynccontextmanager
async def scene(limit: int = 2, wanted: int = 1, *, drain_timeout_s: float = 20.0) -> AsyncIterator[Scene]:
    made = Scene(limit, wanted, drain_timeout_s)
    async with made.copies:
        await made.settled()
        yield made
    assert made.hosts.running == frozenset()
    assert made.states == [STOPPED] * limit


async def test_it_begins_with_those_that_are_wanted_and_follows_what_is_set() -> None:
    async with scene(3, 1) as made:
        assert made.states == [READY, STOPPED, STOPPED]
        for count, states in ((3, [READY] * 3), (1, [READY, STOPPED, STOPPED]), (0, [STOPPED] * 3), (2, [READY] * 2)):
            await made.copies.set(count)
            await made.settled()
            assert made.states[: len(states)] == states
    assert made.hosts.started.count("engine-0") == 2


async def test_a_number_that_can_not_be_is_refused_and_changes_nothing() -> None:
    async with scene(2, 1) as made:
        for count in (3, -1):
            with pytest.raises(RequestInvalid, match="0 to 2, as the test says") as caught:
                await made.copies.set(count)
            assert caught.value.details == {"wanted": count, "limit": 2}
        assert (made.copies.limit, made.copies.wanted) == (2, 1)
        assert made.copies.settled


async def test_what_is_set_before_the_start_is_what_it_begins_with() -> None:
    made = Scene(2, 2, 20.0)
    await made.copies.set(1)
    assert made.states == [STOPPED, STOPPED]
    async with made.copies:
        await made.settled()
        assert made.hosts.started == ["engine-0"]


async def test_what_is_set_during_a_start_ends_it_or_lets_it_be() -> None:
    async with scene(2, 0) as made:
        made.hosts.silent = {"engine-0", "engine-1"}
        await made.copies.set(2)
        await until(lambda: len(made.hosts.running) == 2)
        await made.copies.set(1)
        await until(lambda: made.states[1] is STOPPED)
        assert made.states[0] is ReplicaState.STARTING
        made.hosts.silent.clear()
        await made.settled()
        assert made.hosts.started.count("engine-0") == 1


async def test_the_last_of_many_calls_counts() -> None:
    async with scene(3, 0) as made:
        for turn in range(60):
            await made.copies.set((0, 3, 1, 2)[turn % 4])
            for _ in range(turn % 7):
                await asyncio.sleep(0)
        await asyncio.gather(*(made.copies.set(count) for count in (3, 0, 2)))
        assert made.copies.wanted == 2
        await made.settled()


async def test_each_change_is_an_event_and_what_is_no_change_is_none() -> None:
    async with scene(2, 1) as made, made.events.subscribe() as events:
        for count in (1, 2, 2, 0):
            await made.copies.set(count)
        told = [(event.type, event.data) for event in [await anext(events), await anext(events)]]
        assert told == [
            ("replicas.scaled", {"wanted": 2, "before": 1}),
            ("replicas.scaled", {"wanted": 0, "before": 2}),
        ]


# --- draining ---


async def test_a_replica_that_is_to_stop_takes_no_requests_and_finishes_those_under_way() -> None:
    async with scene(2, 2) as made:
        made.fleet.begin(BASE, "engine-1")
        await made.copies.set(1)
        assert made.states == [READY, DRAINING]
        assert {made.fleet.pick(BASE).id for _ in range(4)} == {"engine-0"}
        await made.looked(3)
        assert made.hosts.running == {"engine-0", "engine-1"}
        assert made.detached == []
        made.fleet.end(BASE, "engine-1")
        await made.settled()
        assert set(made.detached) == {"engine-1"}


async def test_what_takes_too_long_breaks_off() -> None:
    async with scene(1, 1, drain_timeout_s=0.05) as made:
        made.fleet.begin(BASE, "engine-0")
        await made.copies.set(0)
        await made.settled()
        made.fleet.end(BASE, "engine-0")


async def test_an_adapter_on_its_way_is_under_way_too() -> None:
    async with scene(1, 1) as made:
        made.busy.add("engine-0")
        await made.copies.set(0)
        await made.looked(3)
        assert made.states == [DRAINING]
        made.busy.clear()
        await made.settled()


async def test_what_is_loaded_before_it_serves_is_not_waited_for() -> None:
    async with scene(1, 0) as made:
        made.attach = _never
        made.busy.add("engine-0")
        await made.copies.set(1)
        await until(lambda: made.hosts.running)
        await made.copies.set(0)
        await made.settled()


async def _never(engine: LoraEngine) -> None:
    await asyncio.Event().wait()


async def test_one_that_drains_is_taken_back_as_it_is() -> None:
    async with scene(2, 2) as made:
        made.fleet.begin(BASE, "engine-1")
        await made.copies.set(1)
        await settle()
        await made.copies.set(2)
        assert made.states == [READY, READY]
        made.fleet.end(BASE, "engine-1")
        await settle()
        assert made.hosts.started == ["engine-0", "engine-1"]
        assert made.hosts.stopped == []


async def test_one_that_was_taken_back_has_all_its_time_again() -> None:
    async with scene(1, 1, drain_timeout_s=0.5) as made:
        made.fleet.begin(BASE, "engine-0")
        for _ in range(3):
            await made.copies.set(0)
            await made.looked(4)
            await made.copies.set(1)
            await settle()
        assert made.hosts.stopped == []
        made.fleet.end(BASE, "engine-0")


async def test_one_that_is_being_ended_is_started_anew() -> None:
    async with scene(1, 1) as made:
        made.hosts.may_stop.clear()
        await made.copies.set(0)
        await until(lambda: made.replicas[0].leaving)
        await made.copies.set(1)
        await settle()
        assert made.states == [DRAINING], "it can not be taken back"
        with pytest.raises(EngineUnavailable, match="The engine is starting"):
            made.fleet.pick(BASE)
        made.hosts.may_stop.set()
        await made.settled()
        assert made.hosts.started == ["engine-0", "engine-0"]


# --- which ---


async def test_one_that_serves_is_kept_before_one_that_does_not() -> None:
    async with scene(2, 2) as made:
        made.hosts.silent.add("engine-0")
        made.hosts.kill("engine-0")
        await until(lambda: made.replicas[0].restarts == 1)
        await made.copies.set(1)
        assert made.replicas[1].state is READY
        await until(lambda: made.copies.settled)
        assert made.states == [STOPPED, READY]
        assert made.hosts.running == {"engine-1"}


async def test_one_that_drains_is_taken_back_where_the_one_that_was_kept_fails() -> None:
    async with scene(2, 2) as made:
        made.fleet.begin(BASE, "engine-1")
        await made.copies.set(1)
        await settle()
        made.hosts.kill("engine-0")
        await until(lambda: made.states[1] is READY)
        made.fleet.end(BASE, "engine-1")
        await made.settled()
        assert made.states == [STOPPED, READY]
        assert made.hosts.started == ["engine-0", "engine-1"]


async def test_one_that_is_killed_while_it_drains_is_not_started_again() -> None:
    async with scene(2, 2) as made:
        made.fleet.begin(BASE, "engine-1")
        await made.copies.set(1)
        await settle()
        made.hosts.kill("engine-1")
        await settle()
        made.fleet.end(BASE, "engine-1")
        await made.settled()
        assert made.states == [READY, STOPPED]


async def test_one_that_is_killed_is_started_again_where_it_is_wanted() -> None:
    async with scene(2, 1) as made:
        made.hosts.kill("engine-0")
        await until(lambda: made.replicas[0].restarts == 1)
        await made.settled()
        assert made.states == [READY, STOPPED]


async def test_one_that_an_operator_drained_goes_first() -> None:
    async with scene(3, 3) as made:
        made.fleet.drain("engine-0")
        await made.copies.set(2)
        await until(lambda: made.copies.settled)
        assert made.states == [STOPPED, READY, READY]


def replica_in(state: ReplicaState, *, wanted: bool, drained: bool, leaving: bool) -> EngineReplica:
    replica = EngineReplica(f"engine-{next(_numbers)}", clock=FakeClock())
    replica.become(state)
    replica.want(wanted)
    replica.drain(drained)
    if leaving and state is not STOPPED:
        replica.leave()
    return replica


_numbers = itertools.count()
_replicas = st.lists(
    st.builds(
        replica_in,
        st.sampled_from([ReplicaState.STARTING, READY, ReplicaState.FAILED, STOPPED]),
        wanted=st.booleans(),
        drained=st.booleans(),
        leaving=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@given(_replicas, st.integers(0, 6))
def test_so_many_are_chosen_and_the_same_again(replicas: list[EngineReplica], count: int) -> None:
    count = min(count, len(replicas))
    chosen = choose(replicas, count)
    assert len(chosen) == count
    serving = {
        replica.id for replica in replicas if replica.engine_state is READY and not (replica.leaving or replica.drained)
    }
    assert len(chosen & serving) == min(count, len(serving))
    for replica in replicas:
        replica.want(replica.id in chosen)
    assert choose(replicas, count) == chosen, "what is kept once is kept"


# --- nothing runs ---


async def test_with_none_wanted_a_request_is_told_so() -> None:
    async with scene(2, 0) as made:
        with pytest.raises(EngineUnavailable, match="loramux replicas scale") as caught:
            made.fleet.pick(BASE)
        assert caught.value.details == {"wanted": 0}
        await made.copies.set(1)
        with pytest.raises(EngineUnavailable, match="The engine is starting"):
            made.fleet.pick(BASE)
        await made.settled()
        assert made.fleet.pick(BASE).id == "engine-0"


# --- the end ---


async def test_the_end_waits_for_no_request_and_outlasts_a_set() -> None:
    made = Scene(3, 2, 3600.0)
    async with asyncio.timeout(10):
        async with made.copies:
            await made.settled()
            made.fleet.begin(BASE, "engine-1")
            await made.copies.set(1)
            await made.copies.set(3)
            await made.copies.set(0)
            made.hosts.may_stop.clear()
            asyncio.get_running_loop().call_later(0.05, made.hosts.may_stop.set)
            late = asyncio.create_task(_set_soon(made, 3))
        await late
    assert made.hosts.running == frozenset()
    assert made.states == [STOPPED] * 3


async def _set_soon(made: Scene, count: int) -> None:
    await settle()
    await made.copies.set(count)
