"""Arrivals are those that were asked for: rates, burstiness and stages, by fixed seeds; and traces."""

import math
import statistics
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramux_bench.errors import ScenarioError
from loramux_bench.load.arrivals import arrivals
from loramux_bench.load.trace import Entry, parse_trace, read_trace
from loramux_bench.scenario import Arrivals, Stage

N = 20_000


def first(count: int, wanted: Arrivals, seed: int = 1) -> list[float]:
    return list(islice(arrivals(wanted, seed), count))


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


kinds = st.builds(
    Arrivals,
    kind=st.sampled_from(["constant", "poisson", "gamma"]),
    rate_per_s=st.floats(0.01, 1e4),
    burstiness=st.floats(0.05, 100),
    stages=st.lists(
        st.builds(
            Stage,
            rate_per_s=st.sampled_from([0.0, 0.5, 3.0, 20.0]),
            to_rate_per_s=st.sampled_from([None, 0.0, 1.0, 17.0]),
            duration_s=st.floats(0.1, 20),
        ),
        max_size=4,
    ).map(tuple),
)


@given(kinds, st.integers(0, 2**32))
@settings(deadline=None)
def test_times_ascend_from_zero_and_are_the_same_each_time(wanted: Arrivals, seed: int) -> None:
    times = first(300, wanted, seed)
    assert all(time >= 0 for time in times)
    assert times == sorted(times)
    assert times == first(300, wanted, seed)
    if wanted.stages:
        assert all(time <= sum(stage.duration_s for stage in wanted.stages) for time in times)
    else:
        assert len(times) == 300


def test_another_seed_gives_other_times() -> None:
    assert first(10, Arrivals(), seed=1) != first(10, Arrivals(), seed=2)


def test_constant_is_evenly_spaced_from_the_start() -> None:
    assert first(4, Arrivals(kind="constant", rate_per_s=4)) == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("rate_per_s", [0.5, 50.0])
def test_rate_and_variation_are_those_of_the_gamma_distribution(
    rate_per_s: float, burstiness: float, seed: int
) -> None:
    found = gaps(first(N, Arrivals(kind="gamma", rate_per_s=rate_per_s, burstiness=burstiness), seed))
    variation = 1 / math.sqrt(burstiness)
    # Four standard errors of the mean of N gaps.
    assert statistics.fmean(found) * rate_per_s == pytest.approx(1, abs=4 * variation / math.sqrt(N))
    assert statistics.stdev(found) * rate_per_s == pytest.approx(variation, rel=0.06)


def test_poisson_is_gamma_of_burstiness_one_and_its_counts_vary_as_they_should() -> None:
    times = first(N, Arrivals(kind="poisson", rate_per_s=10, burstiness=0.1))
    assert times == first(N, Arrivals(kind="gamma", rate_per_s=10, burstiness=1))
    counts = [0] * int(times[-1])
    for time in times:
        if time < len(counts):
            counts[int(time)] += 1
    assert statistics.fmean(counts) == pytest.approx(10, rel=0.05)
    assert statistics.variance(counts) == pytest.approx(10, rel=0.15)


def test_small_burstiness_comes_in_clumps() -> None:
    def short(burstiness: float) -> float:
        found = gaps(first(N, Arrivals(kind="gamma", burstiness=burstiness)))
        return sum(gap < 0.1 for gap in found) / len(found)

    assert short(0.25) > 0.4 > 0.15 > short(1.0) > short(4.0)


STAGES = (
    Stage(rate_per_s=10, duration_s=10),
    Stage(rate_per_s=10, to_rate_per_s=50, duration_s=20),
    Stage(rate_per_s=0, duration_s=5),
    Stage(rate_per_s=0, to_rate_per_s=40, duration_s=10),
    Stage(rate_per_s=40, to_rate_per_s=0, duration_s=10),
)
AREAS = (100, 600, 0, 200, 200)


