import pytest

from loramux_serving.routing import Candidate, choose


def replica(name: str, *, ready: bool = True, resident: bool = True, outstanding: int = 0) -> Candidate:
    return Candidate(name, ready, resident, outstanding)


@pytest.mark.parametrize(
    ("candidates", "avoid", "expected"),
    [
        ([], (), None),
        ([replica("a", ready=False)], (), None),
        ([replica("a", ready=False), replica("b")], (), "b"),
        ([replica("a", outstanding=2), replica("b", outstanding=1)], (), "b"),
        ([replica("a", resident=False), replica("b", outstanding=9)], (), "b"),
        ([replica("a", resident=False, outstanding=1), replica("b", resident=False)], (), "b"),
        ([replica("a"), replica("b", outstanding=9)], ("a",), "b"),
        ([replica("a"), replica("b", resident=False)], ("a",), "b"),
        ([replica("a", outstanding=1), replica("b")], ("a", "b"), "b"),
        ([replica("a"), replica("b", ready=False)], ("a",), "a"),
    ],
    ids=[
        "none at all",
        "none ready",
        "the ready one",
        "fewest outstanding",
        "resident before idle",
        "fewest where none is resident",
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
