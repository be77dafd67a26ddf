"""Intervals for the ratio of a figure of two sides, from the requests of their rounds.

Two sources of noise, two estimates, and the wider of both at each end:

- Requests. The percentile bootstrap (Efron & Tibshirani 1993, chapter 13) over requests, within each round: a request
  is drawn with all its values, as the gaps of one answer are no independent witnesses (cluster bootstrap, Davison &
  Hinkley 1997, section 3.8).
- Rounds, where both sides have `FEWEST_ROUNDS` or more: what a machine does for a minute moves all requests of a round
  together, and only other rounds show it. Percentiles of so few are far too narrow (of nominally 95 % intervals over 3
  rounds about 80 % hold the truth), so that the bootstrap gives the standard error of the ratio's logarithm and
  Student's t the width (Efron & Tibshirani, section 12.2; rounds - 1 are drawn, which makes the variance unbiased: Rao
  & Wu 1988). Rounds of the sides that ran next to each other are drawn as pairs: what they share goes out of the ratio.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loramux_bench.decide.student import quantile
from loramux_bench.results.measures import Values

FEWEST_REQUESTS = 20
"""On each side. With fewer the bootstrap's intervals are known to be too narrow, and there is none."""
FEWEST_BEYOND = 5
"""Values beyond a percentile, on each side: a p99 takes 500. Nearer to the end, resamples repeat the same few."""
FEWEST_ROUNDS = 3
"""On each side, to estimate the noise between rounds."""
RESAMPLES = 2_000

_MOST_UNITS = 1_000
"""Of a side. Of more requests, neighbours are drawn together: memory stays small, and what neighbours share counts."""
_MOST_BLOCKS = 4_096
"""Into which the sorted values of a side are divided: a resample's percentile is right to that share of the ranks.
With as many values or fewer it is exact."""

Weights = NDArray[np.float32]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Pool:
    """The values of one side. Percentiles are of all values pooled, the mean is the sum of `numerators` over that of
    `denominators`, both of shape (units,): a unit is a request, or several neighbours."""

    values: Values
    """Sorted."""
    owners: NDArray[np.intp]
    """The unit of each value."""
    rounds: NDArray[np.intp]
    """The round of each unit, from 0, ascending."""
    numerators: Values
    denominators: Values
    requests: int
    """With a value."""
    round_count: int

    def figure(self, share: float | None) -> float | None:
        """The percentile of this share, or for None the mean; None where there is nothing to take it of."""
        if share is not None:
            return float(np.quantile(self.values, share)) if self.values.size else None
        whole = self.denominators.sum()
        return float(self.numerators.sum() / whole) if whole > 0 else None

    def enough(self, share: float | None) -> bool:
        """Whether there is an interval."""
        beyond = math.inf if share is None else self.values.size * min(share, 1 - share)
        return self.requests >= FEWEST_REQUESTS and beyond >= FEWEST_BEYOND - 1e-9


def pool(rounds: Sequence[Sequence[Sequence[float]]]) -> Pool:
    """Of each round, of each request its values; those of a request may be none."""
    rows = [[np.asarray(row, dtype=np.float64) for row in one if len(row)] for one in rounds]
    units, unit_rounds = _units([len(one) for one in rows])
    flat = [row for one in rows for row in one]
    owners = np.repeat(units, [row.size for row in flat])
    values = np.concatenate(flat) if flat else np.zeros(0)
    order = np.argsort(values, kind="stable")
    count = unit_rounds.size
    return Pool(
        values=values[order],
        owners=owners[order],
        rounds=unit_rounds,
        numerators=_sums(owners, values, count),
        denominators=_sums(owners, np.ones(values.size), count),
        requests=len(flat),
        round_count=len(rounds),
    )


