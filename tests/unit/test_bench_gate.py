"""May it ship? Slowdowns that are planted are caught, equal pairs pass, and what can not be told is said to be so."""

import io
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np
import pytest
from rich.console import Console

from loramux_bench.decide.gate import Check, Verdict, judge
from loramux_bench.decide.round import Round
from loramux_bench.decide.table import verdict_table
from loramux_bench.results.slo import parse
from tests.fakes.bench_rounds import MadeRound, made_rounds

TRIES = range(20)


def _sides(seed: int, slowness: float, *, rounds: int, order: Literal["in turns", "apart"]) -> tuple[list[Round], ...]:
    """Baseline and candidate, with 2 % of noise between rounds. In turns, neighbours share it; apart, nothing does."""
    rng = np.random.default_rng(seed)
    machine = rng.lognormal(0, 0.02, rounds)
    other = machine if order == "in turns" else rng.lognormal(0, 0.02, rounds)
    later = 100.0 if order == "in turns" else 100_000.0
    baseline = [
        MadeRound(slowness=float(factor), tokens=3, started_at=1_000.0 + 200 * place).make(rng)
        for place, factor in enumerate(machine)
    ]
    candidate = [
        MadeRound(slowness=slowness * float(factor), tokens=3, started_at=1_000.0 + 200 * place + later).make(rng)
        for place, factor in enumerate(other)
    ]
    return baseline, candidate


def _judge_quickly(candidate: list[Round], baseline: list[Round]) -> Verdict:
    return judge(candidate, baseline, (), resamples=300)


def _check(verdict: Verdict, name: str) -> Check:
    (found,) = [check for check in verdict.checks if check.name == name]
    return found


@pytest.mark.parametrize(("rounds", "order"), [(3, "in turns"), (5, "apart")])
def test_a_slowdown_of_a_tenth_is_caught_and_an_equal_pair_passes_in_twenty_of_twenty_tries(
    rounds: int, order: Literal["in turns", "apart"]
) -> None:
    outcomes = []
    for seed in TRIES:
        for slowness in (1.0, 1.1):
            baseline, candidate = _sides(seed, slowness, rounds=rounds, order=order)
            verdict = _judge_quickly(candidate, baseline)
            assert verdict.comparison is not None
            assert verdict.comparison.paired is (order == "in turns")
            outcomes.append((seed, slowness, verdict.exit_status, verdict.sentences))
    assert [one for one in outcomes if one[1] == 1.0 and one[2] != 0] == []
    assert [one for one in outcomes if one[1] == 1.1 and one[2] != 1] == []


def test_one_round_a_side_is_judged_too_and_told_to_be_little() -> None:
    baseline, equal = made_rounds(MadeRound(), MadeRound())
    slow = made_rounds(MadeRound(slowness=1.1), seed=2)
    passed = judge([equal], [baseline], ())
    assert (passed.outcome, passed.exit_status) == ("passed", 0)
    assert any("fewer than 3 runs" in warning for warning in passed.warnings)
    assert judge(slow, [baseline], ()).exit_status == 1


def test_a_faster_candidate_passes() -> None:
    baseline, candidate = made_rounds(MadeRound(), MadeRound(slowness=0.7))
    assert judge([candidate], [baseline], ()).exit_status == 0


def test_a_slowdown_of_the_first_token_alone_is_named() -> None:
    baseline, candidate = made_rounds(MadeRound(tokens=40), MadeRound(tokens=40, ttft_s=0.112))
    verdict = judge([candidate], [baseline], ())
    failed = [check.name for check in verdict.checks if check.outcome == "failed"]
    assert failed == ["regression ttft p50"]
    (sentence,) = verdict.sentences
    assert sentence.startswith("TTFT p50 was slower: 11")
    assert "ms against" in sentence
    assert "beyond the tolerance of 5 %" in sentence


