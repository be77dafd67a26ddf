"""A ratio over rounds, as an estimate with an interval. Pure."""

import math
import statistics
from collections.abc import Iterable

import msgspec

from loramux_bench.decide.student import quantile

_CONFIDENCE = 0.95


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """The geometric mean of the rounds' ratios, and Student's interval of 95 % for it: of the logarithms, as ratios
    multiply. A single round has no interval."""

    value: float
    low: float | None
    high: float | None
    rounds: int

    def __str__(self) -> str:
        between = "" if self.low is None or self.high is None else f" ({self.low:.2f} to {self.high:.2f})"
        return f"{self.value:.2f}{between}"


def over_rounds(ratios: Iterable[float | None]) -> Ratio | None:
    """Of each round its ratio, above 0, or None where it has none; None without any."""
    logs = [math.log(ratio) for ratio in ratios if ratio is not None]
    if not logs:
        return None
    middle = statistics.fmean(logs)
    low = high = None
    if len(logs) > 1:
        half = quantile(_CONFIDENCE, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
        low, high = math.exp(middle - half), math.exp(middle + half)
    return Ratio(value=math.exp(middle), low=low, high=high, rounds=len(logs))


def over(value: float | None, base: float | None) -> float | None:
    """None where there is nothing to divide."""
    return None if not value or not base else value / base
