"""When a canary ends by itself."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.canary import Side, Trial, Verdict, Window, check_rule, judge
from loramux_adapters.errors import RequestInvalid
from loramux_adapters.model import CanaryRule

LIMITS = CanaryRule(
    window_s=60.0, min_requests=10, max_error_rate=0.1, max_p95_s=2.0, max_p95_ratio=1.5, promote_after_s=120.0
)
GOOD = Side(100, 0, 1.0)


def test_a_rule_that_holds_promotes_when_its_time_is_over() -> None:
    assert judge(LIMITS, GOOD, GOOD, 119.9) is None
    assert judge(LIMITS, GOOD, GOOD, 120.0) == Verdict(True, "Its rule held for 120 s.")


@pytest.mark.parametrize(
    ("canary", "live", "why"),
    [
        (Side(100, 11, 1.0), GOOD, "11 of 100 requests failed within 60 s, more than 10 %."),
        (Side(100, 0, 2.01), Side(100, 0, 2.0), "p95 was 2.01 s within 60 s, more than 2 s."),
        (Side(100, 0, 1.6), GOOD, "p95 was 1.6 s within 60 s, more than 1.5 times that of the live version, 1 s."),
        # More failed than 10 requests may: the other eight would not change it.
        (Side(2, 2, None), GOOD, "2 of 2 requests failed within 60 s, more than 10 %."),
    ],
)
@pytest.mark.parametrize("age_s", [1.0, 1000.0])
def test_a_rule_that_is_broken_ends_it_at_once(canary: Side, live: Side, why: str, age_s: float) -> None:
    assert judge(LIMITS, canary, live, age_s) == Verdict(False, why)


@pytest.mark.parametrize(
    ("canary", "live"),
    [
        (Side(), GOOD),
        (Side(9, 0, 1.0), GOOD),
        (Side(9, 0, 99.0), GOOD),
        (Side(1, 1, None), GOOD),
        (GOOD, Side(9, 0, 1.0)),
        (GOOD, Side()),
        (Side(100, 0, 1.6), Side(9, 0, 1.0)),
    ],
)
def test_what_can_not_be_judged_yet_goes_on(canary: Side, live: Side) -> None:
    assert judge(LIMITS, canary, live, 1000.0) is None


def test_without_a_time_nothing_is_promoted() -> None:
    assert judge(CanaryRule(max_error_rate=0.5), GOOD, GOOD, 1e9) is None


def test_no_error_at_all_may_be_asked_for() -> None:
    rule = CanaryRule(max_error_rate=0.0)
    assert judge(rule, Side(1, 0, 1.0), GOOD, 0.0) is None
    assert judge(rule, Side(1, 1, None), GOOD, 0.0) is not None


def test_where_nothing_was_answered_nothing_is_promoted() -> None:
    assert judge(CanaryRule(promote_after_s=1.0), Side(100, 100, None), GOOD, 9.0) is None


@pytest.mark.parametrize(
    "rule",
    [
        CanaryRule(),
        CanaryRule(max_error_rate=1.0),
        CanaryRule(max_error_rate=-0.1),
        CanaryRule(max_error_rate=math.nan),
        CanaryRule(max_p95_s=0.0),
        CanaryRule(max_p95_s=math.inf),
        CanaryRule(max_p95_ratio=-1.0),
        CanaryRule(promote_after_s=0.0),
        CanaryRule(max_error_rate=0.1, window_s=0.5),
        CanaryRule(max_error_rate=0.1, window_s=math.nan),
        CanaryRule(max_error_rate=0.1, window_s=1e6),
        CanaryRule(max_error_rate=0.1, min_requests=0),
    ],
)
def test_rules_that_can_not_be(rule: CanaryRule) -> None:
    with pytest.raises(RequestInvalid):
        check_rule(rule)


def test_a_rule_that_can() -> None:
    assert check_rule(LIMITS) is LIMITS


# --- the window ---


def test_a_window_forgets_what_is_older() -> None:
    window = Window(60.0)
    window.count(100.0, None)
    window.count(101.0, 0.5)
    assert window.look(101.0) == Side(2, 1, pytest.approx(0.5, rel=0.025))
    assert window.look(140.0).requests == 2
    assert window.look(162.0) == Side()


@given(st.lists(st.floats(0.001, 3000.0), min_size=1, max_size=300))
def test_a_p95_is_right_within_a_fortieth(durations: list[float]) -> None:
    window = Window(60.0)
    for duration in durations:
        window.count(5.0, duration)
    exact = sorted(durations)[math.ceil(0.95 * len(durations)) - 1]
    assert window.look(5.0).p95_s == pytest.approx(exact, rel=0.025)


@given(st.lists(st.tuples(st.floats(0.0, 30.0), st.booleans()), max_size=200))
def test_a_window_counts_what_a_list_would(steps: list[tuple[float, bool]]) -> None:
    """But for what is about to leave it."""
    window, at, ended = Window(60.0), 1000.0, list[tuple[float, bool]]()
    for pause_s, failed in steps:
        at += pause_s
        window.count(at, None if failed else 1.0)
        ended.append((at, failed))
        found = window.look(at)
        surely = [each for each in ended if each[0] > at - 58.0]
        perhaps = [each for each in ended if each[0] > at - 60.0]
        assert len(surely) <= found.requests <= len(perhaps)
        assert sum(failed for _, failed in surely) <= found.errors <= sum(failed for _, failed in perhaps)


def test_odd_durations_count() -> None:
    window = Window(60.0)
    for duration in (0.0, 1e-9, 1e9, math.inf):
        window.count(1.0, duration)
    assert window.look(1.0).requests == 4


def test_memory_does_not_grow_with_requests() -> None:
    window, dice = Window(60.0), random.Random(1)
    for number in range(50_000):
        window.count(number / 100.0, dice.expovariate(1.0))
    assert len(window._slices) <= 31
    assert all(len(each.steps) <= 351 for each in window._slices)


# --- a trial ---


def test_a_trial_compares_two_versions_and_no_others() -> None:
    trial = Trial(LIMITS, canary=2, live=1, since=1000.0)
    for number in range(20):
        trial.count(1, float(number), 1.0)
        trial.count(2, float(number), 1.2)
        trial.count(3, float(number), None)
    assert trial.end(20.0, 1020.0) is None
    end = trial.end(20.0, 1120.0)
    assert end is not None
    assert (end.version, end.promoted, end.by_rule, end.at) == (2, True, True, 1120.0)
    assert end.figures is not None
    assert (end.figures.requests, end.figures.errors, end.figures.live_requests) == (20, 0, 20)
    assert end.figures.p95_s == pytest.approx(1.2, rel=0.025)
    for _ in range(5):
        trial.count(2, 21.0, None)
    broken = trial.end(21.0, 1121.0)
    assert broken is not None
    assert (broken.promoted, broken.reason) == (False, "5 of 25 requests failed within 60 s, more than 10 %.")
