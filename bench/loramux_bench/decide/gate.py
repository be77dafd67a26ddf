"""Whether a candidate may ship: objectives, and no regression against a baseline.

A regression is both: *statistically* slower (the interval of the ratio lies wholly on the slow side of 1, corrected for
the number of figures that are tested) and *materially* slower (the ratio itself is beyond the tolerance). The first
alone would fail a build for a true 0.5 % as soon as enough requests were sent; the second alone fails it for noise.
What is materially slower without being statistically so is neither passed nor failed: it is undecided, and takes more
rounds. So noise can not hide a slowdown: it makes a verdict undecided, never passed, as long as the ratio itself comes
out beyond the tolerance. With a tolerance of 5 % that is as likely for a slowdown of 10 % as for an equal pair to stay
within it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from loramux_bench.decide.bootstrap import FEWEST_REQUESTS, RESAMPLES
from loramux_bench.decide.compare import STATISTICS, Comparison, Row, compare
from loramux_bench.decide.likeness import unfinished
from loramux_bench.decide.proportion import difference_interval
from loramux_bench.decide.quantity import change, said
from loramux_bench.decide.round import Round
from loramux_bench.decide.side import errors_of, figure
from loramux_bench.results.slo import Slo, allowed, holds

Outcome = Literal["passed", "failed", "undecided"]

MOST_ERRORS = 0.01
"""Share of the requests that may fail beyond the baseline's."""

