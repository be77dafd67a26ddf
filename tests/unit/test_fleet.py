import pytest

from loramux_adapters.errors import EngineUnavailable, ReplicaNotFound
from loramux_adapters.model import Target
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


def fleet(members: list[EngineReplica], **holders: set[str]) -> Fleet:
    return Fleet(members, lambda name: holders.get(name.split("@")[0], set()))


def test_an_adapter_goes_to_a_replica_that_holds_it() -> None:
    members = replicas()
    with members[1].request(), members[1].request():
        assert fleet(members, poet={"engine-1"}).pick(ADAPTER).id == "engine-1"


def test_the_base_is_held_by_all() -> None:
    members = replicas()
    with members[0].request(), members[1].request():
        assert fleet(members, base=set()).pick(BASE).id == "engine-2"


def test_outstanding_requests_are_counted_back_on_error() -> None:
    (member,) = replicas(1)

    def fail() -> None:
        with member.request():
            assert member.outstanding == 1
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    assert member.outstanding == 0


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
