"""Options of the studies that hold one side against another, and what they are made into."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from loramux_bench.errors import ScenarioError
from loramux_bench.studies.adapters import ALL_MODULES
from loramux_bench.studies.servers import EngineShape, Kind

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""That vLLM can be given as the largest (`--max-lora-rank`), but for 1."""
_DEFAULT_RANK = 16
"""What loramux gives it."""
_SLOTS = "Adapters that the engine computes with at a time: --max-loras."
_IN_MEMORY = "Adapters that the engine keeps in host memory: --max-cpu-loras."

Base = Annotated[Path, typer.Option(help="Directory of the base model.")]
Device = Annotated[Kind, typer.Option("--kind", help="What vLLM runs on.")]
EnginePython = Annotated[
    str, typer.Option(help="Interpreter of the environment in which vLLM is, where it is not this one.")
]
EngineArgs = Annotated[
    list[str], typer.Option("--engine-arg", help="A further argument of vLLM, on all sides; may be repeated.")
]
MaxModelLen = Annotated[int, typer.Option(min=256, help="Longest prompt with its answer, tokens: --max-model-len.")]
Sides = Annotated[str, typer.Option("--sides", help="Which to measure: stock, loramux, loramux-torch; with commas.")]
Rank = Annotated[int, typer.Option(min=1, max=512, help="Of the adapters.")]
Modules = Annotated[str, typer.Option(help="What the adapters are of, such as q_proj,v_proj.")]
Seed = Annotated[int, typer.Option(help="Of the adapters, the prompts and what is drawn.")]
Tokens = Annotated[int, typer.Option(min=2, help="Of each answer.")]
PromptTokens = Annotated[int, typer.Option(min=8, help="Of each prompt, about.")]
Clients = Annotated[int, typer.Option(min=1, help="Each has one request at a time.")]
Requests = Annotated[int, typer.Option(min=1, help="Of each closed loop.")]
Slots = Annotated[int, typer.Option(min=1, help=_SLOTS)]
SlotsForTwo = Annotated[int, typer.Option(min=2, help=_SLOTS)]
"""Where one adapter stays while others come."""
InMemory = Annotated[int, typer.Option(min=1, help=_IN_MEMORY)]
InMemoryForTwo = Annotated[int, typer.Option(min=2, help=_IN_MEMORY)]
"""Likewise."""
Alpha = Annotated[
    float, typer.Option(min=0.01, help="Zipf: the k-th adapter has weight k to the power of minus alpha.")
]

DEFAULT_SIDES = "stock,loramux"
EVERY_MODULE = ",".join(ALL_MODULES)


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers above 0 with commas between them; ascending, none twice. Raises `ScenarioError`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
        raise ScenarioError(f"{option} takes numbers with commas between them, such as 1,4; not {text!r}.")
    return tuple(sorted({int(part) for part in parts}))


def modules_of(text: str) -> tuple[str, ...]:
    """Raises `ScenarioError`."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if strange := [name for name in names if name not in ALL_MODULES]:
        raise ScenarioError(f"There is no module {strange[0]!r}: there are {', '.join(ALL_MODULES)}.")
    return names


def shape_of(
    base: Path,
    kind: Kind,
    *,
    slots: int,
    in_memory: int,
    rank: int,
    max_model_len: int = 2048,
    extra_args: Sequence[str] = (),
    python: str = "",
) -> EngineShape:
    """An engine with room for adapters of this rank."""
    return EngineShape(
        base=base,
        kind=kind,
        max_loras=slots,
        max_cpu_loras=max(slots, in_memory),
        max_lora_rank=largest_rank(rank),
        max_model_len=max_model_len,
        extra_args=tuple(extra_args),
        python=python or sys.executable,
    )


def largest_rank(rank: int) -> int:
    """What an engine must be given that is to take this rank."""
    return max(_DEFAULT_RANK, min(one for one in _RANKS if one >= rank))
