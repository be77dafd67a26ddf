"""Whether the bench's figures are true: one load on a mock, as the bench saw it and as the mock did it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from loramux_bench.record import RequestRecord
from loramux_bench.results.measures import Values

RELATIVE = 0.02
ABSOLUTE_S = 0.001
"""A figure is true within 2 % or a millisecond, whichever is more."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure, by both; seconds, or a rate per second."""

    name: str
    statistic: str
    mock: float
    bench: float
    unit: str

    @property
    def off(self) -> float:
        """Relative difference, with its sign."""
        return self.bench / self.mock - 1 if self.mock else 0.0

    @property
    def holds(self) -> bool:
        allowed = RELATIVE * abs(self.mock)
        return abs(self.bench - self.mock) <= (max(allowed, ABSOLUTE_S) if self.unit == "s" else allowed)


def figures(records: Sequence[RequestRecord], log: Mapping[str, Any]) -> tuple[Figure, ...]:
    """`log` is what the mock says of the same requests (`GET /mock/log`). TTFT and E2E count from a request's arrival
    there and from its sending here: loopback lies between, some tens of microseconds."""
    answered = [record for record in records if record.ok]
    told = [entry for entry in log["requests"] if entry["stream"] and not entry["cancelled"]]
    pairs: tuple[tuple[str, Values, Values], ...] = (
        ("TTFT", _values([e["first_chunk_s"] for e in told]), _values([r.ttft_s or 0.0 for r in answered])),
        ("ITL", _gaps(told), _values([gap for r in answered for gap in r.gaps_s])),
        ("E2E", _values([e["ended_s"] for e in told]), _values([r.e2e_s for r in answered])),
    )
    found = [
        Figure(name=name, statistic=statistic, mock=_of(statistic, mock), bench=_of(statistic, bench), unit="s")
        for name, mock, bench in pairs
        for statistic in ("mean", "p50", "p99")
    ]
    began = min(e["received_at"] for e in told)
    span_s = max(e["received_at"] + e["ended_s"] for e in told) - began
    seen_s = max(r.end_s for r in answered) - min(r.sent_s for r in answered)
    for name, mock_count, bench_count in (
        ("requests/s", len(told), len(answered)),
        ("tokens/s", sum(e["tokens"] for e in told), sum(r.tokens for r in answered)),
    ):
        found.append(Figure(name=name, statistic="", mock=mock_count / span_s, bench=bench_count / seen_s, unit="1/s"))
    return tuple(found)


def _values(values: Sequence[float]) -> Values:
    return np.array(values, dtype=np.float64)


def _gaps(told: Sequence[Mapping[str, Any]]) -> Values:
    return np.concatenate([np.diff(np.array(entry["chunks_s"], dtype=np.float64)) for entry in told])


def _of(statistic: str, values: Values) -> float:
    return float(np.mean(values)) if statistic == "mean" else float(np.quantile(values, int(statistic[1:]) / 100))
