"""Whether the load generator was the limit."""

import pytest

from loramux_bench.record import RequestRecord
from loramux_bench.results.generator import judge, peak_in_flight
from loramux_bench.run_dir import Generator, Sample


def _request(
    sent_s: float = 0.0,
    *,
    end_s: float | None = None,
    lag_s: float | None = None,
    ttft_s: float = 0.1,
    gap_s: float = 0.05,
    not_ready_s: float = 0.0,
) -> RequestRecord:
    scheduled_s = None if lag_s is None else sent_s - lag_s - not_ready_s
    origin_s = sent_s if lag_s is None else sent_s - lag_s
    return RequestRecord(
        index=0,
        target="loramux",
        api="openai-chat",
        adapter="pirate",
        scheduled_s=scheduled_s,
        sent_s=sent_s,
        not_ready_s=not_ready_s,
        first_token_s=origin_s + ttft_s,
        end_s=origin_s + ttft_s + gap_s if end_s is None else end_s,
        gaps_s=(gap_s,),
        chunks=2,
        prompt_tokens_wanted=1,
        output_tokens_wanted=2,
    )


def _samples(
    count: int = 100,
    *,
    worker: int = 0,
    cpu: float = 0.3,
    busy: int = 0,
    late_s: float = 0.001,
    late: int = 0,
    machine_cpu: float = 0.5,
) -> list[Sample]:
    """`busy` of them with a process at 95 % of its core, `late` of them with a late timer."""
    return [
        Sample(
            at_s=number / count,
            generator=Generator(
                worker=worker,
                users=1,
                in_flight=1,
                cpu=0.95 if number < busy else cpu,
                machine_cpu=machine_cpu,
                loop_lag_s=late_s if number < late else 0.0005,
            ),
        )
        for number in range(count)
    ]


CLOSED = [_request(0.0, end_s=1.0), _request(0.1), _request(0.2)]


def _reasons(requests: list[RequestRecord], samples: list[Sample], max_in_flight: int | None = None) -> list[str]:
    verdict = judge(requests, samples, max_in_flight=max_in_flight, loopback=True)
    assert verdict.limited == bool(verdict.reasons)
    return verdict.reasons


def test_a_generator_with_time_to_spare_is_not_the_limit() -> None:
    verdict = judge(CLOSED, _samples(), max_in_flight=None, loopback=False)
    assert not verdict.limited
    assert (verdict.reasons, verdict.cautions) == ([], [])
    assert (verdict.samples, verdict.cpu_max, verdict.machine_cpu_mean) == (100, 0.3, pytest.approx(0.5))
    assert verdict.lag_p99_s is None
    assert verdict.in_flight_max == 3


@pytest.mark.parametrize(("busy", "flagged"), [(10, False), (11, True)])
def test_a_core_that_is_full_in_more_than_a_tenth_of_the_samples(busy: int, flagged: bool) -> None:
    assert bool(_reasons(CLOSED, _samples(busy=busy))) == flagged


def test_one_full_process_among_idle_ones_is_named() -> None:
    (reason,) = _reasons(CLOSED, _samples() + _samples(worker=1) + _samples(worker=2, busy=50))
    assert reason.startswith("Load process 2 used 90% of its core or more in 50% of the samples")


@pytest.mark.parametrize(
    ("late_s", "late", "ttft_s", "flagged"),
    [
        (0.021, 20, 0.1, True),
        (0.019, 20, 0.1, False),
        (0.021, 5, 0.1, False),  # single ones
        (0.040, 20, 1.0, False),  # 5 % of a TTFT of 1 s are borne
        (0.060, 20, 1.0, True),
    ],
)
def test_timers_that_are_late_often(late_s: float, late: int, ttft_s: float, flagged: bool) -> None:
    requests = [_request(0.0, ttft_s=ttft_s, gap_s=1.0)] * 3
    reasons = _reasons(requests, _samples(late=late, late_s=late_s))
    assert [reason.startswith("Timers of the load process were") for reason in reasons] == [True] * flagged


