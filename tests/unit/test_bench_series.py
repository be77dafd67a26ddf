"""A run over time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_bench.record import RequestRecord
from loramux_bench.results.series import MAX_BINS, series
from loramux_bench.run_dir import Generator, Sample


def _request(
    sent_s: float,
    *,
    ttft_s: float | None = 0.1,
    gaps_s: tuple[float, ...] = (),
    tokens: int | None = None,
    after_s: float = 0.0,
    scheduled_s: float | None = None,
    error: str = "",
    cut: bool = False,
    warmup: bool = False,
) -> RequestRecord:
    """Ends `after_s` after its last chunk."""
    return RequestRecord(
        index=0,
        target="loramux",
        api="openai-chat",
        adapter="pirate",
        warmup=warmup,
        scheduled_s=scheduled_s,
        sent_s=sent_s,
        first_token_s=None if ttft_s is None else sent_s + ttft_s,
        end_s=sent_s + (ttft_s or 0.0) + sum(gaps_s) + after_s,
        gaps_s=gaps_s,
        chunks=0 if ttft_s is None else 1 + len(gaps_s),
        output_tokens=tokens,
        prompt_tokens_wanted=1,
        output_tokens_wanted=1,
        error=error,
        cut=cut,
    )


def _generator(cpu: float, *, worker: int = 0, late_s: float = 0.0) -> Generator:
    return Generator(worker=worker, users=1, in_flight=1, cpu=cpu, machine_cpu=cpu / 2, loop_lag_s=late_s)


def test_rates_and_latencies_of_a_small_run() -> None:
    requests = [
        _request(0.0, ttft_s=0.2, gaps_s=(0.4, 0.5), tokens=6),  # chunks at 0.2, 0.6, 1.1: two tokens each
        _request(1.0, ttft_s=None, after_s=18.0, error="timeout"),
        _request(0.6, scheduled_s=0.1, ttft_s=0.3, after_s=0.2),  # due 0.1, first token 0.9, end 1.1
    ]
    found = series(requests, [])
    assert found.width_s == 0.5
    assert found.at_s[:4] == [0.0, 0.5, 1.0, 1.5]
    assert len(found.at_s) == 38
    assert found.arrivals_per_s[:4] == [4.0, 0.0, 2.0, 0.0]
    assert found.answered_per_s[:4] == [0.0, 0.0, 4.0, 0.0]
    assert found.errors_per_s[-1] == 2.0
    assert sum(found.errors_per_s) == 2.0
    assert found.output_tokens_per_s[:4] == pytest.approx([4.0, 4.0 + 2.0, 4.0, 0.0])
    # In the second half second the first request is there all the time, the third for 0.4 of 0.5 s.
    assert found.in_flight[:4] == pytest.approx([1.0, 1.8, (0.1 + 0.1 + 0.5) / 0.5, 1.0])
    assert found.latencies["ttft"]["p50"][:3] == [pytest.approx(0.2), pytest.approx(0.8), None]
    assert found.latencies["itl"]["p50"][:4] == [None, pytest.approx(0.4), pytest.approx(0.5), None]
    assert found.latencies["e2e"]["p50"][2] == pytest.approx((1.1 + 1.0) / 2)
    assert found.latencies["e2e"]["p99"][2] == pytest.approx(1.0 + 0.99 * 0.1)
    assert found.latencies["e2e"]["p50"][-1] is None  # errors have no latency


def test_warm_up_is_left_out_and_gaps_stay_with_their_request() -> None:
    requests = [
        _request(-50.0, gaps_s=(7.0,) * 5, warmup=True),
        _request(10.0, ttft_s=0.05, gaps_s=(0.1, 0.1)),
        _request(10.0, ttft_s=None, gaps_s=(), error="http_503"),
        _request(10.0, ttft_s=0.05, gaps_s=(0.3,), cut=True),
    ]
    found = series(requests, [])
    assert found.at_s[0] == pytest.approx(10.0)
    assert sum(found.arrivals_per_s) * found.width_s == pytest.approx(3)
    itl = [value for value in found.latencies["itl"]["p99"] if value is not None]
    assert itl == pytest.approx([0.1, 0.1])
    assert sum(found.output_tokens_per_s) * found.width_s == pytest.approx(3 + 2)


def test_what_was_sampled_over_time() -> None:
    requests = [_request(0.0, after_s=19.9)]  # 40 bins of 0.5 s
    samples = [
        Sample(
            at_s=at_s,
            replicas={"engine-0": "ready", "engine-1": "starting" if at_s < 5 else "ready"},
            tiers={"pirate": "gpu", "poet": "disk" if at_s < 5 else "gpu"},
            metrics={
                'loramux_requests_queued{adapter="pirate"}': 2.0,
                'loramux_requests_queued{adapter="poet"}': at_s,
                "loramux_requests_queued_total": 1000.0,
                'loramux_requests_outstanding{replica="engine-0"}': 7.0,
            },
        )
        for at_s in (8.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)  # any order; none after 9 s
    ]
    found = series(requests, samples)
    assert (found.width_s, len(found.at_s)) == (0.5, 40)
    at = {second: second * 2 for second in range(20)}
    assert found.replicas["ready"][at[0]] is None
    assert [found.replicas["ready"][at[second]] for second in (1, 4, 5, 9)] == [1, 1, 2, 2]
    assert found.replicas["starting"][at[4]] == 1
    assert found.replicas["starting"][at[5]] == 0
    assert found.tiers["gpu"][at[4] + 1] == 1  # held from 4.0
    assert found.tiers["gpu"][at[6]] == 2
    assert found.tiers["cpu"][at[6]] == 0
    assert found.queued[at[3] + 1] == 5.0
    assert found.outstanding[at[3]] == 7.0
    assert found.outstanding[at[11]] == 7.0
    assert found.outstanding[at[13]] is None  # more than three intervals old
    assert found.generator_cpu == []


def test_of_several_load_processes_the_worst_shows() -> None:
    samples = [
        Sample(at_s=second + 0.01 * worker, generator=_generator(0.1 + 0.3 * worker, worker=worker, late_s=0.002))
        for second in range(10)
        for worker in range(2)
    ]
    samples.append(Sample(at_s=4.02, generator=_generator(0.9, worker=2, late_s=0.05)))
    samples.append(Sample(at_s=4.04, generator=_generator(0.2, worker=2)))
    found = series([_request(0.0, after_s=9.9)], samples)
    assert found.generator_cpu[7] == 0.4  # between samples of both
    assert found.generator_cpu[8] == 0.9
    assert found.machine_cpu[8] == 0.45
    assert found.loop_lag_s[8] == 0.05
    assert found.loop_lag_s[12] == 0.002
    assert found.replicas == {}
    assert found.queued == []


def test_nothing_measured_gives_one_empty_bin() -> None:
    found = series([_request(0.0, warmup=True)], [Sample(at_s=0.0, generator=_generator(0.2))])
    assert len(found.at_s) == 1
    assert found.arrivals_per_s == [0.0]
    assert found.latencies["ttft"] == {"p50": [None], "p99": [None]}


@pytest.mark.parametrize(
    ("duration_s", "width_s"),
    [(0.5, 0.1), (4.0, 0.1), (20.0, 0.5), (60.0, 1.0), (600.0, 5.0), (86_400.0, 600.0), (4e6, 28_800.0)],
)
def test_bins_are_as_many_as_can_be_read(duration_s: float, width_s: float) -> None:
    found = series([_request(0.0, ttft_s=None, after_s=duration_s)], [])
    assert found.width_s == width_s
    assert len(found.at_s) == pytest.approx(duration_s / width_s, abs=1)
    assert len(found.at_s) <= MAX_BINS


_times = st.floats(0, 300, allow_nan=False).map(lambda value: round(value, 6))


@given(
    st.lists(
        st.builds(
            _request,
            _times,
            ttft_s=st.one_of(st.none(), _times),
            gaps_s=st.just(()),
            tokens=st.one_of(st.none(), st.integers(0, 500)),
            after_s=_times,
            error=st.sampled_from(["", "", "timeout"]),
            cut=st.booleans(),
        )
        | st.builds(_request, _times, gaps_s=st.lists(_times, max_size=20).map(tuple), tokens=st.integers(0, 500)),
        min_size=1,
        max_size=20,
    )
)
def test_areas_below_the_lines_are_the_totals(requests: list[RequestRecord]) -> None:
    found = series(requests, [])

    def area(line: list[float]) -> float:
        return math.fsum(line) * found.width_s

    assert area(found.arrivals_per_s) == pytest.approx(len(requests))
    assert area(found.answered_per_s) == pytest.approx(sum(request.ok for request in requests))
    assert area(found.errors_per_s) == pytest.approx(sum(not r.ok and not r.cut for r in requests))
    assert area(found.output_tokens_per_s) == pytest.approx(sum(request.tokens for request in requests))
    assert area(found.in_flight) == pytest.approx(sum(r.end_s - r.sent_s for r in requests), abs=1e-6)
    assert all(value >= 0 for value in found.in_flight)
