"""How much adapters are asked for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.demand import Demand

LN2 = math.log(2)


def test_a_request_counts_half_after_each_half_life() -> None:
    demand = Demand(10.0)
    assert demand.rate("a", 5.0) == 0.0
    demand.count("a", 100.0)
    assert demand.rate("a", 100.0) == pytest.approx(LN2 / 10)
    assert demand.rate("a", 110.0) == pytest.approx(LN2 / 20)
    demand.count("a", 110.0)
    assert demand.rate("a", 110.0) == pytest.approx(LN2 / 10 * 1.5)


def test_a_steady_rate_is_found() -> None:
    demand = Demand(60.0)
    for number in range(20 * 600):
        demand.count("a", number / 20)
    assert demand.rate("a", 600.0) == pytest.approx(20.0, rel=0.01)


def test_the_highest_come_first() -> None:
    demand = Demand(10.0)
    for name in "abcbccd":
        demand.count(name, 1.0)
    demand.count("a", 31.0)
    assert [name for name, _ in demand.top(3, 31.0)] == ["a", "c", "b"]
    assert dict(demand.top(9, 31.0)) == {name: demand.rate(name, 31.0) for name in "abcd"}
    assert demand.top(0, 31.0) == []


def test_what_takes_the_place_of_others_has_their_demand() -> None:
    demand = Demand(10.0)
    for name in "aabc":
        demand.count(name, 1.0)
    demand.inherit("d", "ab")
    demand.inherit("c", ["nobody"])
    demand.inherit("nobody", [])
    assert demand.rate("d", 5.0) == demand.rate("a", 5.0) > demand.rate("c", 5.0) == demand.rate("b", 5.0)
    assert len(demand) == 4


def test_a_clock_that_runs_for_years_does_not_overflow() -> None:
    demand = Demand(0.5)
    for second in (0.0, 1e9, 2e9):
        demand.count("a", second)
    assert demand.rate("a", 2e9) == pytest.approx(LN2 / 0.5)
    assert demand.rate("a", 4e9) == 0.0


def test_what_nobody_asks_for_is_forgotten() -> None:
    demand = Demand(1.0)
    for number in range(1000):
        demand.count(f"old{number}", 0.0)
    for number in range(600):
        demand.count("busy", 11.0 + number / 1000)
    assert len(demand) == 1


def test_no_more_are_kept_than_said() -> None:
    demand = Demand(1e9, most=100)
    for number in range(1000):
        demand.count(f"a{number}", float(number))
    assert len(demand) == 100
    assert demand.rate("a999", 1000.0) > 0 == demand.rate("a1", 1000.0)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 5.0)), max_size=60),
    st.floats(0.5, 100.0),
)
def test_it_is_the_sum_of_what_every_request_weighs(requests: list[tuple[str, float]], half_life_s: float) -> None:
    demand = Demand(half_life_s)
    asked: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    now = 1000.0
    for name, pause in requests:
        now += pause
        demand.count(name, now)
        asked[name].append(now)
    for name, times in asked.items():
        weight = sum(2.0 ** ((time - now) / half_life_s) for time in times)
        # What is forgotten weighed less than a thousandth of a request.
        assert demand.rate(name, now) * half_life_s / LN2 == pytest.approx(weight, rel=1e-6, abs=1.1e-3)
