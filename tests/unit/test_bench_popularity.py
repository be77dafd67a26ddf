"""Names are asked for as often as the scenario says, by chi-square with fixed seeds."""

import random
from collections import Counter
from collections.abc import Mapping

import pytest

from loramux_bench.errors import ScenarioError
from loramux_bench.load.popularity import Popularity, popularity
from loramux_bench.scenario import Adapters

NAMES = tuple("abcdefghij")
N = 20_000


def chosen(wanted: Popularity, seed: int = 1, count: int = N) -> Counter[str]:
    rng = random.Random(seed)
    return Counter(wanted.choose(index, rng) for index in range(count))


def chi_square(found: Counter[str], weights: Mapping[str, float]) -> float:
    total = sum(weights.values())
    expected = {name: found.total() * weight / total for name, weight in weights.items()}
    assert set(found) <= set(expected)
    return sum((found[name] - count) ** 2 / count for name, count in expected.items())


LIMIT = 27.88
"""Of chi-square with 9 degrees of freedom: exceeded in one of 1000."""


def test_one_is_the_first() -> None:
    assert chosen(popularity(Adapters(choice="one"), NAMES)) == {"a": N}


def test_round_robin_goes_by_the_index_and_draws_nothing() -> None:
    turns, rng = popularity(Adapters(choice="round-robin"), NAMES), random.Random(1)
    before = rng.getstate()
    assert [turns.choose(index, rng) for index in (0, 1, 9, 10, 25)] == ["a", "b", "j", "a", "f"]
    assert rng.getstate() == before


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_uniform(seed: int) -> None:
    found = chosen(popularity(Adapters(choice="uniform"), NAMES), seed)
    assert chi_square(found, dict.fromkeys(NAMES, 1.0)) < LIMIT


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
def test_zipf(alpha: float, seed: int) -> None:
    found = chosen(popularity(Adapters(choice="zipf", alpha=alpha), NAMES), seed)
    assert chi_square(found, {name: rank**-alpha for rank, name in enumerate(NAMES, 1)}) < LIMIT
    # It would tell a wrong exponent.
    assert chi_square(found, {name: rank ** -(alpha + 0.1) for rank, name in enumerate(NAMES, 1)}) > LIMIT


def test_weights_and_those_without_one_never() -> None:
    found = chosen(popularity(Adapters(choice="weights", weights={"c": 3, "a": 1, "j": 0}), NAMES))
    assert set(found) == {"a", "c"}
    assert found["c"] / N == pytest.approx(0.75, abs=0.015)


def test_of_some_that_are_allowed_the_weights_are_those_among_all() -> None:
    found = chosen(popularity(Adapters(choice="zipf"), NAMES, allowed=("j", "b")))
    assert set(found) == {"b", "j"}
    assert found["b"] / found["j"] == pytest.approx(5, rel=0.1)
    turns = popularity(Adapters(choice="round-robin"), NAMES, allowed=("j", "b"))
    assert [turns.choose(index, random.Random(1)) for index in range(3)] == ["b", "j", "b"]


def test_many_names() -> None:
    names = [f"n{number}" for number in range(100_000)]
    rng, zipf = random.Random(1), popularity(Adapters(choice="zipf"), names)
    found = Counter(zipf.choose(index, rng) for index in range(5_000))
    assert found["n0"] / 5_000 == pytest.approx(1 / 12.09, abs=0.015)


def test_what_can_not_be_chosen_is_refused() -> None:
    with pytest.raises(ScenarioError, match="no adapter to ask for"):
        popularity(Adapters(), [])
    with pytest.raises(ScenarioError, match=r"adapters\.weights names x, y"):
        popularity(Adapters(choice="weights", weights={"y": 1, "a": 1, "x": 0}), NAMES)
    for settings in (Adapters(choice="one"), Adapters(choice="weights", weights={"a": 1})):
        with pytest.raises(ScenarioError, match="may call b, c only"):
            popularity(settings, NAMES, allowed=("b", "c"))
    with pytest.raises(ScenarioError, match="may call z only"):
        popularity(Adapters(), NAMES, allowed=("z",))
