"""A run over time, in even bins, for plots."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import msgspec
import numpy as np
from numpy.typing import NDArray

from loramux_bench.record import RequestRecord
from loramux_bench.results.groups import span
from loramux_bench.results.measures import Values
from loramux_bench.results.residency import TIERS
from loramux_bench.run_dir import Generator, Sample

MAX_BINS = 200
WIDTHS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)
"""Widths of bins; beyond the last, its multiples by powers of two."""
FINE_BINS = 40
"""At most so many narrower than a second: a short run has few requests, and most of its bins would be empty."""
MAX_GAP = 3
"""What was sampled is taken to hold for so many times the usual interval between samples, and is not known after."""

Line = list[float | None]
"""A value a bin; None where nothing is known."""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Every list has one value for each bin. Requests of the warm-up are left out, as from all figures."""

    width_s: float
    at_s: list[float]
    """Where each bin begins, seconds since the run's start."""

    arrivals_per_s: list[float]
    """Requests by their origin: when they were due. Times the width, summed: all that were sent."""
    answered_per_s: list[float]
    """By their end; so are errors."""
    errors_per_s: list[float]
    output_tokens_per_s: list[float]
    """By when they came, of all requests, also those that ended in an error or were cut. The tokens of an answer are
    shared evenly by its chunks."""
    in_flight: list[float]
    """Requests sent and not ended, the mean over the bin."""

    latencies: dict[str, dict[str, Line]]
    """`p50` and `p99`, in seconds, of `ttft`, `itl` and `e2e` of the answered requests, each value in the bin in which
    it became known: at the first token, at the token that ended the gap, at the end."""

    replicas: dict[str, Line]
    """How many in each state, such as `ready`; empty where the endpoint did not say."""
    tiers: dict[str, Line]
    """How many adapters have `gpu`, `cpu`, `disk`, `remote` as their best tier; empty where it did not say."""
    queued: Line
    """At the endpoint, waiting for a place; empty where the endpoint did not say."""
    outstanding: Line
    """At the replicas; likewise."""

    generator_cpu: Line
    """Share of a core, of the busiest load process; empty without samples, likewise below."""
    machine_cpu: Line
    loop_lag_s: Line
    """The worst of the bin."""


def series(records: Sequence[RequestRecord], samples: Sequence[Sample]) -> Series:
    """From the first origin to the last end of the measured requests, in 200 bins at most. `samples` may come in any
    order; those of other times are left out."""
    measured = [record for record in records if not record.warmup]
    edges, width_s = _bins(*span(measured))
    origin_s = _array(record.origin_s for record in measured)
    end_s = _array(record.end_s for record in measured)
    ok = np.fromiter((record.ok for record in measured), dtype=np.bool_, count=len(measured))
    failed = np.fromiter((not record.ok and not record.cut for record in measured), dtype=np.bool_)
    sent_s = _array(record.sent_s for record in measured)
    chunks = _Chunks(measured, end_s)

    def rate(at_s: Values, weights: Values | None = None) -> list[float]:
        sums = np.bincount(_places(at_s, edges), weights, minlength=len(edges) - 1)
        found: list[float] = (sums / width_s).tolist()
        return found

    first_s = _array(record.first_token_s for record in measured if record.ok and record.first_token_s is not None)
    ttft_s = _array(record.ttft_s for record in measured if record.ok and record.ttft_s is not None)
    itl_of = ok[chunks.owners] & ~chunks.first
    told = sorted(samples, key=lambda sample: sample.at_s)
    watched = [(sample.at_s, sample.generator) for sample in told if sample.generator is not None]
    return Series(
        width_s=width_s,
        at_s=edges[:-1].tolist(),
        arrivals_per_s=rate(origin_s),
        answered_per_s=rate(end_s[ok]),
        errors_per_s=rate(end_s[failed]),
        output_tokens_per_s=rate(chunks.at_s, chunks.tokens),
        in_flight=_mean_under_way(sent_s, end_s, edges),
        latencies={
            "ttft": _percentiles(first_s, ttft_s, edges),
            "itl": _percentiles(chunks.at_s[itl_of], chunks.gaps_s[itl_of], edges),
            "e2e": _percentiles(end_s[ok], (end_s - origin_s)[ok], edges),
        },
        replicas=_counts([(s.at_s, s.replicas) for s in told if s.replicas is not None], edges, ("ready",)),
        tiers=_counts([(s.at_s, s.tiers) for s in told if s.tiers is not None], edges, TIERS),
        queued=_gauge(told, "loramux_requests_queued", edges),
        outstanding=_gauge(told, "loramux_requests_outstanding", edges),
        generator_cpu=_worst(watched, lambda one: one.cpu, edges),
        machine_cpu=_worst(watched, lambda one: one.machine_cpu, edges),
        loop_lag_s=_worst(watched, lambda one: one.loop_lag_s, edges),
    )


