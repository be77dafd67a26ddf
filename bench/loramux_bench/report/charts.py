"""A run over time as charts: what to draw, in the units that a reader sees. How it is drawn is `assets/report.js`'s."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from loramux_bench.results.cost import UNBILLED, Cost
from loramux_bench.results.series import Line, Series
from loramux_bench.results.summary import Summary
from loramux_bench.run_dir import ChurnRecord

Tone = Literal["c0", "c1", "c2", "c3", "c4", "c5", "quiet", "text"]
"""A colour of `assets/report.css`, in light and in dark."""

_TONES: tuple[Tone, ...] = ("c0", "c1", "c2", "c3", "c4", "c5")
_TIER_TONES: dict[str, Tone] = {"gpu": "c2", "cpu": "c0", "disk": "c3", "remote": "c1"}
_CHURN_TONES: dict[str, Tone] = {"add": "c2", "update": "c3", "delete": "c1"}


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One line, or one kind of bar, with its unit in its label."""

    label: str
    values: Line
    """One for each `x`; None leaves a gap."""
    tone: Tone
    scale: str
    """One of the chart's `axes`."""
    bars: bool = False
    stepped: bool = False
    dashed: bool = False


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Vertical lines."""

    at: list[float]
    tone: Tone
    text: str = ""


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """The data of one figure of the page."""

    id: str
    kind: Literal["time", "histogram"]
    title: str
    unit: str
    """Of the left axis, and of the right one where there are two."""
    x: list[float]
    x_label: str
    axes: list[str]
    """Names of one or two vertical scales."""
    series: list[Curve]
    marks: list[Mark] = msgspec.field(default_factory=list)
    whole: bool = False
    """The left axis counts things."""
    note: str = ""
    x_texts: list[str] = msgspec.field(default_factory=list)
    """Of a histogram: what each bar spans."""
    range: tuple[float, float] | None = None
    last: float | None = None
    """Of a histogram: where its even bars end."""


def time_charts(series: Series, summary: Summary, churn: Sequence[ChurnRecord]) -> list[Chart]:
    """In reading order. A chart without any value other than zero is left out."""
    marks = _churn_marks(series, churn)

    def chart(name: str, title: str, unit: str, *curves: Curve, whole: bool = False) -> list[Chart]:
        shown = [curve for curve in curves if any(curve.values)]
        if not shown:
            return []
        return [
            Chart(
                id=name,
                kind="time",
                title=title,
                unit=unit,
                x=[_short(at_s) for at_s in series.at_s],
                x_label="at",
                axes=list(dict.fromkeys(curve.scale for curve in shown)),
                series=shown,
                marks=marks,
                whole=whole,
                range=(series.at_s[0], series.at_s[-1] + series.width_s),
            )
        ]

    def latency(measure: str, title: str) -> list[Chart]:
        lines = series.latencies.get(measure, {})
        return chart(
            f"time-{measure}",
            title,
            "ms",
            curve("p50, ms", _times(lines.get("p50", []), 1000), "c0"),
            curve("p99, ms", _times(lines.get("p99", []), 1000), "c1"),
        )

    def curve(label: str, values: Line, tone: Tone, scale: str = "y", **how: bool) -> Curve:
        return Curve(label=label, values=_times(values, 1), tone=tone, scale=scale, **how)

    spent = _spent(series, summary, summary.cost) if summary.cost else []
    currency = summary.cost.currency if summary.cost else ""
    ready = series.replicas.get("ready", [])
    others = {state: line for state, line in series.replicas.items() if state != "ready"}
    return [
        *chart(
            "time-requests",
            "Requests",
            "a second",
            curve("due, req/s", list(series.arrivals_per_s), "quiet", dashed=True),
            curve("answered, req/s", list(series.answered_per_s), "c0"),
            curve("errors, req/s", list(series.errors_per_s), "c1"),
        ),
        *chart(
            "time-tokens",
            "Output tokens",
            "tok/s",
            curve("output tokens, tok/s", list(series.output_tokens_per_s), "c2"),
        ),
        *latency("ttft", "Time to first token"),
        *latency("itl", "Inter-token latency"),
        *latency("e2e", "End-to-end latency"),
        *chart(
            "time-load",
            "Requests under way",
            "requests",
            curve("in flight, generator", list(series.in_flight), "c0"),
            curve("outstanding at replicas", series.outstanding, "c2"),
            curve("queued at the endpoint", series.queued, "c1"),
        ),
        *chart(
            "time-replicas",
            "Replicas" + (" and cost" if spent else ""),
            "replicas" + (f"; right: {currency}" if spent else ""),
            curve("ready", ready, "c2", stepped=True),
            *(
                curve(state, line, _TONES[3 + place % 3], stepped=True, dashed=True)
                for place, (state, line) in enumerate(others.items())
            ),
            curve(f"cost so far, {currency}", spent, "c1", "cost"),
            whole=True,
        ),
        *chart(
            "time-tiers",
            "Adapters by best tier",
            "adapters",
            *(curve(tier, line, _TIER_TONES.get(tier, "c4"), stepped=True) for tier, line in series.tiers.items()),
            whole=True,
        ),
        *chart(
            "time-generator",
            "The load generator",
            "% of a core; right: ms",
            curve("busiest load process, % of a core", _times(series.generator_cpu, 100), "c0"),
            curve("its machine, % of all cores", _times(series.machine_cpu, 100), "quiet", dashed=True),
            curve("loop lag, ms", _times(series.loop_lag_s, 1000), "c1", "lag"),
        ),
    ]


def _churn_marks(series: Series, churn: Sequence[ChurnRecord]) -> list[Mark]:
    """Acknowledged changes within the time that is drawn."""
    from_s, to_s = series.at_s[0], series.at_s[-1] + series.width_s
    marks = []
    for action, tone in _CHURN_TONES.items():
        at = [
            _short(one.at_s) for one in churn if one.action == action and not one.error and from_s <= one.at_s <= to_s
        ]
        if at:
            marks.append(Mark(at=at, tone=tone))
    return marks


def churn_legend(churn: Sequence[ChurnRecord]) -> list[tuple[Tone, str]]:
    """Colour and action of the marks that may be drawn."""
    return [
        (tone, action)
        for action, tone in _CHURN_TONES.items()
        if any(one.action == action and not one.error for one in churn)
    ]


def _spent(series: Series, summary: Summary, cost: Cost) -> Line:
    """What the paid replicas have cost by the end of each bin; what is not known holds on from the bin before."""
    if cost.source != "samples" or not series.replicas:
        return []
    paid = [line for state, line in series.replicas.items() if state not in UNBILLED]
    total, last = 0.0, 0.0
    found: Line = []
    for place, at_s in enumerate(series.at_s):
        known = [line[place] for line in paid]
        if all(value is not None for value in known):
            last = sum(value for value in known if value is not None)
        length_s = max(0.0, min(at_s + series.width_s, summary.to_s) - max(at_s, summary.from_s))
        total += last * length_s / 3600 * cost.price_per_replica_hour
        found.append(total)
    return found


def _times(values: Line, factor: float) -> Line:
    return [None if value is None else _short(value * factor) for value in values]


def _short(value: float) -> float:
    """Six significant digits: more than a screen shows, and a third of the text."""
    return float(f"{value:.6g}")
