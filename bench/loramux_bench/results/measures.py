"""What is measured of a request, once: name, unit, which way is better, and how it is read from a record."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loramux_bench.record import RequestRecord

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measure:
    """`read` gives the values of one answered request: none, one, or (of ITL) many."""

    name: str
    title: str
    unit: Literal["s", "tokens/s", "tokens"]
    better: Literal["lower", "higher"]
    read: Callable[[RequestRecord], tuple[float, ...]]

    def pooled(self, records: Iterable[RequestRecord]) -> Values:
        """All values of the answered requests, float64, in their order; shape (n,)."""
        return np.array([value for record in records if record.ok for value in self.read(record)], dtype=np.float64)


def _one(value: float | None) -> tuple[float, ...]:
    return () if value is None else (value,)


def _speed(record: RequestRecord) -> tuple[float, ...]:
    return (record.tokens / record.e2e_s,) if record.e2e_s > 0 and record.tokens else ()


MEASURES: Mapping[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("ttft", "Time to first token", "s", "lower", lambda r: _one(r.ttft_s)),
        Measure("itl", "Inter-token latency", "s", "lower", lambda r: r.gaps_s),
        Measure("tpot", "Time per output token", "s", "lower", lambda r: _one(r.tpot_s)),
        Measure("e2e", "End-to-end latency", "s", "lower", lambda r: (r.e2e_s,)),
        Measure("speed", "Speed of one request", "tokens/s", "higher", _speed),
    )
}
"""Of requests. Of a run as a whole: `rps`, `throughput` (output tokens a second), `goodput`, `error_rate`."""

RUN_MEASURES: Mapping[str, Literal["lower", "higher"]] = {
    "rps": "higher",
    "throughput": "higher",
    "goodput": "higher",
    "error_rate": "lower",
}
