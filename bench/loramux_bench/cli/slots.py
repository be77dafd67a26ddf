"""`loramux bench slots`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loramux_bench.cli.console import answers, remarks
from loramux_bench.cli.lists import words
from loramux_bench.cli.options import Results
from loramux_bench.cli.side_options import (
    DEFAULT_SIDES,
    Alpha,
    Base,
    Clients,
    Device,
    EnginePython,
    Modules,
    PromptTokens,
    Rank,
    Requests,
    Seed,
    Sides,
    Slots,
    Tokens,
    modules_of,
    shape_of,
)
from loramux_bench.studies.adapters import LoraShapes
from loramux_bench.studies.draw import CHOICES
from loramux_bench.studies.servers import DEFAULT_BASE
from loramux_bench.studies.side import SIDES, SideBySide
from loramux_bench.studies.slots import Load, Row, measure, plan, rows
from loramux_bench.studies.study import StudyDir, ms, table, under_way


def slots(
    slots: Slots = 4,
    clients: Clients = 16,
    requests: Requests = 96,
    rounds: Annotated[int, typer.Option(min=1, help="Through all counts of adapters; an interval takes 2.")] = 3,
    choice: Annotated[str, typer.Option(help="Which adapter is asked: uniform, zipf; with commas.")] = "uniform,zipf",
    alpha: Alpha = 1.0,
    tokens: Tokens = 24,
    prompt_tokens: PromptTokens = 32,
    rank: Rank = 8,
    modules: Modules = "q_proj,v_proj",
    side: Sides = DEFAULT_SIDES,
    base: Base = DEFAULT_BASE,
    kind: Device = "cpu",
    engine_python: EnginePython = "",
    seed: Seed = 1,
    results: Results = Path("results"),
) -> None:
    """The cliff: more adapters than the engine has slots, all of them in its memory, one server after the other."""
    load = Load(
        slots=slots,
        clients=clients,
        requests=requests,
        rounds=rounds,
        choice=words(choice, CHOICES, "--choice"),
        alpha=alpha,
        prompt_tokens=prompt_tokens,
        max_tokens=tokens,
        seed=seed,
    )
    wanted, names = words(side, SIDES, "--sides"), load.adapters
    shape = shape_of(base, kind, slots=slots, in_memory=len(names), rank=rank, python=engine_python)
    lora, kinds = LoraShapes.of(shape.directory), modules_of(modules)
    compared = SideBySide(sides=wanted, shape=shape, lora=lora, rank=rank, modules=kinds, load=load)
    study = StudyDir.create(results, "slots")
    with under_way(study):
        found = compared.measure(
            study, lambda callers, _base: measure(callers, load, plan(load)), rows, tell=remarks().print
        )
    answers().print(_table(found, slots))
    answers().print(f"Written to {study.result_path}.")


def _table(found: Sequence[Row], slots: int) -> Table:
    columns = ["side", "choice", "adapters", "requests/s", "tokens/s", f"of {slots} adapters'", "TTFT p50, ms"]
    columns += ["p99", "longest", "worst adapter's p50", "its share", "evenness", "errors"]
    return table(
        f"{slots} slots (95 % intervals over rounds)",
        columns,
        [
            [
                row.side,
                row.choice,
                str(row.adapters),
                f"{row.figures.rps:.2f}",
                f"{row.figures.tokens_a_second:.1f}",
                "" if row.throughput is None else str(row.throughput),
                ms(row.figures.ttft_p50_s),
                ms(row.figures.ttft_p99_s),
                ms(row.figures.ttft_max_s),
                "" if row.worst is None else ms(row.worst.ttft_p50_s),
                "" if row.worst is None else f"{row.worst.share:.1%}",
                "" if row.evenness is None else f"{row.evenness:.2f}",
                str(row.figures.errors),
            ]
            for row in found
        ],
        left=2,
    )
