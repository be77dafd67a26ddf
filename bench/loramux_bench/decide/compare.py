"""Two sides held against each other: each figure's ratio, its interval, and a word for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loramux_bench.decide.bootstrap import FEWEST_REQUESTS, FEWEST_ROUNDS, RESAMPLES, Interval, ratios
from loramux_bench.decide.likeness import cautions, differences, in_order, interleaved
from loramux_bench.decide.proportion import difference_interval
from loramux_bench.decide.round import Round
from loramux_bench.decide.side import TITLES, UNITS, errors_of, figure, pool_of
from loramux_bench.errors import NothingMeasured, ScenarioError
from loramux_bench.results.measures import MEASURES, RUN_MEASURES
from loramux_bench.results.slo import Slo

Word = Literal["faster", "slower", "fewer errors", "more errors", "no difference seen", "too few"]

STATISTICS = ("p50", "p90", "p99", "mean")
GATES: tuple[tuple[str, str], ...] = (
    ("ttft", "p50"),
    ("tpot", "p50"),
    ("e2e", "p50"),
    ("e2e", "mean"),
    ("throughput", ""),
)
"""The figures that a verdict hangs on. Medians, as one stall of the machine moves a mean, and a p99 of 100 requests is
noise; the mean of E2E, as it sees a slowdown that meets fewer than half of the requests; and throughput."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both sides."""

    measure: str
    statistic: str
    """Empty for a measure of the run."""
    title: str
    unit: str
    """`s`, `tokens/s`, `requests/s` or `share`."""
    better: Literal["lower", "higher"]
    a: float | None
    """None where there was nothing to take it of, likewise below."""
    b: float | None
    count_a: int
    """Values; of a measure of the run, requests."""
    count_b: int
    ratio: float | None
    """B over A; None where A's is 0."""
    interval: Interval | None
    """Of the ratio, at `Comparison.each_confidence`. None where the requests are too few, and for `error_rate`: its
    word comes from the interval of the difference (Newcombe 1998, method 10), which zeros do not harm."""
    word: Word
    gates: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of A, the baseline, and B."""

    rows: tuple[Row, ...]
    confidence: float
    """That all intervals of the gating figures hold together."""
    each_confidence: float
    """Of each interval: corrected by Bonferroni for the number of gating figures."""
    paired: bool
    """Rounds were drawn as pairs, as they ran interleaved."""
    rounds_a: int
    rounds_b: int
    differences: tuple[str, ...]
    """Sentences: why the ratios mean nothing."""
    warnings: tuple[str, ...]
    """Sentences: what to know when reading them."""

    def row(self, measure: str, statistic: str = "") -> Row | None:
        found = (row for row in self.rows if (row.measure, row.statistic) == (measure, statistic))
        return next(found, None)


@dataclass(frozen=True, slots=True)
class _Draw:
    """How intervals are made."""

    rng: np.random.Generator
    confidence: float
    paired: bool
    resamples: int


def compare(
    a: Sequence[Round],
    b: Sequence[Round],
    *,
    confidence: float = 0.95,
    seed: int = 1,
    slos: Sequence[Slo] = (),
    statistics: Sequence[str] = STATISTICS,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Goodput is by those of `slos` that are of requests, and absent without one. `statistics`: `mean` and percentiles.
    Deterministic for a seed.

    Raises `NothingMeasured` where a side has no answered request, `ScenarioError` for another statistic.
    """
    for side, rounds in (("first", a), ("second", b)):
        if not any(one.answered for one in rounds):
            raise NothingMeasured(f"No request of the {side} side was answered: there is nothing to compare.")
    if unknown := [statistic for statistic in statistics if not _comparable(statistic)]:
        raise ScenarioError(f"{unknown[0]!r} can not be compared: resampling says nothing of the extremes.")
    paired = len(a) >= FEWEST_ROUNDS and interleaved(a, b)
    a, b = in_order(a), in_order(b)
    each = 1 - (1 - confidence) / len(GATES)
    draw = _Draw(np.random.default_rng(seed), each, paired, resamples)
    objectives = tuple(slo for slo in slos if slo.of_requests)
    rows: list[Row] = []
    for measure in (*MEASURES, "rps", "throughput", *(("goodput",) if objectives else ())):
        kinds = statistics if measure in MEASURES else ("",)
        rows.extend(_rows(a, b, measure, kinds, objectives, draw))
    rows.append(_error_row(a, b, each))
    return Comparison(
        rows=tuple(rows),
        confidence=confidence,
        each_confidence=each,
        paired=paired,
        rounds_a=len(a),
        rounds_b=len(b),
        differences=tuple(differences(a, b)),
        warnings=(*cautions(a, b), *_about_rounds(a, b, paired)),
    )


