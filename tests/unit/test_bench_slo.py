"""Objectives: how they are written, and who keeps them."""

import math
from typing import Any

import numpy as np
import pytest

from loramux_bench.errors import ScenarioError
from loramux_bench.record import RequestRecord
from loramux_bench.results.slo import STATISTICS, allowed, holds, meets, meets_all, parse


def _request(**fields: Any) -> RequestRecord:
    """First token after 0.2 s, three more after 0.1, 0.1 and 0.4 s: a TPOT of 0.2 s, 5 tokens/s."""
    known: dict[str, Any] = {
        "index": 0,
        "target": "loramux",
        "api": "openai-chat",
        "adapter": "pirate",
        "sent_s": 1.0,
        "first_token_s": 1.2,
        "end_s": 1.8,
        "gaps_s": (0.1, 0.1, 0.4),
        "chunks": 4,
        "output_tokens": 4,
        "prompt_tokens_wanted": 8,
        "output_tokens_wanted": 4,
    }
    return RequestRecord(**{**known, **fields})


@pytest.mark.parametrize(
    ("text", "measure", "statistic", "limit"),
    [
        ("ttft:p99:500ms", "ttft", "p99", 0.5),
        ("ttft:p50:1.5s", "ttft", "p50", 1.5),
        ("itl:p95:250us", "itl", "p95", 0.00025),
        ("itl:p95:250µs", "itl", "p95", 0.00025),
        ("tpot:mean:.02", "tpot", "mean", 0.02),
        (" e2e : max : 30 s ", "e2e", "max", 30.0),
        ("speed:p25:12tok/s", "speed", "p25", 12.0),
        ("speed:min:12", "speed", "min", 12.0),
        ("error_rate:1%", "error_rate", "", 0.01),
        ("error_rate:0.01", "error_rate", "", 0.01),
        ("throughput:120", "throughput", "", 120.0),
        ("throughput:120tokens/s", "throughput", "", 120.0),
        ("goodput:3.5req/s", "goodput", "", 3.5),
        ("rps:2", "rps", "", 2.0),
    ],
)
def test_limits_are_in_the_measures_unit(text: str, measure: str, statistic: str, limit: float) -> None:
    slo = parse(text)
    assert (slo.measure, slo.statistic, slo.relative, slo.text) == (measure, statistic, False, text)
    assert slo.limit == pytest.approx(limit, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "limit"), [("ttft:p99:+20%", 0.2), ("throughput:-5%", -0.05), ("error_rate:+1%", 0.01)]
)
def test_a_limit_with_a_sign_is_against_a_baseline(text: str, limit: float) -> None:
    slo = parse(text)
    assert slo.relative
    assert slo.limit == pytest.approx(limit)
    assert not slo.of_requests


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latency:p99:1s", "there are ttft, itl, tpot, e2e, speed, rps, throughput, goodput, error_rate"),
        ("", "there are ttft"),
        ("ttft:p98:1s", "there are p25, p50, p75, p90, p95, p99, mean, min, max"),
        ("ttft:1s", "ttft:statistic:limit"),
        ("ttft:p99:1s:2s", "ttft:statistic:limit"),
        ("throughput:p99:100", "throughput:limit"),
        ("ttft:p99:fast", "us or µs or ms or s"),
        ("ttft:p99:", "it is a number"),
        ("ttft:p99:nan", "it is a number"),
        ("ttft:p99:1e3", "it is a number"),
        ("ttft:p99:5min", "it can be in us, µs, ms, s"),
        ("ttft:p99:5%", "it can be in us, µs, ms, s"),
        ("ttft:p99:-5ms", "a change is in percent"),
        ("ttft:p99:+5", "a change is in percent"),
        ("error_rate:5", "above 100 %"),
        ("error_rate:101%", "above 100 %"),
    ],
)
def test_what_is_not_right_is_refused_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=r"\.$") as caught:
        parse(text)
    assert said in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("ttft:p99:201ms", True),
        ("ttft:p25:199ms", False),
        ("tpot:mean:201ms", True),
        ("tpot:mean:199ms", False),
        ("e2e:p50:801ms", True),
        ("e2e:p50:799ms", False),
        ("speed:p50:4.9tok/s", True),
        ("speed:p50:5.1tok/s", False),
        ("itl:p50:100ms", True),
        ("itl:max:399ms", False),
        ("itl:mean:201ms", True),
        ("itl:mean:199ms", False),
        ("error_rate:0%", True),
        ("throughput:1000000", True),
        ("ttft:p99:-90%", True),
    ],
)
def test_a_request_keeps_an_objective_by_itself(text: str, kept: bool) -> None:
    assert meets(parse(text), _request()) is kept


def test_what_was_not_answered_keeps_none() -> None:
    for text in ("ttft:p99:10s", "error_rate:100%"):
        assert not meets(parse(text), _request(error="timeout"))
        assert not meets(parse(text), _request(cut=True))
    assert not meets_all([], _request(error="timeout"))


def test_what_has_no_value() -> None:
    single = _request(gaps_s=(), chunks=1, output_tokens=1)
    empty = _request(first_token_s=None, gaps_s=(), chunks=0, output_tokens=0)
    assert meets(parse("itl:p99:1us"), single)
    assert meets(parse("tpot:p99:1us"), single)
    assert not meets(parse("ttft:p99:10s"), empty)
    assert not meets(parse("speed:p50:0"), empty)


def test_goodput_asks_for_all() -> None:
    near, far = parse("ttft:p99:1s"), parse("e2e:p99:0.1s")
    assert meets_all([near], _request())
    assert not meets_all([near, far], _request())


def test_a_limit_is_kept_when_reached() -> None:
    assert holds(parse("ttft:p99:500ms"), 0.5)
    assert not holds(parse("ttft:p99:500ms"), math.nextafter(0.5, 1))
    assert holds(parse("throughput:120"), 120.0)
    assert not holds(parse("throughput:120"), 119.9)
    assert not holds(parse("throughput:120"), math.nan)
    assert not holds(parse("ttft:p99:500ms"), math.nan)


def test_a_change_is_of_the_baselines_figure_and_of_errors_in_points() -> None:
    assert allowed(parse("ttft:p99:+20%"), 0.5) == pytest.approx(0.6)
    assert holds(parse("throughput:-5%"), 95.1, 100.0)
    assert not holds(parse("throughput:-5%"), 94.9, 100.0)
    assert allowed(parse("error_rate:+1%"), 0.02) == pytest.approx(0.03)
    with pytest.raises(ScenarioError, match="there is none"):
        holds(parse("ttft:p99:+20%"), 0.5)


def test_statistics_are_those_of_numpy() -> None:
    values = np.array([3.0, 1.0, 2.0, 10.0])
    assert {name: take(values) for name, take in STATISTICS.items()} == pytest.approx(
        {
            "p25": 1.75,
            "p50": 2.5,
            "p75": 4.75,
            "p90": 7.9,
            "p95": 8.95,
            "p99": 9.79,
            "mean": 4.0,
            "min": 1.0,
            "max": 10.0,
        }
    )
