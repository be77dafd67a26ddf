"""What a run would have cost."""

import pytest

from loramux_bench.results.cost import cost, replica_hours
from loramux_bench.run_dir import Sample
from loramux_bench.scenario import Cost


def _sample(at_s: float, *states: str) -> Sample:
    return Sample(at_s=at_s, replicas={f"engine-{number}": state for number, state in enumerate(states)})


def test_replica_hours_are_the_integral_of_what_samples_say() -> None:
    # 2 replicas for 600 s, 1 for 1200 s, 3 for 1800 s: 1200 + 1200 + 5400 = 7800 s.
    samples = [
        _sample(100, "ready", "ready"),
        _sample(700, "ready", "stopped"),
        _sample(1900, "ready", "ready", "ready"),
    ]
    assert replica_hours(samples, from_s=100, to_s=3700) == pytest.approx(7800 / 3600)


def test_the_first_sample_holds_before_it_and_the_last_after_it() -> None:
    samples = [_sample(50, "ready", "ready"), _sample(60, "ready")]
    assert replica_hours(samples, from_s=0, to_s=100) == pytest.approx((2 * 60 + 1 * 40) / 3600)


def test_samples_outside_of_the_measured_time_say_only_what_holds_in_it() -> None:
    samples = [_sample(-30, "ready"), _sample(-10, *["ready"] * 5), _sample(20, "ready"), _sample(90, *["ready"] * 9)]
    assert replica_hours(samples, from_s=0, to_s=40) == pytest.approx((5 * 20 + 1 * 20) / 3600)


@pytest.mark.parametrize(("state", "paid"), [("starting", 1), ("draining", 1), ("failed", 1), ("stopped", 0)])
def test_a_replica_is_paid_for_while_it_holds_its_machine(state: str, paid: int) -> None:
    assert replica_hours([_sample(0, state)], from_s=0, to_s=3600) == paid


def test_samples_in_any_order_and_without_replicas() -> None:
    samples = [_sample(1800, "ready", "ready"), Sample(at_s=900), _sample(0, "ready")]
    assert replica_hours(samples, from_s=0, to_s=3600) == pytest.approx(1.5)
    assert replica_hours([Sample(at_s=0)], from_s=0, to_s=3600) is None
    assert replica_hours([_sample(0)], from_s=0, to_s=3600) == 0


def test_cost_by_requests_and_tokens() -> None:
    found = cost(
        Cost(price_per_replica_hour=6.0, currency="EUR"),
        [_sample(0, "ready", "ready")],
        from_s=0,
        to_s=1800,
        answered=500,
        output_tokens=200_000,
    )
    assert found is not None
    assert (found.replica_hours, found.total, found.currency, found.source) == (1.0, 6.0, "EUR", "samples")
    assert found.per_1000_requests == pytest.approx(12.0)
    assert found.per_million_output_tokens == pytest.approx(30.0)


def test_the_scenario_says_how_many_where_the_endpoint_does_not() -> None:
    price = Cost(price_per_replica_hour=2.0, replicas=3)
    found = cost(price, [], from_s=10, to_s=3610, answered=0, output_tokens=0)
    assert found is not None
    assert (found.replica_hours, found.total, found.source) == (3.0, 6.0, "scenario")
    assert found.per_1000_requests is None
    assert found.per_million_output_tokens is None
    told = cost(price, [_sample(0, "ready")], from_s=10, to_s=3610, answered=1, output_tokens=1)
    assert told is not None
    assert told.replica_hours == 1.0


def test_no_cost_without_a_price_or_a_number() -> None:
    samples = [_sample(0, "ready")]
    assert cost(Cost(), samples, from_s=0, to_s=10, answered=1, output_tokens=1) is None
    assert cost(Cost(price_per_replica_hour=1.0), [], from_s=0, to_s=10, answered=1, output_tokens=1) is None
