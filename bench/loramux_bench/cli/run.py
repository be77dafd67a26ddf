"""`loramux bench run` and `report`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loramux_bench.cli.console import answers, remarks
from loramux_bench.cli.options import Overrides, Processes, Results, ScenarioName, Url, scenario_of
from loramux_bench.cli.progress import LiveView
from loramux_bench.errors import NothingMeasured
from loramux_bench.launch import Interrupted, launch
from loramux_bench.results.table import table
from loramux_bench.results.write import write_results
from loramux_bench.run_dir import RunDir


def run(
    name: ScenarioName,
    overrides: Overrides = [],  # noqa: B006  Typer reads it, nobody changes it
    url: Url = "",
    results: Results = Path("results"),
    processes: Processes = 1,
) -> None:
    """Run a scenario; write raw records, a summary and an HTML report. Ctrl-C keeps what was recorded."""
    console = answers()
    scenario = scenario_of(name, overrides, url)
    try:
        with LiveView(scenario, remarks()) as view:
            done = launch(scenario, results, processes=processes, view=view)
    except Interrupted as interrupted:
        show(interrupted.run, console)
        raise
    show(done, console)


def report(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Directories that `run` has written.")],
) -> None:
    """Make summary and report of finished runs again."""
    for path in run_dirs:
        show(RunDir(path), answers())


def show(run: RunDir, console: Console) -> None:
    """Make summary and report, and print the one and where the other is. Raises `NothingMeasured`, `ResultsError`."""
    try:
        console.print(table(write_results(run)))
    except NothingMeasured as nothing:
        console.print(f"Report: {run.report_path}", soft_wrap=True)
        raise nothing
    console.print(f"Report: {run.report_path}", soft_wrap=True)
