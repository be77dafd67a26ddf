"""Service level objectives: what they look like, and whether a request or a run keeps them.

| form | example | says |
|---|---|---|
| `measure:statistic:limit` | `ttft:p99:500ms` | of the requests: `ttft`, `itl`, `tpot`, `e2e`, `speed` |
| `measure:limit` | `error_rate:1%`, `throughput:120` | of the run: `rps`, `throughput`, `goodput`, `error_rate` |
| a limit with a sign and `%` | `ttft:p99:+20%`, `throughput:-5%` | against a baseline: at most 20 % more, 5 % less |

Statistics: `p25`, `p50`, `p75`, `p90`, `p95`, `p99`, `mean`, `min`, `max`. Limits: `250us`, `500ms`, `1.5s`, `12tok/s`,
`3req/s`, `1%`; a plain number is of the measure's own unit (seconds, tokens a second, requests a second, a share from
0 to 1). A limit is kept when reached exactly.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loramux_bench.errors import ScenarioError
from loramux_bench.record import RequestRecord
from loramux_bench.results.measures import MEASURES, RUN_MEASURES, Values


def _percentile(share: float) -> Callable[[Values], float]:
    return lambda values: float(np.quantile(values, share))


STATISTICS: Mapping[str, Callable[[Values], float]] = {
    **{f"p{percent}": _percentile(percent / 100) for percent in (25, 50, 75, 90, 95, 99)},
    "mean": lambda values: float(np.mean(values)),
    "min": lambda values: float(np.min(values)),
    "max": lambda values: float(np.max(values)),
}
"""Of one value or more. Percentiles are interpolated linearly (type 7 of Hyndman & Fan 1996), as LLMPerf's pandas."""

_UNITS: Mapping[str, Mapping[str, float]] = {
    "s": {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0},
    "tokens/s": {"tok/s": 1.0, "tokens/s": 1.0},
    "requests/s": {"req/s": 1.0, "requests/s": 1.0},
    "share": {"%": 0.01},
}
_RUN_UNITS = {"rps": "requests/s", "throughput": "tokens/s", "goodput": "requests/s", "error_rate": "share"}

_LIMIT = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)\s*([a-zµ/%]*)")


@dataclass(frozen=True, slots=True)
class Slo:
    """One objective."""

    measure: str
    statistic: str
    """Empty for a measure of the run."""
    limit: float
    """In seconds, tokens a second, requests a second or a share. Where `relative`, the change that is allowed: 0.2 is
    20 % more than the baseline; of `error_rate` in points: 0.01 is one answer more of a hundred."""
    text: str
    """As it was written."""
    relative: bool = False
    """Against a baseline; says nothing of a run alone."""

    @property
    def better(self) -> Literal["lower", "higher"]:
        if self.measure in RUN_MEASURES:
            return RUN_MEASURES[self.measure]
        return MEASURES[self.measure].better

    @property
    def of_requests(self) -> bool:
        """Whether a single request can keep or miss it: such objectives make goodput."""
        return not self.relative and self.measure in MEASURES

    @property
    def unit(self) -> str:
        """`s`, `tokens/s`, `requests/s` or `share`: of what is measured, also where the limit is relative."""
        return _RUN_UNITS.get(self.measure) or MEASURES[self.measure].unit


def parse(text: str) -> Slo:
    """Raises `ScenarioError`, naming what is allowed."""
    parts = [part.strip() for part in text.split(":")]
    measure = parts[0]
    if measure in RUN_MEASURES:
        if len(parts) != 2:
            raise ScenarioError(
                f"The objective {text!r} has not the form {measure}:limit: {measure} is of a whole run."
            )
        limit, relative = _limit(text, parts[1], _RUN_UNITS[measure])
        return Slo(measure, "", limit, text, relative)
    if measure not in MEASURES:
        known = ", ".join([*MEASURES, *RUN_MEASURES])
        raise ScenarioError(f"The objective {text!r} names the measure {measure!r}; there are {known}.")
    if len(parts) != 3:
        raise ScenarioError(f"The objective {text!r} has not the form {measure}:statistic:limit, as {measure}:p99:….")
    if parts[1] not in STATISTICS:
        known = ", ".join(STATISTICS)
        raise ScenarioError(f"The objective {text!r} names the statistic {parts[1]!r}; there are {known}.")
    limit, relative = _limit(text, parts[2], MEASURES[measure].unit)
    return Slo(measure, parts[1], limit, text, relative)


def _limit(text: str, limit: str, unit: str) -> tuple[float, bool]:
    units = _UNITS[unit]
    found = _LIMIT.fullmatch(limit)
    if found is None:
        raise ScenarioError(
            f"The objective {text!r} has the limit {limit!r}; it is a number, with {' or '.join(units)} or nothing "
            "behind it, or a change such as +20%."
        )
    sign, number, suffix = found.groups()
    if sign:
        if suffix != "%":
            raise ScenarioError(f"The objective {text!r} has a limit with a sign: a change is in percent, as +20%.")
        return float(f"{sign}{number}") / 100, True
    if suffix and suffix not in units:
        raise ScenarioError(f"The objective {text!r} has a limit in {suffix!r}; it can be in {', '.join(units)}.")
    value = float(number) * units.get(suffix, 1.0)
    if unit == "share" and value > 1:
        raise ScenarioError(f"The objective {text!r} has a limit above 100 %; a share without % is from 0 to 1.")
    return value, False


def meets(slo: Slo, record: RequestRecord) -> bool:
    """Whether this request keeps it by itself, as goodput asks (DistServe, OSDI 2024: requests whose own TTFT and TPOT
    are within the limits).

    Of TTFT, TPOT, E2E and speed a request has one value, whatever the statistic; of ITL the statistic is taken over
    its own gaps. What was not answered never meets one. What has no value meets a limit of ITL and TPOT (there was
    nothing to wait for) and misses one of TTFT and speed (no token came). An objective of the run or against a
    baseline is met by every answered request.
    """
    if not record.ok:
        return False
    if not slo.of_requests:
        return True
    values = MEASURES[slo.measure].read(record)
    if not values:
        return slo.measure in ("itl", "tpot")
    own = values[0] if len(values) == 1 else STATISTICS[slo.statistic](np.array(values, dtype=np.float64))
    return holds(slo, own)


def meets_all(slos: Iterable[Slo], record: RequestRecord) -> bool:
    """Whether it counts for goodput."""
    return record.ok and all(meets(slo, record) for slo in slos)


def holds(slo: Slo, value: float, baseline: float | None = None) -> bool:
    """Whether a figure of a run keeps it; NaN (nothing measured) does not. `value` is in the limit's unit, `baseline`
    the same figure of the baseline.

    Raises `ScenarioError` for a relative objective without a baseline.
    """
    limit = allowed(slo, baseline)
    return not math.isnan(value) and (value <= limit if slo.better == "lower" else value >= limit)


def allowed(slo: Slo, baseline: float | None = None) -> float:
    """The limit in the measure's unit. Raises `ScenarioError` for a relative objective without a baseline."""
    if not slo.relative:
        return slo.limit
    if baseline is None:
        raise ScenarioError(f"The objective {slo.text!r} is against a baseline, and there is none.")
    return baseline + slo.limit if slo.measure == "error_rate" else baseline * (1 + slo.limit)
