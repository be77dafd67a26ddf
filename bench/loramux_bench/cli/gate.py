"""`loramux bench gate`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from loramux_bench.cli.console import answers, remarks
from loramux_bench.cli.options import Overrides, Processes, Repeats, Results, ScenarioName, Url, scenario_of
from loramux_bench.cli.output import make_room
from loramux_bench.cli.progress import watcher
from loramux_bench.decide.gate import Check, Verdict, judge
from loramux_bench.decide.junit import junit
from loramux_bench.decide.round import Round, read_round
from loramux_bench.decide.table import comparison_table, verdict_table
from loramux_bench.errors import BenchError, ResultsError
from loramux_bench.launch import Interrupted
from loramux_bench.results.slo import Slo
from loramux_bench.results.slo import parse as parse_slo
from loramux_bench.run_dir import RunDir
from loramux_bench.scenario import Scenario
from loramux_bench.sides import Live, at, is_url, run_interleaved, runs_of


def gate(
    name: ScenarioName,
    against: Annotated[
        str, typer.Option(metavar="BASELINE", help="A directory of runs, or the URL of an endpoint measured in turn.")
    ] = "",
    slos: Annotated[
        list[str],
        typer.Option(
            "--slo", metavar="SLO", help="ttft:p99:500ms, error_rate:1%, ttft:p99:+20% (against the baseline)."
        ),
    ] = [],  # noqa: B006  Typer reads it, nobody changes it
    overrides: Overrides = [],  # noqa: B006
    url: Url = "",
    repeats: Repeats = 3,
    tolerance: Annotated[float, typer.Option(min=0.0, help="How much slower may pass: 0.05 is 5 %.")] = 0.05,
    junit_path: Annotated[Path | None, typer.Option("--junit", help="Write the verdict as JUnit XML.")] = None,
    results: Results = Path("results"),
    processes: Processes = 1,
) -> None:
    """Run a scenario and decide whether it may ship: every SLO is kept, and nothing is slower than the baseline.

    Exit status: 0 passed, 1 failed, 2 undecided or not measured. SLOs of the scenario count where none are given.
    """
    scenario = scenario_of(name, overrides, url)
    objectives = [parse_slo(text) for text in (slos or scenario.slos)]
    console = answers()
    if junit_path is not None:
        make_room(junit_path)
    try:
        verdict = _decide(scenario, objectives, against, repeats, tolerance, results, processes)
    except Interrupted:
        raise
    except BenchError as error:
        _write(junit_path, Verdict((Check("runs", "undecided", str(error)),), None), scenario)
        raise
    if verdict.comparison is not None:
        console.print(comparison_table(verdict.comparison, a="baseline", b="candidate"))
    console.print(verdict_table(verdict))
    _write(junit_path, verdict, scenario)
    raise typer.Exit(verdict.exit_status)


def _decide(
    scenario: Scenario,
    slos: Sequence[Slo],
    against: str,
    repeats: int,
    tolerance: float,
    results: Path,
    processes: int,
) -> Verdict:
    baseline = None if not against or is_url(against) else _rounds(runs_of(Path(against)))
    sides = [Live("baseline", at(scenario, against))] if is_url(against) else []
    *before, runs = run_interleaved(
        [*sides, Live("candidate", scenario)],
        repeats=repeats,
        results=results,
        processes=processes,
        watcher=watcher(remarks()),
    )
    if before:
        baseline = _rounds(before[0])
    return judge(_rounds(runs), baseline, slos, tolerance=tolerance)


def _rounds(runs: Sequence[RunDir]) -> list[Round]:
    return [read_round(run) for run in runs]


def _write(path: Path | None, verdict: Verdict, scenario: Scenario) -> None:
    if path is None:
        return
    try:
        path.write_bytes(junit(verdict, name=scenario.name, at=time.time()))
    except OSError as error:
        raise ResultsError(f"{path} can not be written: {error.strerror}.") from error
