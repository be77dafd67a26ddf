"""Two sides held against each other: figures, words, and when they can not be compared."""

import io
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from loramux_bench.decide.compare import GATES, compare
from loramux_bench.decide.quantity import change, said
from loramux_bench.decide.round import Round, make_round, read_round
from loramux_bench.decide.table import comparison_table
from loramux_bench.errors import NothingMeasured, ResultsError, ScenarioError
from loramux_bench.record import encode
from loramux_bench.results.slo import parse
from loramux_bench.results.summary import summarise
from loramux_bench.run_dir import RunDir
from tests.fakes.bench_rounds import MadeRound, made_rounds
from tests.fakes.bench_run import MadeUp


def _in_turns(count: int, slowness: float = 1.0) -> tuple[list[Round], list[Round]]:
    made = []
    for side in (0, 1):
        rounds = [
            MadeRound(
                name=f"{'ab'[side]}{place}",
                started_at=1_000.0 + 200 * place + 100 * side,
                slowness=slowness if side else 1.0,
                requests=40,
            )
            for place in range(count)
        ]
        made.append(made_rounds(*rounds, seed=side))
    return made[0], made[1]


def test_the_same_run_twice_has_ratios_of_exactly_one() -> None:
    side = made_rounds(MadeRound(errors=2))
    found = compare(side, side, seed=1, slos=[parse("ttft:p99:100ms")], resamples=200)
    assert {row.ratio for row in found.rows} == {1.0}
    assert {row.word for row in found.rows} == {"no difference seen", "too few"}
    assert found.differences == ()


def test_every_figure_is_there_and_right() -> None:
    """Without noise: everything takes a quarter longer, and one user sends 100 requests one after the other."""
    still = MadeRound(noise=0, users=1)
    a, b = made_rounds(still, replace(still, slowness=1.25))
    found = compare([a], [b], seed=1, slos=[parse("ttft:p99:110ms")], resamples=50)
    assert {(row.measure, row.statistic) for row in found.rows} == {
        *((measure, of) for measure in ("ttft", "itl", "tpot", "e2e", "speed") for of in ("p50", "p90", "p99", "mean")),
        *((measure, "") for measure in ("rps", "throughput", "goodput", "error_rate")),
    }
    expected = {
        ("ttft", "p50"): (0.1, 0.125, 1.25, "slower"),
        ("itl", "p99"): (0.01, 0.0125, 1.25, "slower"),
        ("tpot", "mean"): (0.01, 0.0125, 1.25, "slower"),
        ("e2e", "p90"): (0.17, 0.2125, 1.25, "slower"),
        ("speed", "p50"): (8 / 0.17, 8 / 0.2125, 0.8, "slower"),
        ("rps", ""): (1 / 0.17, 1 / 0.2125, 0.8, "slower"),
        ("throughput", ""): (8 / 0.17, 8 / 0.2125, 0.8, "slower"),
    }
    for (measure, statistic), (a_value, b_value, ratio, word) in expected.items():
        row = found.row(measure, statistic)
        assert row is not None
        assert (row.a, row.b, row.ratio) == pytest.approx((a_value, b_value, ratio), rel=1e-6)
        assert row.word == word
    assert {(row.measure, row.statistic) for row in found.rows if row.gates} == set(GATES)
    goodput = found.row("goodput")
    assert goodput is not None
    assert goodput.a == pytest.approx(1 / 0.17)
    assert goodput.b == 0


def test_a_swap_turns_slower_into_faster() -> None:
    a, b = made_rounds(MadeRound(), MadeRound(slowness=1.2))
    there, back = compare([a], [b], seed=1, resamples=200), compare([b], [a], seed=1, resamples=200)
    for statistic in ("p50", "p90", "mean"):
        one, other = there.row("e2e", statistic), back.row("e2e", statistic)
        assert one is not None
        assert other is not None
        assert (one.word, other.word) == ("slower", "faster")
        assert one.ratio == pytest.approx(1 / (other.ratio or 0))


def test_tails_of_few_requests_are_too_few() -> None:
    a, b = made_rounds(MadeRound(), MadeRound(slowness=2))
    found = compare([a], [b], seed=1, resamples=200)
    tail, gaps = found.row("ttft", "p99"), found.row("itl", "p99")
    assert tail is not None
    assert (tail.word, tail.interval, tail.count_a) == ("too few", None, 100)
    assert tail.ratio == pytest.approx(2, rel=0.2)
    assert gaps is not None
    assert (gaps.word, gaps.count_a) == ("slower", 700)


def test_errors_have_words_of_their_own() -> None:
    none, many, few = made_rounds(MadeRound(), MadeRound(errors=20), MadeRound(requests=10, errors=5))
    words = []
    for a, b in ((none, many), (many, none), (none, none), (none, few)):
        row = compare([a], [b], seed=1, resamples=20).row("error_rate")
        assert row is not None
        words.append(row.word)
    assert words == ["more errors", "fewer errors", "no difference seen", "too few"]


def test_intervals_are_corrected_for_the_gating_figures() -> None:
    a, b = made_rounds(MadeRound(), MadeRound())
    found = compare([a], [b], confidence=0.9, seed=1, resamples=200)
    assert found.confidence == 0.9
    assert found.each_confidence == pytest.approx(1 - 0.1 / len(GATES))


def test_rounds_in_turns_are_paired_whatever_order_they_are_named_in() -> None:
    a, b = _in_turns(3, 1.2)
    found = compare(a, b, seed=1, resamples=200)
    assert found.paired
    assert found.warnings == ()
    assert compare(a[::-1], [b[1], b[0], b[2]], seed=1, resamples=200) == found