def _rows(
    a: Sequence[Round],
    b: Sequence[Round],
    measure: str,
    statistics: Sequence[str],
    slos: Sequence[Slo],
    draw: _Draw,
) -> list[Row]:
    pool_a, pool_b = pool_of(a, measure, slos), pool_of(b, measure, slos)
    shares = [_share(statistic) for statistic in statistics]
    known = MEASURES.get(measure)
    better = known.better if known else RUN_MEASURES[measure]
    rows = []
    found = ratios(pool_a, pool_b, shares, draw.rng, paired=draw.paired, resamples=draw.resamples)
    for statistic, share, ratio in zip(statistics, shares, found, strict=True):
        interval = ratio.interval(draw.confidence) if ratio else None
        rows.append(
            Row(
                measure=measure,
                statistic=statistic,
                title=known.title if known else TITLES[measure],
                unit=known.unit if known else UNITS[measure],
                better=better,
                a=pool_a.figure(share),
                b=pool_b.figure(share),
                count_a=pool_a.values.size if known else pool_a.requests,
                count_b=pool_b.values.size if known else pool_b.requests,
                ratio=ratio.value if ratio else None,
                interval=interval,
                word=_word(interval, better),
                gates=(measure, statistic) in GATES,
            )
        )
    return rows


def _word(interval: Interval | None, better: Literal["lower", "higher"]) -> Word:
    if interval is None:
        return "too few"
    low, high = interval
    if low <= 1 <= high:
        return "no difference seen"
    return "slower" if (low > 1) == (better == "lower") else "faster"


def _error_row(a: Sequence[Round], b: Sequence[Round], confidence: float) -> Row:
    (errors_a, ended_a), (errors_b, ended_b) = errors_of(a), errors_of(b)
    rate_a, rate_b = figure(a, "error_rate", ""), figure(b, "error_rate", "")
    low, high = difference_interval(errors_a, ended_a, errors_b, ended_b, confidence)
    word: Word = "more errors" if low > 0 else "fewer errors" if high < 0 else "no difference seen"
    return Row(
        measure="error_rate",
        statistic="",
        title=TITLES["error_rate"],
        unit="share",
        better="lower",
        a=rate_a,
        b=rate_b,
        count_a=ended_a,
        count_b=ended_b,
        ratio=rate_b / rate_a if rate_a > 0 else None,
        interval=None,
        word="too few" if min(ended_a, ended_b) < FEWEST_REQUESTS else word,
        gates=False,
    )


def _about_rounds(a: Sequence[Round], b: Sequence[Round], paired: bool) -> list[str]:
    if min(len(a), len(b)) < FEWEST_ROUNDS:
        return [
            f"There are fewer than {FEWEST_ROUNDS} runs on a side: the intervals hold the noise between requests, and "
            "not the noise between runs, which can be larger. Repeat both, in turns."
        ]
    if not paired:
        return [
            "The runs of the two sides were not made in turns: what changed on the machine in between is in the ratio."
        ]
    return []


def _comparable(statistic: str) -> bool:
    return statistic == "mean" or (statistic[:1] == "p" and statistic[1:].isdigit() and 0 < int(statistic[1:]) < 100)


def _share(statistic: str) -> float | None:
    return int(statistic[1:]) / 100 if statistic.startswith("p") else None
