import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.model import Tier
from loramux_serving.routing import SPREAD_FACTOR, SPREAD_MARGIN, Candidate, choose

BUSY = SPREAD_MARGIN + 1
SLOTS = 8


def replica(
    name: str, *, ready: bool = True, tier: Tier | None = Tier.GPU, outstanding: int = 0, adapters: int = 0
) -> Candidate:
    return Candidate(name, ready, tier, outstanding, adapters, SLOTS)


CPU, DISK = Tier.CPU, Tier.DISK


@pytest.mark.parametrize(
    ("candidates", "avoid", "expected"),
    [
        ([], (), None),
        ([replica("a", ready=False)], (), None),
        ([replica("a", ready=False), replica("b")], (), "b"),
        ([replica("a", outstanding=2), replica("b", outstanding=1)], (), "b"),
        ([replica("a", tier=CPU), replica("b", outstanding=4)], (), "b"),
        ([replica("a", tier=None), replica("b", tier=CPU, outstanding=4, adapters=3)], (), "b"),
        ([replica("a", tier=DISK, adapters=1), replica("b", tier=None)], (), "b"),
        ([replica("a", tier=CPU, adapters=2), replica("b", tier=CPU, adapters=1, outstanding=4)], (), "b"),
        ([replica("a", tier=None, outstanding=1), replica("b", tier=None)], (), "b"),
        ([replica("a", tier=CPU, adapters=SLOTS), replica("b", tier=None, adapters=SLOTS - 1)], (), "b"),
        ([replica("a", outstanding=BUSY), replica("b", tier=CPU)], (), "b"),
        ([replica("a", outstanding=BUSY - 1), replica("b", tier=None)], (), "a"),
        ([replica("a", outstanding=BUSY), replica("b", tier=None, adapters=SLOTS)], (), "a"),
        ([replica("a", outstanding=BUSY + 9), replica("b", tier=None, outstanding=5)], (), "a"),
        ([replica("a"), replica("b", outstanding=9)], ("a",), "b"),
        ([replica("a"), replica("b", tier=None)], ("a",), "b"),
        ([replica("a", outstanding=1), replica("b")], ("a", "b"), "b"),
        ([replica("a"), replica("b", ready=False)], ("a",), "a"),
    ],
    ids=[
        "none at all",
        "none ready",
        "the ready one",
        "fewest outstanding",
        "in a slot before idle",
        "in host memory before idle",
        "on disk is not held",
        "fewest adapters where it is in no slot",
        "fewest outstanding where none holds it",
        "rather load than wait for a slot",
        "a hot one spreads",
        "not before the margin",
        "not to where it would wait for a slot",
        "not below the factor",
        "not the avoided one",
        "rather cold than avoided",
        "all avoided: the best of them",
        "avoided where it is the only one",
    ],
)
def test_choice(candidates: list[Candidate], avoid: tuple[str, ...], expected: str | None) -> None:
    assert choose(candidates, avoid=avoid) == expected


def test_equals_take_turns() -> None:
    candidates = [replica("a"), replica("b"), replica("busy", outstanding=1), replica("c")]

    assert [choose(candidates, turn=turn) for turn in range(6)] == ["a", "b", "c", "a", "b", "c"]


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.uuids().map(str),
        st.booleans(),
        st.sampled_from([None, *Tier]),
        st.integers(0, 40),
        st.integers(0, 9),
        st.just(SLOTS),
    ),
    max_size=6,
)


@given(CANDIDATES, st.integers(0, 9))
def test_whatever_is_chosen_is_ready_and_no_replica_is_left_idle_beside_a_heap(
    candidates: list[Candidate], turn: int
) -> None:
    chosen = choose(candidates, turn=turn)
    ready = {candidate.id: candidate for candidate in candidates if candidate.ready}
    if chosen is None:
        assert not ready
        return
    free = [candidate for candidate in ready.values() if not candidate.crowded]
    assert not free or not ready[chosen].crowded
    if free:
        assert ready[chosen].outstanding <= SPREAD_FACTOR * min(each.outstanding for each in free) + SPREAD_MARGIN
