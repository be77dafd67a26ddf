"""`loramux bench compare`."""

from pathlib import Path
from typing import Annotated

import typer

from loramux_bench.cli.console import answers, remarks
from loramux_bench.cli.options import Overrides, Processes, Repeats, Results, scenario_of
from loramux_bench.cli.progress import watcher
from loramux_bench.decide.compare import compare as compare_rounds
from loramux_bench.decide.round import read_round
from loramux_bench.decide.table import comparison_table
from loramux_bench.errors import ScenarioError
from loramux_bench.results.slo import parse as parse_slo
from loramux_bench.run_dir import RunDir
from loramux_bench.sides import Live, at, is_url, run_interleaved, runs_of

_SIDE = "A run's directory, a directory of several, or the URL of an endpoint."


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=f"The baseline. {_SIDE}")],
    b: Annotated[str, typer.Argument(metavar="B", help=_SIDE)],
    scenario: Annotated[str, typer.Option(help="What to run, where A and B are URLs.")] = "",
    overrides: Overrides = [],  # noqa: B006  Typer reads it, nobody changes it
    repeats: Repeats = 3,
    results: Results = Path("results"),
    processes: Processes = 1,
    target: Annotated[str, typer.Option(help="Of runs with several targets: only this one's requests.")] = "",
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the intervals.")] = 0.95,
) -> None:
    """Hold B against A: ratios with confidence intervals. Two URLs are measured in turn; directories are read."""
    runs: list[list[RunDir]]
    if is_url(a) and is_url(b):
        if not scenario:
            raise ScenarioError("To compare two endpoints say what to run: --scenario smoke.")
        made = scenario_of(scenario, overrides)
        sides = [Live("a", at(made, a)), Live("b", at(made, b))]
        runs = run_interleaved(sides, repeats=repeats, results=results, processes=processes, watcher=watcher(remarks()))
    elif is_url(a) or is_url(b):
        raise ScenarioError(
            "A and B must both be endpoints or both be results: what was not measured side by side is "
            "not comparable on a machine that has other work."
        )
    else:
        runs = [runs_of(Path(a)), runs_of(Path(b))]
    first, second = ([read_round(run, target=target) for run in side] for side in runs)
    slos = [parse_slo(text) for text in second[0].info.scenario.get("slos", ())]
    answers().print(comparison_table(compare_rounds(first, second, confidence=confidence, slos=slos)))
