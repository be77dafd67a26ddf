"""`loramux bench scale`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from loramux_bench.cli.console import answers, remarks
from loramux_bench.cli.lists import words
from loramux_bench.cli.options import Results
from loramux_bench.cli.side_options import (
    Alpha,
    Base,
    Clients,
    Device,
    EnginePython,
    InMemory,
    Modules,
    PromptTokens,
    Rank,
    Requests,
    Seed,
    Slots,
    Tokens,
    modules_of,
    numbers,
    shape_of,
)
from loramux_bench.studies.adapters import LoraShapes, write_adapters
from loramux_bench.studies.growth import grow_loramux, grow_stock
from loramux_bench.studies.scale import GOAL_RESTART_S, Load, Row, restart_cost_s, slopes
from loramux_bench.studies.servers import DEFAULT_BASE
from loramux_bench.studies.study import StudyDir, ms, table, under_way

_GROWN = {"loramux": grow_loramux, "stock": grow_stock}


def scale(
    counts: Annotated[str, typer.Option(help="Registered adapters: numbers with commas.")] = "1,10,100,1000",
    clients: Clients = 8,
    requests: Requests = 128,
    alpha: Alpha = 1.0,
    tokens: Tokens = 16,
    prompt_tokens: PromptTokens = 32,
    restarts: Annotated[int, typer.Option(min=1, help="Of the gateway, at each count.")] = 3,
    slots: Slots = 8,
    in_memory: InMemory = 32,
    rank: Rank = 8,
    modules: Modules = "q_proj,v_proj",
    side: Annotated[str, typer.Option("--sides", help="loramux, stock; with commas.")] = "loramux,stock",
    base: Base = DEFAULT_BASE,
    kind: Device = "cpu",
    engine_python: EnginePython = "",
    seed: Seed = 1,
    results: Results = Path("results"),
) -> None:
    """What many registered adapters cost: registering, memory, listing, a restart, and Zipf traffic over all."""
    load = Load(
        counts=numbers(counts, "--counts"),
        clients=clients,
        requests=requests,
        alpha=alpha,
        prompt_tokens=prompt_tokens,
        max_tokens=tokens,
        restarts=restarts,
        seed=seed,
    )
    wanted = words(side, tuple(_GROWN), "--sides")
    shape = shape_of(base, kind, slots=slots, in_memory=in_memory, rank=rank, python=engine_python)
    shapes, kinds = LoraShapes.of(shape.directory), modules_of(modules)
    study = StudyDir.create(results, "scale")
    found: list[Row] = []
    with under_way(study):
        names = load.names(load.counts[-1])
        remarks().print(f"Writing {len(names)} adapters")
        adapters = write_adapters(study.scratch / "adapters", shapes, names, rank=rank, seed=seed, modules=kinds)
        for one in wanted:
            remarks().print(f"{one}: starting")
            for row in _GROWN[one](load, shape, adapters, study):
                found.append(row)
                remarks().print(f"{one}: {row.adapters} adapters measured")
                study.write(_result(load, rank, kinds, found), shape)
    answers().print(_traffic_table(found))
    if any(row.books for row in found):
        answers().print(_books_table(found))
    if (slope := slopes(found)) is not None:
        answers().print(
            f"One more adapter costs the gateway {slope.memory_bytes / 1024:.1f} KiB, {slope.list_s * 1e6:.0f} µs of a "
            f"listing of all, and {slope.ready_s * 1000:.2f} ms of a restart."
        )
    answers().print(
        f"Goal for a restart: below {GOAL_RESTART_S:g} s more than with none. Written to {study.result_path}."
    )


def _result(load: Load, rank: int, modules: Sequence[str], found: Sequence[Row]) -> dict[str, Any]:
    return {
        "load": load,
        "rank": rank,
        "modules": modules,
        "rows": found,
        "slopes": slopes(found),
        "restart_cost_s": {str(count): cost_s for count, cost_s in restart_cost_s(found).items()},
    }


def _traffic_table(found: Sequence[Row]) -> Table:
    return table(
        "Zipf traffic on one replica",
        ["side", "adapters", "registered/s", "requests/s", "tokens/s", "TTFT p50, ms", "TTFT p99, ms", "errors"],
        [
            [
                row.side,
                str(row.adapters),
                f"{row.registered.adapters / row.registered.length_s:.1f}" if row.registered else "",
                f"{row.figures.rps:.2f}",
                f"{row.figures.tokens_a_second:.1f}",
                ms(row.figures.ttft_p50_s),
                ms(row.figures.ttft_p99_s),
                str(row.figures.errors),
            ]
            for row in found
            if row.figures is not None
        ],
    )


def _books_table(found: Sequence[Row]) -> Table:
    more = restart_cost_s(found)
    return table(
        "The gateway by itself",
        ["adapters", "memory, MiB", "first page, ms", "list of all, ms", "ready after, s", "more than with none, s"],
        [
            [
                str(row.adapters),
                f"{row.books.memory_bytes / 2**20:.1f}",
                ms(row.books.first_page_s),
                ms(row.books.list_s),
                f"{row.books.ready_s:.2f}",
                f"{more[row.adapters]:+.2f}" if row.adapters in more else "",
            ]
            for row in found
            if row.books is not None
        ],
    )