_NAMES = {
    "ttft": "TTFT",
    "itl": "ITL",
    "tpot": "TPOT",
    "e2e": "E2E",
    "speed": "speed",
    "rps": "requests a second",
    "throughput": "throughput",
    "goodput": "goodput",
    "error_rate": "error rate",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked."""

    name: str
    """Such as `slo ttft:p99:500ms`, `regression ttft p50`, `errors`, `runs`."""
    outcome: Outcome
    sentence: str
    seconds: float = 0.0
    """Measured time; of `runs` only, as all checks are of the same runs."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks, and what follows."""

    checks: tuple[Check, ...]
    comparison: Comparison | None
    """None without a baseline, or where nothing was measured."""
    warnings: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """Failed if a check failed; else undecided if one is; else passed."""
        found = {check.outcome for check in self.checks}
        return "failed" if "failed" in found else "undecided" if "undecided" in found else "passed"

    @property
    def exit_status(self) -> int:
        return {"passed": 0, "failed": 1, "undecided": 2}[self.outcome]

    @property
    def sentences(self) -> tuple[str, ...]:
        """Of what did not pass, what failed first."""
        return tuple(
            check.sentence for outcome in ("failed", "undecided") for check in self.checks if check.outcome == outcome
        )


def judge(
    candidate: Sequence[Round],
    baseline: Sequence[Round] | None,
    slos: Sequence[Slo],
    *,
    tolerance: float = 0.05,
    confidence: float = 0.95,
    seed: int = 1,
    resamples: int = RESAMPLES,
) -> Verdict:
    """Objectives are held against the candidate's figures over all its rounds; those with a sign against the
    baseline's. `tolerance`: the share by which a gating figure of the comparison may be slower. Raises nothing for bad
    runs: a verdict says what is wrong with them. Deterministic for a seed."""
    sides = [("candidate", candidate), *([("baseline", baseline)] if baseline is not None else [])]
    runs = _runs(sides)
    if not all(sum(one.answered for one in rounds) for _, rounds in sides):
        return Verdict((runs,), None)
    comparison = None
    if baseline is not None:
        asked = [slo.statistic for slo in slos if slo.relative and slo.statistic not in ("", "min", "max")]
        statistics = tuple(dict.fromkeys((*STATISTICS, *asked)))
        comparison = compare(
            baseline,
            candidate,
            confidence=confidence,
            seed=seed,
            slos=slos,
            statistics=statistics,
            resamples=resamples,
        )
    checks = [runs]
    if not any(slo.measure == "error_rate" and not slo.relative for slo in slos):
        checks.append(_errors(candidate, baseline, confidence))
    checks.extend(
        _relative(slo, candidate, baseline, slos, comparison) if slo.relative else _absolute(slo, candidate, slos)
        for slo in slos
    )
    if comparison is not None:
        if comparison.differences:
            checks.append(Check("comparable", "undecided", " ".join(comparison.differences)))
        checks.extend(_regressions(comparison, tolerance))
    return Verdict(tuple(checks), comparison, comparison.warnings if comparison else _limits(candidate))


def _runs(sides: Iterable[tuple[str, Sequence[Round]]]) -> Check:
    """Whether there is enough to judge by."""
    faults = []
    seconds = 0.0
    for side, rounds in sides:
        answered = sum(one.answered for one in rounds)
        seconds += sum(one.duration_s for one in rounds) if side == "candidate" else 0.0
        if not answered:
            faults.append(f"Nothing was measured: no request of the {side} was answered.")
        elif answered < FEWEST_REQUESTS:
            faults.append(
                f"Only {answered} requests of the {side} were answered; a verdict takes {FEWEST_REQUESTS} or more."
            )
        faults.extend(
            f"The {side}'s run {one.name} is not whole: {unfinished(one)}."
            for one in rounds
            if one.info.outcome != "done"
        )
    if faults:
        return Check("runs", "undecided", " ".join(faults), seconds)
    return Check("runs", "passed", "Every run is whole, with enough requests answered.", seconds)


def _errors(candidate: Sequence[Round], baseline: Sequence[Round] | None, confidence: float) -> Check:
    """The answers that are left say little of an endpoint that fails more often than before."""
    errors, ended = errors_of(candidate)
    errors_before, ended_before = errors_of(baseline) if baseline is not None else (0, 0)
    before = errors_before / ended_before if ended_before else 0.0
    limit = before + MOST_ERRORS
    figures = f"{said(errors / ended, 'share')} of the requests failed ({errors} of {ended})"
    if baseline is not None:
        figures += f", of the baseline's {said(before, 'share')}"
    if errors / ended <= limit:
        return Check("errors", "passed", f"{figures}; up to {said(limit, 'share')} pass.")
    if baseline is not None:
        least, _ = difference_interval(errors_before, ended_before, errors, ended, confidence)
        if least > 0:
            return Check("errors", "failed", f"{figures}: over {said(limit, 'share')}, and not by chance.")
        return Check("errors", "undecided", f"{figures}: over {said(limit, 'share')}, which may be chance.")
    return Check(
        "errors",
        "undecided",
        f"{figures}, over {said(limit, 'share')}: latencies of the others say little. An objective such as "
        "error_rate:5% allows more.",
    )


def _absolute(slo: Slo, candidate: Sequence[Round], slos: Sequence[Slo]) -> Check:
    name = f"slo {slo.text}"
    if slo.measure == "goodput" and not any(one.of_requests for one in slos):
        return Check(
            name, "undecided", "Goodput takes an objective of requests, such as ttft:p99:500ms: there is none."
        )
    value = figure(candidate, slo.measure, slo.statistic, slos)
    if math.isnan(value):
        return Check(name, "undecided", f"{_title(slo)} was not measured: no request has a value of it.")
    return Check(name, "passed" if holds(slo, value) else "failed", _against_limit(slo, value, slo.limit))


def _relative(
    slo: Slo,
    candidate: Sequence[Round],
    baseline: Sequence[Round] | None,
    slos: Sequence[Slo],
    comparison: Comparison | None,
) -> Check:
    """Fails where the figure is over what is allowed and the difference to the baseline is no chance; over it without
    that is undecided. Of `min` and `max`, and where an improvement is asked for, the figure alone decides."""
    name = f"slo {slo.text}"
    if baseline is None or comparison is None:
        return Check(name, "undecided", f"The objective {slo.text} is against a baseline, and there is none.")
    if slo.measure == "goodput" and not any(one.of_requests for one in slos):
        return Check(
            name, "undecided", "Goodput takes an objective of requests, such as ttft:p99:500ms: there is none."
        )
    value = figure(candidate, slo.measure, slo.statistic, slos)
    before = figure(baseline, slo.measure, slo.statistic, slos)
    if math.isnan(value) or math.isnan(before):
        return Check(name, "undecided", f"{_title(slo)} was not measured on both sides.")
    sentence = _against_limit(slo, value, allowed(slo, before), f" (the baseline's {said(before, slo.unit)})")
    if holds(slo, value, before):
        return Check(name, "passed", sentence)
    worse = slo.limit >= 0 if slo.better == "lower" else slo.limit <= 0
    row = comparison.row(slo.measure, slo.statistic)
    if not worse or row is None or row.word in ("slower", "more errors"):
        return Check(name, "failed", sentence)
    why = "too few requests to tell it from noise" if row.word == "too few" else "which may be noise"
    return Check(name, "undecided", f"{sentence.rstrip('.')}; {why}.")


def _regressions(comparison: Comparison, tolerance: float) -> list[Check]:
    rows = [row for row in comparison.rows if row.gates]
    return [_regression(row, tolerance) for row in rows if row.count_a or row.count_b]


def _regression(row: Row, tolerance: float) -> Check:
    name = f"regression {row.measure} {row.statistic}".rstrip()
    title = " ".join((_NAMES[row.measure], row.statistic)).strip()
    title = title[0].upper() + title[1:]
    if row.a is None or row.b is None or row.ratio is None or not row.ratio > 0:
        return Check(name, "undecided", f"{title} was not measured on both sides.")
    figures = f"{said(row.b, row.unit)} against {said(row.a, row.unit)}, {change(row.ratio)}"
    if row.interval is None:
        count = min(row.count_a, row.count_b)
        return Check(
            name,
            "undecided",
            f"{title} was {figures}: {count} values are too few for an interval, it takes {FEWEST_REQUESTS} requests.",
        )
    figures += f" (interval {change(row.interval[0])} to {change(row.interval[1])})"
    slower = row.ratio if row.better == "lower" else 1 / row.ratio
    if slower <= 1 + tolerance:
        return Check(name, "passed", f"{title} was {figures}, within the tolerance of {said(tolerance, 'share')}.")
    if row.word == "slower":
        return Check(
            name, "failed", f"{title} was slower: {figures}, beyond the tolerance of {said(tolerance, 'share')}."
        )
    return Check(
        name,
        "undecided",
        f"{title} was {figures}: beyond the tolerance of {said(tolerance, 'share')}, but it may be noise. Measure more "
        "rounds, in turns.",
    )


def _against_limit(slo: Slo, value: float, limit: float, aside: str = "") -> str:
    if slo.better == "lower":
        how = "within" if value <= limit else "over"
    else:
        how = "not under" if value >= limit else "under"
    return f"{_title(slo)} was {said(value, slo.unit)}{aside}, {how} the limit of {said(limit, slo.unit)}."


def _title(slo: Slo) -> str:
    title = f"{_NAMES[slo.measure]} {slo.statistic}".rstrip()
    return title[0].upper() + title[1:]


def _limits(rounds: Sequence[Round]) -> tuple[str, ...]:
    return tuple(
        f"In the run {one.name} the load generator was the limit: {reason}" for one in rounds for reason in one.limits
    )