def test_single_late_timers_and_those_that_blur_gaps_are_cautions() -> None:
    verdict = judge(CLOSED, _samples(late=2, late_s=0.5), max_in_flight=None, loopback=True)
    assert not verdict.limited
    assert [caution.partition(" late")[0] for caution in verdict.cautions] == [
        "Single timers of the load process were up to 500 ms"
    ]
    fine = [_request(0.0, end_s=1.0, gap_s=0.01)] * 3
    verdict = judge(fine, _samples(late=20, late_s=0.008), max_in_flight=None, loopback=True)
    assert not verdict.limited
    (caution,) = verdict.cautions
    assert "the median gap between tokens is 10 ms" in caution


@pytest.mark.parametrize(
    ("lag_s", "ttft_s", "flagged"), [(0.009, 0.1, False), (0.011, 0.1, True), (0.04, 5.0, False), (0.06, 5.0, True)]
)
def test_an_open_loop_behind_its_schedule(lag_s: float, ttft_s: float, flagged: bool) -> None:
    requests = [_request(1.0, lag_s=0.0, ttft_s=ttft_s)] * 95 + [_request(1.0, lag_s=lag_s, ttft_s=ttft_s)] * 5
    reasons = _reasons(requests, _samples(), max_in_flight=10_000)
    assert [reason.startswith("One request in a hundred was sent") for reason in reasons] == [True] * flagged


def test_time_that_the_endpoint_was_not_ready_is_no_lag() -> None:
    assert _reasons([_request(30.0, lag_s=0.0, not_ready_s=30.0)] * 3, _samples(), max_in_flight=10_000) == []


def test_places_of_an_open_loop_that_were_all_taken() -> None:
    requests = [_request(number / 100, lag_s=0.0, end_s=5.0) for number in range(50)]
    (reason,) = _reasons(requests, _samples(), max_in_flight=50)
    assert reason.startswith("50 requests were under way at once, and load.arrivals.max_in_flight is 50:")
    assert _reasons(requests, _samples(), max_in_flight=60) == []
    assert _reasons(requests, _samples(), max_in_flight=None) == []


def test_a_busy_machine_is_a_limit_or_shared_with_the_endpoint() -> None:
    busy = _samples(machine_cpu=0.97)
    shared = judge(CLOSED, busy, max_in_flight=None, loopback=True)
    assert not shared.limited
    assert shared.cautions[0].startswith("The machine was busy most of the time, and endpoint and generator share it")
    alone = judge(CLOSED, busy, max_in_flight=None, loopback=False)
    assert alone.limited
    assert alone.reasons[0].startswith("The generator's machine was busy")
    half = _samples(50, machine_cpu=0.97) + _samples(50, machine_cpu=0.9)
    assert not judge(CLOSED, half, max_in_flight=None, loopback=False).limited


def test_only_samples_of_the_measured_time_count_if_there_are_any() -> None:
    before = [Sample(at_s=-5.0, generator=sample.generator) for sample in _samples(busy=100)]
    assert _reasons(CLOSED, before + _samples()) == []
    assert len(_reasons(CLOSED, before)) == 1


def test_without_samples_it_says_so() -> None:
    verdict = judge(CLOSED, [Sample(at_s=0.5)], max_in_flight=None, loopback=True)
    assert not verdict.limited
    assert verdict.samples == 0
    assert verdict.cpu_max is None
    assert len(verdict.cautions) == 1
    assert judge([], [], max_in_flight=8, loopback=True).in_flight_max == 0


def test_peak_in_flight() -> None:
    # 0–4, 1–2, 2–3 (begins as the one before ends), and one that was tried from 2.5 on and sent at 3.5.
    requests = [_request(0, end_s=4), _request(1, end_s=2), _request(2, end_s=3)]
    assert peak_in_flight(requests) == 2
    assert peak_in_flight([*requests, _request(3.5, end_s=5, not_ready_s=1.0)]) == 3
