"""`loramux bench stall`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loramux_bench.cli.console import answers, remarks
from loramux_bench.cli.lists import rates as rates_of
from loramux_bench.cli.lists import words
from loramux_bench.cli.options import Results
from loramux_bench.cli.side_options import (
    EVERY_MODULE,
    Base,
    Device,
    EngineArgs,
    EnginePython,
    InMemoryForTwo,
    MaxModelLen,
    Modules,
    Rank,
    Seed,
    SlotsForTwo,
    modules_of,
    shape_of,
)
from loramux_bench.errors import NothingMeasured
from loramux_bench.studies.servers import DEFAULT_BASE
from loramux_bench.studies.stall import CACHES, GOAL, SIDES, Row, Seen, summarise
from loramux_bench.studies.stall_rounds import Plan, run
from loramux_bench.studies.study import StudyDir, ms, table, under_way


def stall(
    sides: Annotated[str, typer.Option(help=f"Which to measure, of {', '.join(SIDES)}.")] = ",".join(SIDES),
    rates: Annotated[str, typer.Option(help="Cold adapters a second; quiet comes before them.")] = "1,4,16",
    caches: Annotated[str, typer.Option(help="Their files: warm (in the page cache), dropped (from it).")] = ",".join(
        CACHES
    ),
    seconds: Annotated[float, typer.Option(min=0.5, help="Of a cell: one side at one rate.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="Of the servers in turn; an interval takes 2.")] = 2,
    streams: Annotated[int, typer.Option(min=1, help="Warm streams.")] = 4,
    on_base: Annotated[bool, typer.Option("--on-base", help="The streams are the base's, not an adapter's.")] = False,
    rank: Rank = 64,
    modules: Modules = EVERY_MODULE,
    adapters: Annotated[int, typer.Option(min=2, help="That arrive, round and round.")] = 16,
    slots: SlotsForTwo = 4,
    in_memory: InMemoryForTwo = 8,
    max_model_len: MaxModelLen = 2048,
    base: Base = DEFAULT_BASE,
    kind: Device = "cpu",
    engine_python: EnginePython = "",
    engine_args: EngineArgs = [],  # noqa: B006  Typer reads it, nobody changes it
    seed: Seed = 1,
    results: Results = Path("results"),
) -> None:
    """How long warm streams wait for their next token while cold adapters arrive: stock vLLM and loramux."""
    plan = Plan(
        sides=words(sides, SIDES, "--sides"),
        rates=rates_of(rates, "--rates"),
        caches=words(caches, CACHES, "--caches"),
        rounds=rounds,
        seconds=seconds,
        streams=streams,
        adapters=adapters,
        rank=rank,
        modules=modules_of(modules),
        on_base=on_base,
        seed=seed,
    )
    shape = shape_of(
        base,
        kind,
        slots=slots,
        in_memory=in_memory,
        rank=rank,
        max_model_len=max_model_len,
        extra_args=engine_args,
        python=engine_python,
    )
    plan.at_a_time(shape)
    study = StudyDir.create(results, "stall")
    cells: list[Seen] = []

    def take(cell: Seen) -> None:
        cells.append(cell)
        study.write({"plan": plan, "rows": summarise(cells)}, shape)

    with under_way(study):
        run(plan, shape, study, take=take, tell=remarks().print)
    found = summarise(cells)
    answers().print(_table(found))
    for row in found:
        if row.failures:
            answers().print(f"{row.side}: {row.failures} arrivals failed, the first: {row.failure}")
    answers().print(f"Goal for p99: {GOAL:g} times quiet. Written to {study.result_path}.", soft_wrap=True)
    if not any(row.gaps for row in found):
        raise NothingMeasured("No stream had two tokens in the time of a cell: choose longer ones (--seconds).")


def _table(found: Sequence[Row]) -> Table:
    return table(
        "Gaps between tokens of warm streams, ms; ratios to quiet (95 % intervals over rounds)",
        [
            *("side", "cache", "arrivals/s", "gaps", "p50", "p99", "max", "p50 ratio", "p99 ratio"),
            *("due", "loads", "loads/s", "load p50, ms"),
        ],
        [_cells(row) for row in found],
        left=2,
    )


def _cells(row: Row) -> list[str]:
    gaps, loads = row.gaps, row.loads
    return [
        row.side,
        row.cache if row.arrivals_per_s else "",
        f"{row.arrivals_per_s:g}" if row.arrivals_per_s else "quiet",
        str(gaps.count if gaps else 0),
        *((ms(gaps.p50), ms(gaps.p99), ms(gaps.max)) if gaps else ("", "", "")),
        "" if row.ratio_p50 is None else str(row.ratio_p50),
        "" if row.ratio_p99 is None else str(row.ratio_p99),
        *((str(row.due), _loads(row), f"{row.loads_per_s:.2f}") if row.arrivals_per_s else ("", "", "")),
        ms(loads.p50) if loads else "",
    ]


def _loads(row: Row) -> str:
    """Those that ended; in brackets those that the gateway counted, where it was others: what came was not cold, or
    came twice."""
    ended = row.loads.count if row.loads else 0
    counted = row.engine_loads
    return str(ended) if counted is None or counted == row.begun - row.failures else f"{ended} ({counted} counted)"
