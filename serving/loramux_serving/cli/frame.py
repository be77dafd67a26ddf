"""What `loramux top` shows: two samples in, figures out. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loramux_serving.cli.sample import Counters, Counts, Sample

View = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Move:
    """One kind of move up between tiers. `mean_s` is None where there was none."""

    transition: str
    per_s: float
    failed_per_s: float
    mean_s: float | None


@dataclass(frozen=True, slots=True)
class AdapterRow:
    """`per_s` counts requests that ended. None: not known; metrics tell of a bounded number of adapters only."""

    name: str
    state: str
    running: int
    queued: int
    tiers: Mapping[str, str]
    residency: Mapping[str, View]
    per_s: float | None
    ttft_p50_s: float | None
    tokens_per_s: float | None
    last_used_at: float | None


@dataclass(frozen=True, slots=True)
class Frame:
    """`span_s` is the time between the samples, None where there is one only: then there are no rates."""

    span_s: float | None
    replicas: tuple[View, ...]
    moves: tuple[Move, ...]
    evictions: Mapping[str, float]
    """A second, by tier."""
    adapters: tuple[AdapterRow, ...]
    """The busiest first."""


def between(before: Sample | None, now: Sample) -> Frame:
    """What happened between two samples of one gateway. A counter that is lower than before began anew."""
    span_s = now.at_s - before.at_s if before is not None and now.at_s > before.at_s else None
    old = before.counters if before is not None else Counters()
    served = {view["name"]: view["requests"] for view in before.adapters} if before is not None else {}
    rows = [_row(view, served, old, now.counters, span_s) for view in now.adapters]
    return Frame(
        span_s=span_s,
        replicas=tuple(now.replicas),
        moves=_moves(old, now.counters, span_s),
        evictions=_rates(old.evictions, now.counters.evictions, span_s),
        adapters=tuple(sorted(rows, key=_busiest_first)),
    )


def _row(view: View, served: Mapping[str, int], old: Counters, new: Counters, span_s: float | None) -> AdapterRow:
    name = view["name"]
    tokens = new.tokens.get(name)
    return AdapterRow(
        name=name,
        state=view["state"],
        running=view["running"],
        queued=view["queued"],
        tiers=view["tiers"],
        residency=view["residency"],
        per_s=_grown(served.get(name, 0), view["requests"]) / span_s if span_s else None,
        ttft_p50_s=median(old.ttft.get(name, {}), new.ttft.get(name, {})) if span_s else None,
        tokens_per_s=_grown(old.tokens.get(name, 0.0), tokens) / span_s if span_s and tokens is not None else None,
        last_used_at=view["last_used_at"],
    )


def _busiest_first(row: AdapterRow) -> tuple[float, int, float, str]:
    return (-(row.per_s or 0.0), -(row.running + row.queued), -(row.last_used_at or 0.0), row.name)


def _moves(old: Counters, new: Counters, span_s: float | None) -> tuple[Move, ...]:
    if not span_s:
        return ()
    found = []
    for transition in sorted(new.loads.keys() | new.failed.keys()):
        done = _grown(old.loads.get(transition, 0.0), new.loads.get(transition, 0.0))
        took_s = _grown(old.load_s.get(transition, 0.0), new.load_s.get(transition, 0.0))
        failed = _grown(old.failed.get(transition, 0.0), new.failed.get(transition, 0.0))
        found.append(Move(transition, done / span_s, failed / span_s, took_s / done if done else None))
    return tuple(found)


def _rates(old: Counts, new: Counts, span_s: float | None) -> dict[str, float]:
    return {key: _grown(old.get(key, 0.0), value) / span_s for key, value in new.items()} if span_s else {}


def _grown(before: float, now: float) -> float:
    return now - before if now >= before else now


def median(before: Mapping[float, float], now: Mapping[float, float]) -> float | None:
    """Of what a histogram took in between, in its own unit: within a bucket as if values were spread evenly, the last
    bound for what is above it (as `histogram_quantile` of Prometheus does it). None where nothing came."""
    bounds = sorted(now)
    if not bounds:
        return None
    if any(now[bound] < before.get(bound, 0.0) for bound in bounds):
        before = {}
    counts = [now[bound] - before.get(bound, 0.0) for bound in bounds]
    half = counts[-1] / 2
    if half <= 0:
        return None
    below, floor = 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= half:
            if bound == float("inf"):
                return floor
            return floor + (bound - floor) * (half - below) / (count - below)
        below, floor = count, bound
    return floor
