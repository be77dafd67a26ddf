"""When a canary ends by itself. Pure: what both sides did within a window in, a decision out; time is passed in."""

from collections import Counter, deque
from dataclasses import dataclass, field
from math import ceil, inf, isfinite, log

from loramux_adapters.errors import RequestInvalid
from loramux_adapters.model import CanaryEnd, CanaryFigures, CanaryRule

_SLICES = 30
"""A window moves on by this part of itself."""
_LEAST_S = 0.001
_GROWTH = 1.05
"""Times are kept in steps of this ratio: a percentile is right within 2.5 %."""
_STEPS = 350
"""Up to seven hours."""
_LONGEST_WINDOW_S = 86_400.0


def check_rule(rule: CanaryRule) -> CanaryRule:
    """Raises `RequestInvalid` where it says nothing, or what can not be."""
    limits = (rule.max_error_rate, rule.max_p95_s, rule.max_p95_ratio, rule.promote_after_s)
    if all(limit is None for limit in limits):
        raise RequestInvalid(
            "A canary's rule needs `max_error_rate`, `max_p95_s`, `max_p95_ratio` or `promote_after_s`."
        )
    if not 1.0 <= rule.window_s <= _LONGEST_WINDOW_S:
        raise RequestInvalid("`window_s` is from 1 to 86400 seconds.")
    if rule.min_requests < 1:
        raise RequestInvalid("`min_requests` is at least 1.")
    if rule.max_error_rate is not None and not 0.0 <= rule.max_error_rate < 1.0:
        raise RequestInvalid("`max_error_rate` is a share from 0 to below 1.")
    for name in ("max_p95_s", "max_p95_ratio", "promote_after_s"):
        value = getattr(rule, name)
        if value is not None and not (isfinite(value) and value > 0.0):
            raise RequestInvalid(f"`{name}` is more than 0.")
    return rule


@dataclass(frozen=True, slots=True)
class Side:
    """What one version did within a window. `requests` are those that were answered whole, and `errors`; `p95_s` is
    None where none was answered."""

    requests: int = 0
    errors: int = 0
    p95_s: float | None = None

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0


@dataclass(slots=True)
class _Slice:
    number: int
    requests: int = 0
    errors: int = 0
    steps: Counter[int] = field(default_factory=Counter)


class Window:
    """What one version did in the last `window_s`, with bounded memory and constant time for a request. What is
    older by less than a thirtieth of the window may have left it."""

    def __init__(self, window_s: float) -> None:
        self._slice_s = window_s / _SLICES
        self._slices: deque[_Slice] = deque()

    def count(self, at: float, duration_s: float | None) -> None:
        """A request that ended `at` monotonic seconds, which never go back. `duration_s` None: in an error."""
        number = int(at / self._slice_s)
        self._drop_before(number)
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        current = self._slices[-1]
        current.requests += 1
        if duration_s is None:
            current.errors += 1
        else:
            current.steps[_step(duration_s)] += 1

    def look(self, at: float) -> Side:
        self._drop_before(int(at / self._slice_s))
        steps: Counter[int] = Counter()
        for each in self._slices:
            steps.update(each.steps)
        return Side(sum(each.requests for each in self._slices), sum(each.errors for each in self._slices), _p95(steps))

    def _drop_before(self, number: int) -> None:
        while self._slices and self._slices[0].number <= number - _SLICES:
            self._slices.popleft()


def _step(seconds: float) -> int:
    if seconds <= _LEAST_S:
        return 0
    return min(round(log(seconds / _LEAST_S) / log(_GROWTH)), _STEPS) if seconds < inf else _STEPS


def _p95(steps: Counter[int]) -> float | None:
    left = ceil(0.95 * steps.total())
    for step in sorted(steps):
        left -= steps[step]
        if left <= 0:
            return float(_LEAST_S * _GROWTH**step)
    return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The canary ends: it becomes live, or all requests go back to the live version."""

    promote: bool
    reason: str


def judge(rule: CanaryRule, canary: Side, live: Side, age_s: float) -> Verdict | None:
    """What is to be done with a canary of that age; None: go on."""
    broken = _broken(rule, canary, live)
    if broken is not None:
        return Verdict(False, broken)
    if rule.promote_after_s is None or age_s < rule.promote_after_s or not _judgeable(rule, canary, live):
        return None
    return Verdict(True, f"Its rule held for {rule.promote_after_s:g} s.")


def _broken(rule: CanaryRule, canary: Side, live: Side) -> str | None:
    # With more errors than the least number of requests may have, the rest need not be waited for.
    judged_by = max(canary.requests, rule.min_requests)
    if rule.max_error_rate is not None and canary.errors > rule.max_error_rate * judged_by:
        return (
            f"{canary.errors} of {canary.requests} requests failed within {rule.window_s:g} s, "
            f"more than {100 * rule.max_error_rate:.3g} %."
        )
    if canary.requests < rule.min_requests or canary.p95_s is None:
        return None
    if rule.max_p95_s is not None and canary.p95_s > rule.max_p95_s:
        return f"p95 was {canary.p95_s:.3g} s within {rule.window_s:g} s, more than {rule.max_p95_s:g} s."
    if rule.max_p95_ratio is None or live.p95_s is None or live.requests < rule.min_requests:
        return None
    if canary.p95_s > rule.max_p95_ratio * live.p95_s:
        return (
            f"p95 was {canary.p95_s:.3g} s within {rule.window_s:g} s, more than {rule.max_p95_ratio:g} times that "
            f"of the live version, {live.p95_s:.3g} s."
        )
    return None


def _judgeable(rule: CanaryRule, canary: Side, live: Side) -> bool:
    if canary.requests < rule.min_requests:
        return False
    if rule.max_p95_ratio is not None and (live.requests < rule.min_requests or live.p95_s is None):
        return False
    return canary.p95_s is not None


class Trial:
    """One canary under its rule, and the live version that it is compared with, from `since` (Unix seconds) on."""

    def __init__(self, rule: CanaryRule, *, canary: int, live: int, since: float) -> None:
        self.rule = rule
        self.canary = canary
        self.live = live
        self.since = since
        self._windows = {canary: Window(rule.window_s), live: Window(rule.window_s)}

    def count(self, version: int, at: float, duration_s: float | None) -> None:
        """As `Window.count`; other versions than the two do not count."""
        window = self._windows.get(version)
        if window is not None:
            window.count(at, duration_s)

    def figures(self, at: float) -> CanaryFigures:
        canary, live = self._windows[self.canary].look(at), self._windows[self.live].look(at)
        return CanaryFigures(canary.requests, canary.errors, canary.p95_s, live.requests, live.errors, live.p95_s)

    def end(self, at: float, now: float) -> CanaryEnd | None:
        """How it ends now, if it does. `at` is in monotonic seconds, `now` in Unix seconds."""
        figures = self.figures(at)
        verdict = judge(
            self.rule,
            Side(figures.requests, figures.errors, figures.p95_s),
            Side(figures.live_requests, figures.live_errors, figures.live_p95_s),
            now - self.since,
        )
        if verdict is None:
            return None
        return CanaryEnd(self.canary, verdict.promote, True, verdict.reason, now, figures)
