"""`loramux bench cost`."""

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
    Base,
    Device,
    EnginePython,
    Modules,
    PromptTokens,
    Rank,
    Seed,
    Sides,
    Tokens,
    modules_of,
    numbers,
    shape_of,
)
from loramux_bench.studies.adapters import LoraShapes
from loramux_bench.studies.cost import GOAL_CPU, GOAL_GPU, Load, Row, measure, plan, rows
from loramux_bench.studies.servers import DEFAULT_BASE
from loramux_bench.studies.side import SIDES, SideBySide
from loramux_bench.studies.study import StudyDir, table, under_way


def cost(
    streams: Annotated[str, typer.Option(help="Requests in a batch: numbers with commas.")] = "1,4",
    rank: Rank = 8,
    modules: Modules = "q_proj,v_proj,o_proj",
    rounds: Annotated[int, typer.Option(min=1, help="Of base and adapters in turn; an interval takes 2.")] = 5,
    tokens: Tokens = 64,
    prompt_tokens: PromptTokens = 64,
    side: Sides = DEFAULT_SIDES,
    base: Base = DEFAULT_BASE,
    kind: Device = "cpu",
    engine_python: EnginePython = "",
    seed: Seed = 1,
    results: Results = Path("results"),
) -> None:
    """What an adapter costs against the base: the same prompts, the same batch, one server after the other."""
    load = Load(numbers(streams, "--streams"), rounds, prompt_tokens, tokens, seed)
    wanted, names = words(side, SIDES, "--sides"), load.adapters
    shape = shape_of(base, kind, slots=len(names), in_memory=len(names), rank=rank, python=engine_python)
    lora, kinds = LoraShapes.of(shape.directory), modules_of(modules)
    compared = SideBySide(sides=wanted, shape=shape, lora=lora, rank=rank, modules=kinds, load=load)
    study = StudyDir.create(results, "cost")
    with under_way(study):
        found = compared.measure(
            study, lambda clients, base: measure(clients, plan(load, base)), rows, tell=remarks().print
        )
    answers().print(_table(found))
    answers().print(f"Goals for E2E: {GOAL_GPU:g} on a GPU, {GOAL_CPU:g} on a CPU. Written to {study.result_path}.")


def _table(found: Sequence[Row]) -> Table:
    return table(
        "Adapter against base (95 % intervals over rounds)",
        ["side", "kind", "streams", "base ms/token", "adapter ms/token", "E2E ratio", "TTFT ratio", "rounds", "errors"],
        [
            [
                row.side,
                row.kind,
                str(row.streams),
                f"{row.base_ms_a_token:.1f}",
                f"{row.ms_a_token:.1f}",
                str(row.e2e),
                str(row.ttft),
                str(row.e2e.rounds),
                str(row.errors),
            ]
            for row in found
        ],
        left=2,
    )
