"""A part of the measurement: what it is given, and what it gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.table import Table

from loramux_bench.overhead import rounds
from loramux_bench.overhead.rounds import Figure, Rounds
from loramux_bench.overhead.side import DIRECT, LORAMUX
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.studies.study import ms

AGAINST = "vllm-router"
"""The side that loramux is held against."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command was told."""

    sides: tuple[str, ...]
    """Of `side.SIDES`; parts that are about loramux alone pass over it."""
    rounds: int = 3
    seconds: float = 4.0
    """Of one measurement of one side."""
    adapters: int = 1000
    """Registered ones, where a part is about many."""
    most_streams: int = 4096
    """Where the search for the most streams ends."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise, and whether this run kept it; `kept` is None where it can not be said, and `found` says why."""

    text: str
    found: str
    kept: bool | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one part."""

    result: Any
    """For the JSON, by msgspec: every round with its figures."""
    tables: Sequence[Table] = ()
    goals: Sequence[Goal] = ()
    remarks: Sequence[str] = field(default=())
    """Sentences below the tables: what was left out, when the mock or the generator was the limit."""


def at_least(what: str, found: Rounds[T], figure: Figure[T], times: float, against: str = AGAINST) -> Goal:
    """loramux's is so many times that of `against`, in the same rounds."""
    text = f"{what} ≥ {f'{times:g}× ' if times != 1 else ''}{against}'s"
    ratio = rounds.ratio(found, LORAMUX, against, figure)
    if ratio is None:
        return Goal(text, f"{LORAMUX} and {against} were not both measured", None)
    return Goal(text, f"{ratio}×", ratio.value >= times)


def at_most(what: str, found: Rounds[T], figure: Figure[T]) -> Goal:
    """What loramux adds to `direct` is no more than what `AGAINST` adds; `figure` in seconds."""
    text = f"{what} ≤ {AGAINST}'s"
    ours, theirs = (rounds.added(found, side, DIRECT, figure) for side in (LORAMUX, AGAINST))
    if ours is None or theirs is None:
        return Goal(text, f"{LORAMUX} and {AGAINST} were not both measured", None)
    return Goal(text, f"{ms(ours)} ms against {ms(theirs)} ms", ours <= theirs)


Part = Callable[[Workplace, Options], Outcome]
"""Starts what it needs with `places`, measures, ends it. Raises `BenchError` where nothing can be measured."""
