"""Figures of sides over rounds. Differences and ratios are of figures of the same round. Pure."""

import statistics
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from loramux_bench.overhead.usage import Usage
from loramux_bench.studies.ratio import Ratio, over, over_rounds

T = TypeVar("T")


class Taken(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What one side did in one round."""

    side: str
    round: int
    seen: T
    used: Usage


Rounds = Sequence[Taken[T]]
Figure = Callable[[T], float | None]


def sides(found: Rounds[T]) -> list[str]:
    """In the order in which they came."""
    return list(dict.fromkeys(one.side for one in found))


def of(found: Rounds[T], side: str) -> dict[int, Taken[T]]:
    """By round."""
    return {one.round: one for one in found if one.side == side}


def middle(found: Rounds[T], side: str, figure: Figure[T]) -> float | None:
    """The median over rounds."""
    return _median([figure(one.seen) for one in of(found, side).values()])


def added(found: Rounds[T], side: str, base: str, figure: Figure[T]) -> float | None:
    """The median over rounds of what it is more than `base`'s; None for `base` itself."""
    if side == base:
        return None
    return _median(
        [None if own is None or other is None else own - other for own, other in _pairs(found, side, base, figure)]
    )


def ratio(found: Rounds[T], side: str, base: str, figure: Figure[T]) -> Ratio | None:
    """To `base`'s; None for `base` itself."""
    if side == base:
        return None
    return over_rounds(over(own, other) for own, other in _pairs(found, side, base, figure))


def _pairs(found: Rounds[T], side: str, base: str, figure: Figure[T]) -> list[tuple[float | None, float | None]]:
    others = of(found, base)
    return [
        (figure(one.seen), figure(others[number].seen)) for number, one in of(found, side).items() if number in others
    ]


def _median(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None
