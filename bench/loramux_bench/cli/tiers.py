"""`loramux bench tiers`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loramux_bench.cli.console import answers, remarks
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
    Slots,
    modules_of,
    shape_of,
)
from loramux_bench.errors import NothingMeasured
from loramux_bench.studies.servers import DEFAULT_BASE
from loramux_bench.studies.study import StudyDir, ms, table, under_way
from loramux_bench.studies.tier_rounds import Plan, run
from loramux_bench.studies.tiers import PLACES, SIDES, Row, Sample, summarise


def tiers(
    sides: Annotated[str, typer.Option(help=f"Which to measure, of {', '.join(SIDES)}.")] = ",".join(SIDES),
    places: Annotated[str, typer.Option(help="Where the adapters are when they are asked.")] = ",".join(PLACES),
    samples: Annotated[int, typer.Option(min=1, help="Of each place, in a round.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Of the servers in turn; an interval takes 2.")] = 2,
    rank: Rank = 64,
    modules: Modules = EVERY_MODULE,
    slots: Slots = 4,
    in_memory: InMemoryForTwo = 8,
    max_model_len: MaxModelLen = 2048,
    base: Base = DEFAULT_BASE,
    kind: Device = "cpu",
    engine_python: EnginePython = "",
    engine_args: EngineArgs = [],  # noqa: B006  Typer reads it, nobody changes it
    s3_endpoint: Annotated[
        str, typer.Option(help="A store of the S3 protocol; credentials by AWS's usual means. Empty: moto's server.")
    ] = "",
    s3_bucket: Annotated[str, typer.Option(help="Where the adapters are put for the while.")] = "loramux-bench",
    seed: Seed = 1,
    results: Results = Path("results"),
) -> None:
    """How long a request waits for its first token, by where its adapter was: stock vLLM and loramux."""
    plan = Plan(
        sides=words(sides, SIDES, "--sides"),
        places=words(places, PLACES, "--places"),
        rounds=rounds,
        samples=samples,
        rank=rank,
        modules=modules_of(modules),
        seed=seed,
        s3_endpoint=s3_endpoint,
        s3_bucket=s3_bucket,
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
    study = StudyDir.create(results, "tiers")
    taken: list[Sample] = []

    def take(sample: Sample) -> None:
        taken.append(sample)
        study.write({"plan": plan, "rows": summarise(taken), "samples": taken}, shape)

    with under_way(study):
        run(plan, shape, study, take=take, tell=remarks().print)
    found = summarise(taken)
    answers().print(_table(found))
    answers().print(f"Written to {study.result_path}.", soft_wrap=True)
    if not any(row.samples for row in found):
        raise NothingMeasured("No adapter was where it should be.")


def _table(found: Sequence[Row]) -> Table:
    return table(
        "From request to first token, ms; ratio of medians to the base (95 % intervals over rounds)",
        ["side", "adapter was in", "samples", "not there", "p50", "p90", "p99", "max", "to base"],
        [
            [
                row.side,
                row.place,
                str(row.samples),
                str(row.missed),
                *((ms(row.ttft.p50), ms(row.ttft.p90), ms(row.ttft.p99), ms(row.ttft.max)) if row.ttft else [""] * 4),
                "" if row.to_base is None else str(row.to_base),
            ]
            for row in found
        ],
        left=2,
    )
