from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loramux_adapters.errors import EngineUnavailable, ReplicaNotFound
from loramux_adapters.model import Capabilities, Target, Tier
from loramux_serving.engine.fleet import Fleet
from loramux_serving.engine.replica import EngineReplica, ReplicaState
from tests.fakes.clock import FakeClock

BASE = Target("base", "base")
ADAPTER = Target("poet", "poet@0123456789ab", 1, "0" * 64)


def replicas(count: int = 3) -> list[EngineReplica]:
    made = [EngineReplica(f"engine-{index}", clock=FakeClock()) for index in range(count)]
    for replica in made:
        replica.become(ReplicaState.READY)
    return made


def fleet(members: list[EngineReplica], *, slots: int = 8, **holders: set[str]) -> Fleet:
    """`holders`: by adapter, the replicas that have it in host memory."""
    return Fleet(members, lambda name: dict.fromkeys(holders.get(name.split("@")[0], ()), Tier.CPU), slots=slots)


@contextmanager
def under_way(whole: Fleet, target: Target, replica_id: str) -> Iterator[None]:
    """A request."""
    whole.begin(target, replica_id)
    try:
        yield
    finally:
        whole.end(target, replica_id)


def adapter(name: str) -> Target:
    return Target(name, f"{name}@0123456789ab", 1, "0" * 64)


def able(max_loras: int) -> Capabilities:
    return Capabilities(dynamic_lora=True, max_loras=max_loras, max_cpu_loras=32, max_lora_rank=16, evict=True)


def test_an_adapter_goes_to_a_replica_that_holds_it() -> None:
    whole = fleet(replicas(), poet={"engine-1"})
    with under_way(whole, BASE, "engine-1"), under_way(whole, BASE, "engine-1"):
        assert whole.pick(ADAPTER).id == "engine-1"


def test_the_base_is_held_by_all() -> None:
    whole = fleet(replicas())
    with under_way(whole, BASE, "engine-0"), under_way(whole, ADAPTER, "engine-1"):
        assert whole.pick(BASE).id == "engine-2"


def test_outstanding_requests_are_counted_back_on_error() -> None:
    (member,) = members = replicas(1)
    whole = fleet(members)

    def fail() -> None:
        with under_way(whole, ADAPTER, member.id):
            assert member.outstanding == 1
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    assert member.outstanding == 0
    assert whole.slots() == 8


def test_an_adapter_goes_to_where_it_runs_before_where_it_is_held() -> None:
    whole = fleet(replicas(), poet={"engine-0", "engine-1"})
    with under_way(whole, ADAPTER, "engine-2"), under_way(whole, ADAPTER, "engine-2"):
        assert whole.pick(ADAPTER).id == "engine-2"


def test_a_new_adapter_goes_to_where_the_fewest_run() -> None:
    whole = fleet(replicas(2))
    with (
        under_way(whole, adapter("a"), "engine-0"),
        under_way(whole, BASE, "engine-1"),
        under_way(whole, BASE, "engine-1"),
    ):
        assert whole.pick(ADAPTER).id == "engine-1"


def test_no_replica_gets_more_adapters_than_slots_while_another_has_one() -> None:
    whole = fleet(replicas(2), slots=1, poet={"engine-0"})
    with under_way(whole, adapter("a"), "engine-0"):
        assert whole.pick(ADAPTER).id == "engine-1"
        with under_way(whole, adapter("b"), "engine-1"):
            assert whole.pick(ADAPTER).id == "engine-0", "both are full: where it is held"
            assert whole.pick(adapter("b")).id == "engine-1"


def test_slots_are_those_of_the_ready_replicas() -> None:
    members = replicas(3)
    members[0].capabilities = able(4)
    members[1].capabilities = able(2)
    whole = fleet(members, slots=8)
    assert whole.slots() == 14
    members[2].drain(True)
    assert whole.slots() == 6
    for member in members[:2]:
        member.become(ReplicaState.FAILED)
    assert whole.slots() == 8, "none is ready: as many as one will have"


def test_an_adapter_on_two_replicas_takes_two_slots() -> None:
    members = replicas(2)
    whole = fleet(members, slots=2)
    with under_way(whole, ADAPTER, "engine-0"):
        assert whole.slots() == 4
        with under_way(whole, ADAPTER, "engine-1"), under_way(whole, ADAPTER, "engine-1"):
            assert whole.slots() == 3
            members[1].drain(True)
            assert whole.slots() == 2
            members[1].drain(False)
        assert whole.slots() == 4


def test_equals_take_turns() -> None:
    whole = fleet(replicas())

    assert [whole.pick(BASE).id for _ in range(4)] == ["engine-0", "engine-1", "engine-2", "engine-0"]


@pytest.mark.parametrize("state", [ReplicaState.STARTING, ReplicaState.FAILED, ReplicaState.STOPPED])
def test_none_but_a_ready_replica_is_picked(state: ReplicaState) -> None:
    members = replicas(2)
    members[0].become(state, "Out of memory.")

    assert {fleet(members).pick(BASE).id for _ in range(4)} == {"engine-1"}


def test_drain_and_undrain() -> None:
    members = replicas(2)
    whole = fleet(members)
    whole.drain("engine-0")

    assert {whole.pick(BASE).id for _ in range(4)} == {"engine-1"}
    assert [status.state for status in whole.statuses()] == ["draining", "ready"]

    whole.undrain("engine-0")
    assert {whole.pick(BASE).id for _ in range(4)} == {"engine-0", "engine-1"}
    with pytest.raises(ReplicaNotFound):
        whole.drain("engine-9")


def test_a_drain_outlasts_a_restart() -> None:
    (member,) = replicas(1)
    member.drain(True)
    member.become(ReplicaState.FAILED, "It ended.")
    assert member.state is ReplicaState.FAILED
    member.become(ReplicaState.READY)
    assert member.state is ReplicaState.DRAINING


@pytest.mark.parametrize(
    ("state", "words"),
    [(ReplicaState.STARTING, "is starting"), (ReplicaState.FAILED, "Out of memory")],
)
def test_where_none_is_ready_the_error_says_why_and_when(state: ReplicaState, words: str) -> None:
    members = replicas(2)
    for member in members:
        member.become(state, "Out of memory.")

    with pytest.raises(EngineUnavailable, match=words) as raised:
        fleet(members).pick(BASE)
    assert raised.value.retry_after_s


def test_since_moves_with_the_state_only() -> None:
    clock = FakeClock()
    member = EngineReplica("engine-0", clock=clock)
    begun = member.status().since
    clock.advance(5.0)
    member.become(ReplicaState.STARTING, "still")
    assert member.status().since == begun
    member.become(ReplicaState.READY)
    assert member.status().since == begun + 5.0


def test_each_beginning_of_service_is_told() -> None:
    member = EngineReplica("engine-0", clock=FakeClock())
    told: list[ReplicaState] = []
    member.when_ready(lambda: told.append(member.state))
    member.become(ReplicaState.READY)
    member.become(ReplicaState.READY)
    member.drain(True)
    member.drain(False)
    member.become(ReplicaState.FAILED)
    member.drain(True)
    member.become(ReplicaState.READY)
    assert told == [ReplicaState.READY] * 2