def test_a_slowdown_of_a_third_of_the_requests_is_caught_by_the_mean() -> None:
    baseline, candidate = made_rounds(MadeRound(requests=300), MadeRound(requests=300), seed=3)
    records = tuple(
        msgspec.structs.replace(record, end_s=record.end_s + 0.4) if record.index % 3 == 0 else record
        for record in candidate.records
    )
    verdict = judge([replace(candidate, records=records)], [baseline], ())
    assert _check(verdict, "regression e2e mean").outcome == "failed"
    assert _check(verdict, "regression ttft p50").outcome == "passed"


def test_a_tolerance_decides_what_is_material() -> None:
    baseline, candidate = made_rounds(MadeRound(requests=400), MadeRound(requests=400, slowness=1.1))
    assert judge([candidate], [baseline], (), tolerance=0.05).exit_status == 1
    assert judge([candidate], [baseline], (), tolerance=0.20).exit_status == 0


def test_a_slowdown_that_may_be_noise_is_undecided() -> None:
    noisy = MadeRound(requests=30, noise=1.0)
    baseline, candidate = made_rounds(noisy, replace(noisy, slowness=1.15), seed=0)
    verdict = judge([candidate], [baseline], ())
    assert verdict.exit_status == 2
    assert any("it may be noise" in sentence for sentence in verdict.sentences)


def test_objectives_are_held_against_all_rounds_together() -> None:
    candidate = made_rounds(MadeRound(), MadeRound(slowness=2))
    texts = ("ttft:p99:500ms", "ttft:p50:120ms", "ttft:p25:50ms", "error_rate:1%", "throughput:1", "rps:1000")
    verdict = judge(candidate, None, [parse(text) for text in texts])
    outcomes = {check.name.removeprefix("slo "): check.outcome for check in verdict.checks}
    assert outcomes == {
        "runs": "passed",
        "ttft:p99:500ms": "passed",
        "ttft:p50:120ms": "failed",
        "ttft:p25:50ms": "failed",
        "error_rate:1%": "passed",
        "throughput:1": "passed",
        "rps:1000": "failed",
    }
    assert verdict.exit_status == 1
    assert verdict.comparison is None


def test_a_failed_objective_has_a_sentence() -> None:
    (candidate,) = made_rounds(MadeRound(noise=0, ttft_s=0.612, errors=3))
    verdict = judge([candidate], None, [parse("ttft:p99:500ms"), parse("speed:mean:100tok/s"), parse("error_rate:1%")])
    assert verdict.sentences == (
        "TTFT p99 was 612 ms, over the limit of 500 ms.",
        "Speed mean was 11.73 tokens/s, under the limit of 100 tokens/s.",
        "Error rate was 3 %, over the limit of 1 %.",
    )


def test_goodput_counts_requests_within_every_objective() -> None:
    (candidate,) = made_rounds(MadeRound(noise=0, users=1))
    rate = 1 / 0.17
    kept = judge([candidate], None, [parse("ttft:p99:101ms"), parse(f"goodput:{rate * 0.99}")])
    missed = judge([candidate], None, [parse("ttft:p99:99ms"), parse("goodput:0.1")])
    alone = judge([candidate], None, [parse("goodput:0.1")])
    assert kept.exit_status == 0
    assert [check.outcome for check in missed.checks if "goodput" in check.name] == ["failed"]
    assert alone.exit_status == 2
    assert "there is none" in alone.sentences[0]


@pytest.mark.parametrize(
    ("text", "slowness", "outcome"),
    [
        ("ttft:p90:+20%", 1.1, "passed"),
        ("ttft:p90:+20%", 1.3, "failed"),
        ("throughput:-20%", 1.1, "passed"),
        ("throughput:-20%", 1.4, "failed"),
        ("ttft:p50:-10%", 1.0, "failed"),
        ("ttft:p50:-10%", 0.8, "passed"),
        ("e2e:max:+50%", 1.0, "passed"),
        ("ttft:p95:+20%", 1.3, "failed"),
    ],
)
def test_objectives_against_the_baseline(text: str, slowness: float, outcome: str) -> None:
    baseline, candidate = made_rounds(MadeRound(), MadeRound(slowness=slowness))
    verdict = judge([candidate], [baseline], [parse(text)])
    assert _check(verdict, f"slo {text}").outcome == outcome