class _Chunks:
    """When each chunk with tokens came, of all requests in their order. Arrays of shape (chunks,). A request with
    tokens and no time of a first one has one chunk, at its end."""

    def __init__(self, records: Sequence[RequestRecord], end_s: Values) -> None:
        counts = np.fromiter((1 + len(record.gaps_s) for record in records), dtype=np.intp, count=len(records))
        starts = np.cumsum(counts) - counts
        self.owners = np.repeat(np.arange(len(records)), counts)
        self.first = np.zeros(len(self.owners), dtype=np.bool_)
        self.first[starts] = True
        self.gaps_s = np.zeros(len(self.owners))
        self.gaps_s[~self.first] = _array(chain.from_iterable(record.gaps_s for record in records))
        first_s = _array(
            end if r.first_token_s is None else r.first_token_s for r, end in zip(records, end_s, strict=True)
        )
        since_all = np.cumsum(self.gaps_s)
        self.at_s = since_all - (since_all[starts] - first_s)[self.owners]
        """The sum runs over all requests: it is exact to about 1e-9 s for ten million gaps."""
        tokens = _array(record.tokens for record in records)
        self.tokens = (tokens / counts)[self.owners]


def _bins(from_s: float, to_s: float) -> tuple[Values, float]:
    """Edges, shape (bins + 1,), on multiples of the width; at least one bin."""
    most = ((width, FINE_BINS if width < 1.0 else MAX_BINS) for width in WIDTHS_S)
    width_s = next((width for width, bins in most if _count(from_s, to_s, width) <= bins), WIDTHS_S[-1])
    while _count(from_s, to_s, width_s) > MAX_BINS:
        width_s *= 2
    return (np.floor(from_s / width_s) + np.arange(_count(from_s, to_s, width_s) + 1)) * width_s, width_s


def _count(from_s: float, to_s: float, width_s: float) -> int:
    return max(1, int(np.ceil(to_s / width_s) - np.floor(from_s / width_s)))


def _places(at_s: Values, edges: Values) -> NDArray[np.intp]:
    """The bin of each time; what lies on the last edge, or beyond by rounding, belongs to the last bin."""
    return np.clip(np.searchsorted(edges, at_s, side="right") - 1, 0, len(edges) - 2)


def _mean_under_way(sent_s: Values, end_s: Values, edges: Values) -> list[float]:
    """The integral of the number under way over each bin, divided by its width."""
    area = _elapsed(sent_s, edges) - _elapsed(end_s, edges)
    found: list[float] = np.maximum(np.diff(area) / np.diff(edges), 0.0).tolist()  # rounding may go below
    return found


def _elapsed(since_s: Values, edges: Values) -> Values:
    """At each edge the sum of what has gone by since each of the times."""
    since_s = np.sort(since_s)
    count = np.searchsorted(since_s, edges, side="right")
    sums = np.concatenate(([0.0], np.cumsum(since_s)))
    return np.asarray(count * edges - sums[count])


def _percentiles(at_s: Values, values: Values, edges: Values) -> dict[str, Line]:
    places = _places(at_s, edges).astype(np.uint8 if MAX_BINS <= 256 else np.intp)
    parts = np.split(
        values[np.argsort(places, kind="stable")], np.cumsum(np.bincount(places, minlength=len(edges) - 1))[:-1]
    )
    found = [np.percentile(part, (50, 99)).tolist() if part.size else (None, None) for part in parts]
    return {"p50": [p50 for p50, _ in found], "p99": [p99 for _, p99 in found]}


def _counts(told: Sequence[tuple[float, dict[str, str]]], edges: Values, always: Sequence[str]) -> dict[str, Line]:
    """How many have each word, over time."""
    if not told:
        return {}
    words = [*always, *sorted({word for _, by_id in told for word in by_id.values()} - set(always))]
    values = [list(by_id.values()) for _, by_id in told]
    times = _array(at_s for at_s, _ in told)
    return {word: _held(times, _array(of_one.count(word) for of_one in values), edges) for word in words}


def _gauge(told: Iterable[Sample], name: str, edges: Values) -> Line:
    """Summed over its labels."""
    found = []
    for sample in told:
        values = [value for key, value in (sample.metrics or {}).items() if key.partition("{")[0] == name]
        if values:
            found.append((sample.at_s, sum(values)))
    return _held(_array(at_s for at_s, _ in found), _array(value for _, value in found), edges) if found else []


def _held(times: Values, values: Values, edges: Values, merge: Callable[[Values], float] = np.mean) -> Line:
    """The samples in a bin, merged; without one the last before it, unless that is too old. `times` ascend."""
    places = np.searchsorted(edges, times, side="right") - 1
    last = np.searchsorted(times, edges[:-1], side="left") - 1
    bin_s = float(edges[1] - edges[0])
    usual_s = float(np.median(np.diff(times))) if len(times) > 1 else bin_s
    found: Line = []
    for place, before in enumerate(last.tolist()):
        inside = values[places == place]
        if inside.size:
            found.append(float(merge(inside)))
        else:
            fresh = before >= 0 and edges[place] - times[before] <= MAX_GAP * max(usual_s, bin_s)
            found.append(float(values[before]) if fresh else None)
    return found


def _worst(watched: Sequence[tuple[float, Generator]], read: Callable[[Generator], float], edges: Values) -> Line:
    """The highest of each bin, over all load processes."""
    by_worker: dict[int, list[tuple[float, float]]] = {}
    for at_s, one in watched:
        by_worker.setdefault(one.worker, []).append((at_s, read(one)))
    lines = [
        _held(_array(at_s for at_s, _ in of_one), _array(value for _, value in of_one), edges, np.max)
        for of_one in by_worker.values()
    ]
    return [max((value for value in values if value is not None), default=None) for values in zip(*lines, strict=True)]


def _array(values: Iterable[float]) -> Values:
    return np.fromiter(values, dtype=np.float64)
