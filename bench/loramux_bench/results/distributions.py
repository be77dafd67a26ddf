"""How values are spread, in the figures that LLMPerf gives, by the same formulas."""

import msgspec
import numpy as np

from loramux_bench.results.measures import Values

PERCENTILES = (25, 50, 75, 90, 95, 99)


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Of one value or more, in their unit. Percentiles are interpolated linearly (type 7 of Hyndman & Fan 1996, the
    default of numpy and pandas)."""

    count: int
    mean: float
    stddev: float | None
    """Of a sample: divided by count - 1, as pandas does. None for a single value."""
    min: float
    max: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float


def distribution(values: Values) -> Distribution | None:
    """Of an array of shape (n,); None for an empty one."""
    if not values.size:
        return None
    p25, p50, p75, p90, p95, p99 = (float(value) for value in np.percentile(values, PERCENTILES))
    return Distribution(
        count=values.size,
        mean=float(values.mean()),
        stddev=float(values.std(ddof=1)) if values.size > 1 else None,
        min=float(values.min()),
        max=float(values.max()),
        p25=p25,
        p50=p50,
        p75=p75,
        p90=p90,
        p95=p95,
        p99=p99,
    )