def test_a_tail_of_few_requests_is_undecided() -> None:
    baseline, candidate = made_rounds(MadeRound(), MadeRound(slowness=1.4))
    check = _check(judge([candidate], [baseline], [parse("ttft:p99:+20%")]), "slo ttft:p99:+20%")
    assert check.outcome == "undecided"
    assert "too few requests" in check.sentence


def test_an_objective_against_a_baseline_needs_one() -> None:
    verdict = judge(made_rounds(MadeRound()), None, [parse("ttft:p99:+20%")])
    assert verdict.exit_status == 2
    assert "there is none" in verdict.sentences[0]


def test_many_more_errors_fail() -> None:
    baseline, candidate = made_rounds(MadeRound(errors=1), MadeRound(errors=40))
    verdict = judge([candidate], [baseline], ())
    assert verdict.exit_status == 1
    assert _check(verdict, "errors").outcome == "failed"
    assert "40 % of the requests failed (40 of 100)" in _check(verdict, "errors").sentence


def test_a_few_more_errors_are_undecided_and_none_more_pass() -> None:
    baseline, more, equal = made_rounds(MadeRound(errors=1), MadeRound(errors=3), MadeRound(errors=1))
    assert _check(judge([more], [baseline], ()), "errors").outcome == "undecided"
    assert _check(judge([equal], [baseline], ()), "errors").outcome == "passed"


def test_many_errors_without_a_baseline_need_an_objective_that_allows_them() -> None:
    (candidate,) = made_rounds(MadeRound(errors=4))
    assert judge([candidate], None, [parse("ttft:p50:1s")]).exit_status == 2
    assert judge([candidate], None, [parse("ttft:p50:1s"), parse("error_rate:5%")]).exit_status == 0
    assert judge([candidate], None, [parse("ttft:p50:1s"), parse("error_rate:3%")]).exit_status == 1


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (MadeRound(requests=30, errors=30), "Nothing was measured: no request of the candidate was answered."),
        (MadeRound(requests=19), "Only 19 requests of the candidate were answered"),
        (MadeRound(outcome="interrupted", name="nightly-2"), "run nightly-2 is not whole: it was interrupted."),
        (MadeRound(scenario={"load": {"requests": 100, "users": 8}}), "The scenarios of the runs differ in load.users"),
    ],
)
def test_what_can_not_be_judged_is_undecided(candidate: MadeRound, said: str) -> None:
    verdict = judge(made_rounds(candidate), made_rounds(MadeRound(), seed=9), ())
    assert verdict.exit_status == 2
    assert said in " ".join(verdict.sentences)


def test_a_failure_outweighs_what_is_undecided() -> None:
    verdict = judge(made_rounds(MadeRound(outcome="interrupted")), None, [parse("ttft:p50:1ms")])
    assert verdict.exit_status == 1
    assert verdict.sentences[0].startswith("TTFT p50")


def test_a_candidate_without_a_figure_that_the_baseline_has_is_undecided() -> None:
    baseline, candidate = made_rounds(MadeRound(), MadeRound(tokens=1, ttft_s=0.15))
    verdict = judge([candidate], [baseline], ())
    assert _check(verdict, "regression tpot p50").outcome == "undecided"
    one_token = judge([candidate], [candidate], ())
    assert one_token.exit_status == 0
    assert "regression tpot p50" not in [check.name for check in one_token.checks]


def test_the_terminal_shows_every_sentence() -> None:
    baseline, candidate = made_rounds(MadeRound(), MadeRound(slowness=1.3))
    verdict = judge([candidate], [baseline], [parse("ttft:p50:1s")])
    out = io.StringIO()
    Console(file=out, width=400).print(verdict_table(verdict))
    for check in verdict.checks:
        assert check.sentence in out.getvalue()
    assert "The gate: FAILED" in out.getvalue()
