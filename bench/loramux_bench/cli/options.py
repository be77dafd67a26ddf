"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from loramux_bench.scenario import Scenario, load_scenario
from loramux_bench.sides import at

ScenarioName = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="One that comes with the bench (see `scenarios`), or a TOML file.")
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change the scenario: load.users=4, adapters.alpha=1.2, …"),
]
Url = Annotated[
    str, typer.Option(help="The endpoint. Default: the scenario's, else LORAMUX_URL, else this machine's port 8080.")
]
Results = Annotated[Path, typer.Option("--results", "-o", help="Where directories of results are made.")]
Processes = Annotated[int, typer.Option(min=1, help="Load processes. One makes some thousand chunks a second.")]
Repeats = Annotated[int, typer.Option(min=1, help="Runs of each side, in turn.")]


def scenario_of(name: str, overrides: list[str], url: str = "") -> Scenario:
    """`url`, if given, is the first target's. Raises `ScenarioError`."""
    scenario = load_scenario(name, overrides)
    return at(scenario, url) if url else scenario