def test_rounds_one_side_after_the_other_are_not_paired() -> None:
    a, _ = _in_turns(3)
    later = [
        replace(one, info=msgspec.structs.replace(one.info, started_at=9_000.0 + place)) for place, one in enumerate(a)
    ]
    found = compare(a, later, seed=1, resamples=20)
    assert not found.paired
    assert any("not made in turns" in warning for warning in found.warnings)


def test_what_makes_runs_incomparable_is_said() -> None:
    a = made_rounds(MadeRound(environment={"cpus": 2, "load_average": [0.1], "packages": {"loramux": "1"}}))
    other = MadeRound(
        name="night",
        outcome="interrupted",
        environment={"cpus": 4, "load_average": [3.0], "packages": {"loramux": "2"}},
        scenario={"load": {"requests": 100, "users": 8}, "prompts": {"output_tokens": {"mean": 64}}},
    )
    b = [replace(one, limits=("It was short of time.",)) for one in made_rounds(other)]
    found = compare(a, b, seed=1, resamples=20)
    assert found.differences == (
        "The scenarios of the runs differ in load.users (4 and 8), prompts.output_tokens.mean (32 and 64).",
    )
    said_all = " ".join(found.warnings)
    assert "environments of the runs differ in cpus (2 and 4), packages.loramux ('1' and '2')." in said_all
    assert "The run night is not whole: it was interrupted." in said_all
    assert "In the run night the load generator was the limit: It was short of time." in said_all
    assert "load_average" not in said_all


def test_two_builds_at_two_addresses_are_of_one_load() -> None:
    a = made_rounds(MadeRound(scenario={"seed": 1, "targets": [{"name": "old", "url": "http://127.0.0.1:1"}]}))
    b = made_rounds(MadeRound(scenario={"seed": 2, "targets": [{"name": "new", "url": "http://127.0.0.1:2"}]}))
    assert compare(a, b, seed=1, resamples=20).differences == ()
    c = made_rounds(MadeRound(scenario={"targets": [{"name": "new", "api": "tgi"}]}))
    assert "targets.0.api" in compare(a, c, seed=1, resamples=20).differences[0]


def test_a_side_without_answers_is_refused() -> None:
    some, none = made_rounds(MadeRound(), MadeRound(errors=100))
    for a, b, side in ((none, some, "first"), (some, none, "second")):
        with pytest.raises(NothingMeasured, match=f"No request of the {side} side"):
            compare([a], [b], seed=1)


def test_extremes_are_not_resampled() -> None:
    side = made_rounds(MadeRound())
    with pytest.raises(ScenarioError, match="'max' can not be compared"):
        compare(side, side, seed=1, statistics=["p50", "max"])


def test_a_round_is_what_its_summary_is_of(tmp_path: Path) -> None:
    """Without the warm-up and what was cut; rates are over the same time as the summary's."""
    made = MadeUp(targets=("loramux", "other")).make()
    run_dir = RunDir(tmp_path)
    run_dir.write_info(made.info)
    run_dir.requests_path.write_bytes(b"".join(encode(record) + b"\n" for record in made.requests))
    run_dir.samples_path.write_bytes(b"".join(msgspec.json.encode(sample) + b"\n" for sample in made.samples))
    found = read_round(run_dir)
    summary = summarise(made.info, made.requests, made.samples, made.churn)
    assert (found.answered, found.errors) == (summary.total.answered, summary.total.errors)
    assert not any(record.warmup or record.cut for record in found.records)
    row = compare([found], [found], seed=1, slos=[parse(text) for text in made.info.scenario["slos"]], resamples=20)
    figures = {name: row.row(name) for name in ("rps", "throughput", "goodput", "error_rate")}
    assert {name: one.a if one else None for name, one in figures.items()} == pytest.approx(
        {name: getattr(summary.total, name) for name in figures}
    )
    ttft = row.row("ttft", "p90")
    assert ttft is not None
    assert ttft.a == pytest.approx(summary.total.measures["ttft"].p90)

    alone = read_round(run_dir, target="other")
    assert len(alone.records) == summary.by_target["other"].answered + summary.by_target["other"].errors
    assert alone.duration_s == pytest.approx(summary.by_target["other"].duration_s)
    with pytest.raises(ResultsError, match="there are loramux, other"):
        read_round(run_dir, target="another")


def test_a_round_without_requests_is_empty() -> None:
    made = MadeUp().make()
    empty = make_round("empty", made.info, [])
    assert (empty.answered, empty.errors, empty.duration_s) == (0, 0, 0.0)


def test_the_terminal_shows_figures_and_words() -> None:
    a, b = made_rounds(MadeRound(noise=0.01), MadeRound(slowness=1.5, noise=0.01, scenario={"load": {"requests": 5}}))
    out = io.StringIO()
    Console(file=out, width=300).print(comparison_table(compare([a], [b], seed=1, resamples=50), a="old", b="new"))
    (line,) = [line for line in out.getvalue().splitlines() if line.startswith("TTFT")]
    assert line.split()[1] == "p50"
    assert "slower" in line
    assert "old" in out.getvalue()
    assert "! The scenarios of the runs differ in" in out.getvalue()


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.6123, "s", "612.3 ms"),
        (0.5, "s", "500 ms"),
        (1.5, "s", "1.5 s"),
        (0.00025, "s", "250 µs"),
        (0.0, "s", "0 ms"),
        (12_345.6, "tokens/s", "12,346 tokens/s"),
        (0.012, "share", "1.2 %"),
        (3.0, "requests/s", "3 requests/s"),
        (float("nan"), "s", "unknown"),
    ],
)
def test_quantities_in_sentences(value: float, unit: str, text: str) -> None:
    assert said(value, unit) == text
    assert change(1.1213) == "+12.1 %"
