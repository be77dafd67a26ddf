"""A side of a comparison: runs that are there already, or an endpoint to run a scenario against; and both sides' runs
interleaved, so that what the machine does meanwhile happens to both."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from loramux_bench.errors import ResultsError
from loramux_bench.launch import View, launch
from loramux_bench.results.write import write_results
from loramux_bench.run_dir import RunDir
from loramux_bench.scenario import Scenario

Watcher = Callable[[Scenario, str], AbstractContextManager[View]]
"""Makes a view of one run, given its label."""


@dataclass(frozen=True, slots=True)
class Live:
    """An endpoint."""

    name: str
    scenario: Scenario


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def at(scenario: Scenario, url: str) -> Scenario:
    """With its first target there."""
    first, *others = scenario.targets
    return scenario.model_copy(update={"targets": (first.model_copy(update={"url": url}), *others)})


def runs_of(path: Path) -> list[RunDir]:
    """A run's directory, or one with several of them, by name. Raises `ResultsError`."""
    if (path / "run.json").exists():
        return [RunDir(path)]
    found = sorted(inner.parent for inner in path.glob("*/run.json")) if path.is_dir() else []
    if not found:
        raise ResultsError(f"{path} holds no results: neither a run.json nor directories with one.")
    return [RunDir(inner) for inner in found]


def run_interleaved(
    sides: Sequence[Live], *, repeats: int, results: Path, processes: int, watcher: Watcher
) -> list[list[RunDir]]:
    """The runs of each side. Rounds go there and back (A B, B A, A B, ...), so that a drift of the machine is in both.
    Each round has a seed of its own, the same for all sides; each run has its report. Raises what `launch` raises."""
    runs: list[list[RunDir]] = [[] for _ in sides]
    for number in range(repeats):
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for place in order:
            side = sides[place]
            label = f"{side.scenario.name}, {side.name}, {number + 1} of {repeats}"
            scenario = side.scenario.model_copy(update={"seed": side.scenario.seed + number})
            with watcher(scenario, label) as view:
                run = launch(scenario, results / side.name, processes=processes, view=view)
            write_results(run)
            runs[place].append(run)
    return runs