def pool_rates(rounds: Sequence[Sequence[tuple[float, float]]]) -> Pool:
    """Of each round, of each request what it gave (such as tokens) and its part of the round's time, in seconds."""
    units, unit_rounds = _units([len(one) for one in rounds])
    pairs = np.array([pair for one in rounds for pair in one], dtype=np.float64).reshape(-1, 2)
    count = unit_rounds.size
    return Pool(
        values=np.zeros(0),
        owners=np.zeros(0, dtype=np.intp),
        rounds=unit_rounds,
        numerators=_sums(units, pairs[:, 0], count),
        denominators=_sums(units, pairs[:, 1], count),
        requests=len(pairs),
        round_count=len(rounds),
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure of B over that of A, and how it might have come out."""

    value: float
    resampled: Values
    """Sorted, over resamples of the requests; empty where these are too few."""
    rounds_error: float | None
    """Standard error of the ratio's logarithm, over rounds; None with too few rounds."""
    degrees: int
    """Degrees of freedom of `rounds_error`."""

    def interval(self, confidence: float) -> Interval | None:
        """Two-sided; None where the requests are too few."""
        if not self.resampled.size:
            return None
        tail = (1 - confidence) / 2
        low, high = (float(end) for end in np.quantile(self.resampled, (tail, 1 - tail)))
        if self.rounds_error is not None:
            spread = math.exp(quantile(confidence, self.degrees) * self.rounds_error)
            low, high = min(low, self.value / spread), max(high, self.value * spread)
        return min(low, self.value), max(high, self.value)


def ratios(
    a: Pool,
    b: Pool,
    shares: Sequence[float | None],
    rng: np.random.Generator,
    *,
    paired: bool = False,
    resamples: int = RESAMPLES,
) -> list[Ratio | None]:
    """Of each percentile (a share from 0 to 1) and mean (None) asked for, in that order; None where a side has no
    value or A's is not above 0. `paired`: round k of A and of B ran next to each other, and both have as many.

    Deterministic: the same generator state gives the same result.
    """
    points = [_over(b.figure(share), a.figure(share)) for share in shares]
    if all(point is None for point in points):
        return [None] * len(shares)
    by_requests = _draw(b, _of_requests(b, rng, resamples), shares) / _draw(a, _of_requests(a, rng, resamples), shares)
    errors: list[float | None] = [None] * len(shares)
    degrees = 0
    if min(a.round_count, b.round_count) >= FEWEST_ROUNDS:
        weights_a = _of_rounds(a.round_count, rng, resamples)
        weights_b = weights_a if paired else _of_rounds(b.round_count, rng, resamples)
        degrees = a.round_count - 1 if paired else a.round_count + b.round_count - 2
        by_rounds = _draw(b, weights_b[:, b.rounds], shares) / _draw(a, weights_a[:, a.rounds], shares)
        errors = [_log_error(column) for column in by_rounds.T]
    return [
        None
        if point is None
        else Ratio(
            value=point,
            resampled=np.sort(column[np.isfinite(column)]) if a.enough(share) and b.enough(share) else np.zeros(0),
            rounds_error=error,
            degrees=degrees,
        )
        for point, share, column, error in zip(points, shares, by_requests.T, errors, strict=True)
    ]


def _over(b: float | None, a: float | None) -> float | None:
    return None if a is None or b is None or a <= 0 else b / a


def _sums(places: NDArray[np.intp], values: Values, count: int) -> Values:
    return np.bincount(places, weights=values, minlength=count).astype(np.float64)


def _units(counts: Sequence[int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The unit of each request, and the round of each unit, for this many requests a round."""
    most = max(1, _MOST_UNITS // max(1, len(counts)))
    units, rounds, start = [], [], 0
    for place, count in enumerate(counts):
        made = min(count, most)
        units.append(start + np.arange(count) * made // max(1, count))
        rounds.append(np.full(made, place))
        start += made
    none = np.zeros(0, dtype=np.intp)
    return np.concatenate([none, *units]), np.concatenate([none, *rounds])


def _of_requests(of: Pool, rng: np.random.Generator, resamples: int) -> Weights:
    """How often each unit is drawn, shape (resamples, units): as many of each round as it has."""
    sizes = np.bincount(of.rounds)
    parts = [rng.multinomial(size, np.full(size, 1 / size), size=resamples) for size in sizes if size]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _of_rounds(count: int, rng: np.random.Generator, resamples: int) -> Weights:
    return rng.multinomial(count - 1, np.full(count, 1 / count), size=resamples).astype(np.float32)


def _draw(of: Pool, weights: Weights, shares: Sequence[float | None]) -> Values:
    """The figures of each resample, shape (resamples, shares); NaN where a resample has nothing to take one of."""
    found = np.full((len(weights), len(shares)), np.nan)
    if any(share is not None for share in shares) and of.values.size:
        middles, drawn = _blocks(of, weights)
        below = np.cumsum(drawn, axis=1, dtype=np.float64)
    for column, share in enumerate(shares):
        if share is None:
            with np.errstate(invalid="ignore", divide="ignore"):
                found[:, column] = _dot(weights, of.numerators) / _dot(weights, of.denominators)
        elif of.values.size:
            found[:, column] = _percentiles(middles, below, share)
    return found


def _dot(weights: Weights, values: Values) -> Values:
    """As `@`, without the threads of a BLAS, which wait for each other on a machine that is busy."""
    return np.asarray(np.einsum("ru,u->r", weights, values))


def _blocks(of: Pool, weights: Weights) -> tuple[Values, Weights]:
    """Of each block of sorted values the mean, shape (blocks,), and how many of it each resample has drawn."""
    size = of.values.size
    if size <= _MOST_BLOCKS:
        return of.values, weights[:, of.owners]
    block = np.arange(size) * _MOST_BLOCKS // size
    counts = np.zeros((len(of.rounds), _MOST_BLOCKS), dtype=np.float32)
    np.add.at(counts, (of.owners, block), 1)
    return np.bincount(block, weights=of.values) / np.bincount(block), weights @ counts


def _percentiles(middles: Values, below: Values, share: float) -> Values:
    """Interpolated linearly between ranks, as `numpy.quantile` does. `below`: of each resample the drawn values up to
    and with each block; shape (resamples, blocks)."""
    place = share * np.maximum(below[:, -1] - 1, 0)
    rank = np.floor(place)
    last = len(middles) - 1
    low = np.minimum((below <= rank[:, None]).sum(axis=1), last)
    high = np.minimum((below <= np.minimum(rank + 1, below[:, -1] - 1)[:, None]).sum(axis=1), last)
    return np.asarray(middles[low] + (place - rank) * (middles[high] - middles[low]))


def _log_error(resampled: Values) -> float | None:
    usable = resampled[np.isfinite(resampled) & (resampled > 0)]
    return float(np.std(np.log(usable))) if usable.size > 1 else None
