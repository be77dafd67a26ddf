"""The figures of one side: its rounds taken together."""

import math
from collections.abc import Sequence

from loramux_bench.decide.bootstrap import Pool, pool, pool_rates
from loramux_bench.decide.round import Round
from loramux_bench.record import RequestRecord
from loramux_bench.results.measures import MEASURES, RUN_MEASURES
from loramux_bench.results.slo import STATISTICS, Slo, meets_all

UNITS = {"rps": "requests/s", "throughput": "tokens/s", "goodput": "requests/s", "error_rate": "share"}
TITLES = {
    "rps": "Answered requests a second",
    "throughput": "Output tokens a second",
    "goodput": "Requests a second within the objectives",
    "error_rate": "Share of requests that failed",
}
"""Of the measures of a run."""


def figure(rounds: Sequence[Round], measure: str, statistic: str, slos: Sequence[Slo] = ()) -> float:
    """Of all rounds together; NaN where there is nothing to take it of. `slos` make goodput."""
    if measure == "error_rate":
        errors, ended = errors_of(rounds)
        return errors / ended if ended else math.nan
    if measure in RUN_MEASURES:
        duration_s = sum(one.duration_s for one in rounds)
        gave = sum(_gave(record, measure, slos) for one in rounds for record in one.records)
        return gave / duration_s if duration_s > 0 else math.nan
    values = MEASURES[measure].pooled(record for one in rounds for record in one.records)
    return STATISTICS[statistic](values) if values.size else math.nan


def errors_of(rounds: Sequence[Round]) -> tuple[int, int]:
    """How many failed, of how many that ended."""
    return sum(one.errors for one in rounds), sum(len(one.records) for one in rounds)


def pool_of(rounds: Sequence[Round], measure: str, slos: Sequence[Slo] = ()) -> Pool:
    """For the bootstrap; not of `error_rate`.

    A request's part of the round's time is in the proportion of its E2E: so a closed loop's rate follows its latencies
    when requests are drawn anew (Little's law, with as many under way as there were), and the rate of all of them is
    the round's own.
    """
    if measure not in RUN_MEASURES:
        read = MEASURES[measure].read
        return pool([[read(record) if record.ok else () for record in one.records] for one in rounds])
    return pool_rates([_rates(one, measure, slos) for one in rounds])


def _rates(one: Round, measure: str, slos: Sequence[Slo]) -> list[tuple[float, float]]:
    busy_s = sum(record.e2e_s for record in one.records)
    scale = one.duration_s / busy_s if busy_s > 0 else 0.0
    return [(_gave(record, measure, slos), record.e2e_s * scale) for record in one.records]


def _gave(record: RequestRecord, measure: str, slos: Sequence[Slo]) -> float:
    if not record.ok:
        return 0.0
    if measure == "throughput":
        return float(record.tokens)
    return 1.0 if measure == "rps" or meets_all(slos, record) else 0.0
