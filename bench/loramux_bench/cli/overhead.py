"""`loramux bench overhead`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from loramux_bench.cli.console import answers, remarks
from loramux_bench.cli.lists import words
from loramux_bench.cli.options import Results
from loramux_bench.errors import EndpointError, NothingMeasured, NotInstalled
from loramux_bench.overhead.cores import Cores
from loramux_bench.overhead.part import Options, Outcome
from loramux_bench.overhead.parts import PARTS
from loramux_bench.overhead.side import SIDES
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.overhead.wrk import version as wrk_version
from loramux_bench.studies.study import StudyDir, table, under_way

PEERS = Path(".venv-peers")


def overhead(
    parts: Annotated[str, typer.Option(help=f"What to measure, of {', '.join(PARTS)}.")] = ",".join(PARTS),
    sides: Annotated[str, typer.Option(help=f"Of {', '.join(SIDES)}.")] = ",".join(SIDES),
    rounds: Annotated[int, typer.Option(min=1, help="Of all sides in turn.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of one measurement of one side.")] = 4.0,
    adapters: Annotated[int, typer.Option(min=2, max=1000, help="Registered ones, where it is about many.")] = 1000,
    most_streams: Annotated[int, typer.Option(min=16, help="Where the search for the most streams ends.")] = 4096,
    peers: Annotated[
        Path, typer.Option(help="Environment with other gateways; `make bench-overhead` makes it.")
    ] = PEERS,
    results: Results = Path("results"),
) -> None:
    """What the gateway costs: loramux and other gateways before an engine that answers at once."""
    wanted = words(parts, tuple(PARTS), "--parts")
    options = Options(
        sides=words(sides, SIDES, "--sides"),
        rounds=rounds,
        seconds=seconds,
        adapters=adapters,
        most_streams=most_streams,
    )
    study = StudyDir.create(results, "overhead")
    found: dict[str, Outcome] = {}
    left_out: dict[str, str] = {}
    with under_way(study), Workplace.open(study, Cores.here(), peers.absolute(), remarks().print) as place:
        if not place.cores.apart:
            place.tell("There is one core only: what is measured, the engine and the load compete for it.")
        for name in wanted:
            place.tell(f"{name}:")
            try:
                found[name] = PARTS[name](place, options)
            except (EndpointError, NotInstalled, NothingMeasured) as error:
                left_out[name] = str(error)
                place.tell(f"{name} was left out: {error}")
            study.write(_result(options, place, found, left_out))
    for outcome in found.values():
        for one in outcome.tables:
            answers().print(one)
        for remark in outcome.remarks:
            answers().print(remark, soft_wrap=True)
    _tell_goals(found)
    for name, why in (place.left_out | left_out).items():
        answers().print(f"{name} was left out: {why}", soft_wrap=True)
    answers().print(f"Written to {study.result_path}.", soft_wrap=True)
    if not found:
        raise NothingMeasured("No part could be measured.")


def _result(options: Options, place: Workplace, found: dict[str, Outcome], left_out: dict[str, str]) -> dict[str, Any]:
    return {
        "options": options,
        "cores": {"tested": sorted(place.cores.tested), "load": sorted(place.cores.load)},
        "wrk": wrk_version(),
        "servers": place.started,
        "left_out": place.left_out | left_out,
        "parts": {
            name: {"goals": outcome.goals, "remarks": outcome.remarks, "result": outcome.result}
            for name, outcome in found.items()
        },
    }


def _tell_goals(found: dict[str, Outcome]) -> None:
    rows = [
        (name, goal.text, goal.found, {True: "kept", False: "missed", None: "not known"}[goal.kept])
        for name, outcome in found.items()
        for goal in outcome.goals
    ]
    if rows:
        answers().print(table("Goals", ["part", "goal", "found", ""], rows, left=4))