def counts_of(times: list[float]) -> list[int]:
    ends = [sum(stage.duration_s for stage in STAGES[: position + 1]) for position in range(len(STAGES))]
    return [sum(begin <= time < end for time in times) for begin, end in zip([0.0, *ends[:-1]], ends, strict=True)]


def test_each_stage_has_as_many_as_its_rates_make() -> None:
    assert counts_of(list(arrivals(Arrivals(kind="constant", stages=STAGES), 1))) == pytest.approx(AREAS, abs=1)
    for seed in range(5):
        found = counts_of(list(arrivals(Arrivals(kind="poisson", stages=STAGES), seed)))
        for count, area in zip(found, AREAS, strict=True):
            assert abs(count - area) <= 4 * math.sqrt(area)


def test_a_ramp_is_linear() -> None:
    """The k-th of a ramp from 0 to r over T lies at T·√(k/(r·T/2)); of its mirror image as far from the end."""
    up = Arrivals(kind="constant", stages=(Stage(rate_per_s=0, to_rate_per_s=20, duration_s=10),))
    assert list(arrivals(up, 1)) == pytest.approx([10 * math.sqrt(k / 100) for k in range(100)])
    down = Arrivals(kind="constant", stages=(Stage(rate_per_s=20, to_rate_per_s=0, duration_s=10),))
    assert list(arrivals(down, 1)) == pytest.approx([10 - 10 * math.sqrt(1 - k / 100) for k in range(100)])


def test_stages_without_a_rate_bring_nothing() -> None:
    assert list(arrivals(Arrivals(stages=(Stage(rate_per_s=0, duration_s=60),)), 1)) == []


def test_a_trace_is_replayed_at_its_speed() -> None:
    trace = (Entry(at_s=0), Entry(at_s=0.5), Entry(at_s=0.5), Entry(at_s=3))
    assert list(arrivals(Arrivals(kind="trace", trace="t.jsonl", speed=2), 1, trace)) == [0, 0.25, 0.25, 1.5]


def test_traces_of_both_forms(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(
        '{"at_s": 0.25}\n\n'
        '{"at_s": 0.25, "adapter": "pirate", "input_tokens": 3, "output_tokens": 4, "prompt": "Ärr"}\n'
        '{"timestamp": 1500, "input_length": 6955, "output_length": 52, "hash_ids": [1, 2]}'
    )
    assert read_trace(path) == (
        Entry(at_s=0.25),
        Entry(at_s=0.25, adapter="pirate", input_tokens=3, output_tokens=4, prompt="Ärr"),
        Entry(at_s=1.5, input_tokens=6955, output_tokens=52),
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"at once", "malformed"),
        (b'{"at_s": 2', "truncated"),
        (b"[1]", "array"),
        (b"{}", "at_s"),
        (b'{"at_s": -1}', "at_s"),
        (b'{"at_s": "soon"}', "at_s"),
        (b'{"at_s": 1e999}', "range"),
        (b'{"at_s": 2, "tokens": 3}', "tokens"),
        (b'{"at_s": 2, "input_tokens": 0}', "input_tokens"),
        (b'{"at_s": 2, "output_tokens": 1.5}', "output_tokens"),
        (b'{"at_s": 2, "prompt": ""}', "prompt"),
        (b'{"timestamp": 2, "input_length": 0}', "input_length"),
        (b'{"at_s": 2, "adapter": "\xff"}', "utf-8"),
        (b'{"at_s": 0.5}', "Sort it"),
    ],
)
def test_a_fault_of_a_trace_is_told_with_its_line(line: bytes, why: str) -> None:
    with pytest.raises(ScenarioError, match=rf"t\.jsonl.* line 3.*{why}"):
        parse_trace([b'{"at_s": 1}', b"", line], "t.jsonl")


def test_a_trace_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="can not be read"):
        read_trace(tmp_path)
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(ScenarioError, match="no arrivals"):
        read_trace(tmp_path / "empty")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_any_ascending_times_are_a_trace(times: list[float]) -> None:
    times.sort()
    lines = [b'{"at_s": %r}' % time for time in times]
    assert [entry.at_s for entry in parse_trace(lines, "t")] == times
