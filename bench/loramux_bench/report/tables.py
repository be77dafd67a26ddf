"""The tables of the page, as cells: a text to read, and the value to sort by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest

from loramux_bench.record import RequestRecord
from loramux_bench.report.figures import milliseconds, percent, rate
from loramux_bench.results.distributions import Distribution
from loramux_bench.results.groups import Failure, Group
from loramux_bench.results.measures import MEASURES
from loramux_bench.results.slo import holds, parse
from loramux_bench.results.summary import Agreement, Summary

MAX_ROWS = 1000
"""Of one table. The rest is in `summary.json`."""
FEW_ROWS = 20
"""A longer table is opened, or searched, by the reader."""
SLOWEST = 10

_SHORT = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E"}
_STATISTICS = ("mean", "stddev", "min", "p25", "p50", "p75", "p90", "p95", "p99", "max")


@dataclass(frozen=True, slots=True)
class Cell:
    """`kind`: `name`, `long` (a text that wraps), `bad`, `yes`, `no` or empty (a number)."""

    text: str
    value: float | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """`left_out`: rows beyond `MAX_ROWS`."""

    id: str
    heads: tuple[tuple[str, str], ...]
    """A name, and a unit or nothing."""
    rows: list[list[Cell]]
    left_out: int = 0
    wide: bool = False
    """Of many columns."""

    @property
    def long(self) -> bool:
        return len(self.rows) > FEW_ROWS


NONE = Cell("–", kind="none")


def latencies(group: Group) -> Table:
    """A row for each measure that has a value."""
    rows = []
    for name, measure in MEASURES.items():
        spread = group.measures.get(name)
        if spread is None:
            continue
        show = milliseconds if measure.unit == "s" else rate
        unit = "ms" if measure.unit == "s" else "tok/s"
        values = [getattr(spread, statistic) for statistic in _STATISTICS]
        rows.append(
            [
                Cell(f"{_SHORT.get(name, name)}, {unit}", kind="name"),
                Cell(f"{spread.count:,}", spread.count),
                *(NONE if value is None else Cell(show(value), value) for value in values),
            ]
        )
    return Table("latencies", (("", ""), ("values", ""), *((name, "") for name in _STATISTICS)), rows)


def groups(name: str, title: str, by: Mapping[str, Group]) -> Table:
    """A row for each group, those with most requests first."""
    busiest = sorted(by.items(), key=lambda entry: (-entry[1].sent, entry[0]))
    goodput = any(group.goodput is not None for group in by.values())
    heads = (
        (title, ""),
        ("sent", ""),
        ("errors", ""),
        ("error rate", ""),
        ("answered", "req/s"),
        *((("goodput", "req/s"),) if goodput else ()),
        ("output", "tok/s"),
        ("TTFT p50", "ms"),
        ("TTFT p99", "ms"),
        ("ITL p50", "ms"),
        ("ITL p99", "ms"),
        ("E2E p50", "ms"),
        ("E2E p99", "ms"),
        ("in", "tokens"),
        ("out", "tokens"),
    )
    rows = [
        [
            Cell(label or "(none)", kind="name"),
            Cell(f"{group.sent:,}", group.sent),
            Cell(f"{group.errors:,}", group.errors, "bad" if group.errors else "none"),
            Cell(percent(group.error_rate), group.error_rate, "bad" if group.errors else "none"),
            Cell(rate(group.rps), group.rps),
            *([_maybe(group.goodput)] if goodput else []),
            Cell(rate(group.throughput), group.throughput),
            *(_ms(group, measure, at) for measure in ("ttft", "itl", "e2e") for at in ("p50", "p99")),
            _mean(group.input_tokens),
            _mean(group.output_tokens),
        ]
        for label, group in busiest[:MAX_ROWS]
    ]
    return Table(f"by-{name}", heads, rows, max(0, len(busiest) - MAX_ROWS), wide=True)


def errors(failures: Mapping[str, Failure], ended: int, name: str = "errors", example: str = "example") -> Table:
    """A row for each code, the most frequent first."""
    rows = [
        [
            Cell(code, kind="name"),
            Cell(f"{failure.count:,}", failure.count),
            Cell(percent(failure.count / ended), failure.count / ended),
            Cell(failure.message or "–", kind="long"),
        ]
        for code, failure in failures.items()
    ]
    return Table(name, (("code", ""), ("count", ""), ("share", ""), (example, "")), rows)


def objectives(summary: Summary) -> Table:
    """Each SLO of the scenario with what was measured; those against a baseline are not judged."""
    rows = []
    for text in summary.slos:
        slo = parse(text)
        value = _figure(summary.total, slo.measure, slo.statistic)
        if slo.relative:
            verdict = Cell("needs a baseline", kind="none")
        elif value is not None and holds(slo, value):
            verdict = Cell("kept", kind="yes")
        else:
            verdict = Cell("missed", kind="no")
        measured = NONE if value is None else Cell(_with_unit(value, slo.unit), value)
        rows.append([Cell(text, kind="name"), measured, verdict])
    return Table("objectives", (("objective", ""), ("measured", ""), ("", "")), rows)


def tokens(summary: Summary) -> Table:
    """Two counts of the same tokens."""
    named: tuple[tuple[str, Agreement | None], ...] = (
        ("answers: the endpoint's usage less the tokenizer", summary.tokens.output),
        ("answers: as counted less what was asked for", summary.tokens.output_wanted),
        ("prompts: the endpoint's usage less the tokenizer", summary.tokens.prompt),
        ("prompts: as counted less the length that was drawn", summary.tokens.prompt_wanted),
    )
    rows = [
        [
            Cell(label, kind="name"),
            Cell(f"{found.requests:,}", found.requests),
            Cell(percent(found.equal_share), found.equal_share),
            Cell(f"{found.mean_difference:+.2f}", found.mean_difference),
            Cell(f"{found.largest_difference:+,}", found.largest_difference),
        ]
        for label, found in named
        if found is not None
    ]
    heads = (("count", ""), ("requests", ""), ("equal", ""), ("mean difference", "tokens"), ("largest", "tokens"))
    return Table("tokens", heads, rows)


def churn(summary: Summary) -> Table:
    """A row for each action, from the call to its acknowledgement."""
    rows = [
        [
            Cell(action, kind="name"),
            Cell(f"{changes.count:,}", changes.count),
            Cell(f"{changes.errors:,}", changes.errors, "bad" if changes.errors else ""),
            *(
                NONE if changes.took_s is None else _seconds(getattr(changes.took_s, statistic))
                for statistic in ("p50", "p90", "p99", "max")
            ),
            Cell(
                "; ".join(f"{code} {failure.count}× ({failure.message})" for code, failure in changes.failures.items())
                or "–",
                kind="long",
            ),
        ]
        for action, changes in summary.churn.items()
    ]
    heads = (("action", ""), ("tried", ""), ("failed", ""), ("p50", "ms"), ("p90", "ms"), ("p99", "ms"), ("max", "ms"))
    return Table("churn", (*heads, ("failures", "code and an adapter")), rows)


def waits(**spreads: Distribution | None) -> Table:
    """Spreads of times in seconds, as rows of milliseconds; underscores in names become spaces."""
    statistics = ("mean", "p50", "p90", "p99", "max")
    rows = [
        [
            Cell(name.replace("_", " "), kind="name"),
            Cell(f"{spread.count:,}", spread.count),
            *(_seconds(getattr(spread, statistic)) for statistic in statistics),
        ]
        for name, spread in spreads.items()
        if spread is not None
    ]
    return Table("-".join(spreads), (("", ""), ("requests", ""), *((name, "ms") for name in statistics)), rows)


def slowest(requests: Sequence[RequestRecord]) -> Table:
    """The answered requests with the largest TTFT: where to begin to look."""
    measured = (
        (ttft_s, record) for record in requests if record.ok and not record.warmup and (ttft_s := record.ttft_s)
    )
    rows = [
        [
            Cell(f"{record.index}", record.index),
            Cell(f"{record.origin_s:.2f}", record.origin_s),
            Cell(record.adapter, kind="name"),
            Cell(record.target, kind="name"),
            _seconds(ttft_s),
            _seconds(record.e2e_s),
            Cell(f"{record.tokens:,}", record.tokens),
            Cell(record.replica or "–", kind="name"),
            Cell(record.request_id or "–", kind="name"),
        ]
        for ttft_s, record in nlargest(SLOWEST, measured, key=lambda entry: (entry[0], -entry[1].index))
    ]
    heads = (("request", ""), ("at", "s"), ("adapter", ""), ("target", ""), ("TTFT", "ms"), ("E2E", "ms"))
    return Table("slowest", (*heads, ("out", "tokens"), ("replica", ""), ("id", "")), rows)


def _with_unit(value: float, unit: str) -> str:
    if unit == "s":
        return f"{milliseconds(value)} ms"
    return percent(value) if unit == "share" else f"{rate(value)} {unit}"


def _figure(total: Group, measure: str, statistic: str) -> float | None:
    """None where nothing was measured."""
    if statistic:
        spread = total.measures.get(measure)
        value: float | None = None if spread is None else getattr(spread, statistic)
        return value
    figures = {
        "rps": total.rps,
        "throughput": total.throughput,
        "goodput": total.goodput,
        "error_rate": total.error_rate,
    }
    return figures[measure] if total.sent else None


def _ms(group: Group, measure: str, statistic: str) -> Cell:
    spread = group.measures.get(measure)
    return NONE if spread is None else _seconds(getattr(spread, statistic))


def _seconds(value: float) -> Cell:
    return Cell(milliseconds(value), value)


def _mean(spread: Distribution | None) -> Cell:
    return NONE if spread is None else Cell(f"{spread.mean:,.1f}", spread.mean)


def _maybe(value: float | None) -> Cell:
    return NONE if value is None else Cell(rate(value), value)
