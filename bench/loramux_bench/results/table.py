"""A run in figures, for the terminal."""

from collections.abc import Iterator, Mapping

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from loramux_bench.results.distributions import Distribution
from loramux_bench.results.groups import Failure, Group
from loramux_bench.results.measures import MEASURES
from loramux_bench.results.summary import Summary

MAX_ROWS = 10
"""Groups beyond so many are in the report only."""


def table(summary: Summary) -> RenderableType:
    """What was sent and how it ended, the measures, groups where there are few, and what makes the figures doubtful.
    Times are in milliseconds."""
    return Stack(*_parts(summary))


def _parts(summary: Summary) -> Iterator[RenderableType]:
    yield _counts(summary)
    if summary.total.measures:
        yield _measures(summary.total)
    for title, groups in (
        ("target", summary.by_target),
        ("adapter", summary.by_adapter),
        ("tier", summary.by_tier),
        ("tenant", summary.by_tenant),
    ):
        if 1 < len(groups) <= MAX_ROWS:
            yield _groups(title, groups)
    if summary.total.failures:
        yield _failures(summary.total.failures)
    for sentence in summary.generator.reasons:
        yield Text(f"The generator was the limit: {sentence}", style="bold red")
    for sentence in summary.generator.cautions:
        yield Text(f"Note: {sentence}", style="yellow")


def _counts(summary: Summary) -> Table:
    total = summary.total
    grid = Table.grid(padding=(0, 2))
    apart = [f"{count} {word}" for count, word in ((total.cut, "cut"), (summary.warmup, "for warm-up")) if count]
    grid.add_row("requests", f"{total.answered} of {total.sent} answered in {total.duration_s:.1f} s", *apart)
    grid.add_row("errors", f"{total.errors} ({total.error_rate:.2%})")
    grid.add_row("rate", f"{total.rps:.2f} requests/s", f"{total.throughput:.1f} output tokens/s")
    if total.goodput is not None and total.goodput_share is not None:
        grid.add_row("goodput", f"{total.goodput:.2f} requests/s", f"{total.goodput_share:.1%} kept every objective")
    if summary.lag is not None:
        grid.add_row("schedule lag", f"p50 {_ms(summary.lag.p50)} ms", f"p99 {_ms(summary.lag.p99)} ms")
    waited = summary.not_ready
    if waited.before_load_s or waited.requests:
        grid.add_row("not ready", f"{waited.before_load_s:.1f} s before", f"{waited.requests} requests waited")
    if summary.cost is not None:
        grid.add_row("cost", f"{summary.cost.total:.4f} {escape(summary.cost.currency)}", _per_million(summary))
    return grid


def _per_million(summary: Summary) -> str:
    per = summary.cost.per_million_output_tokens if summary.cost else None
    return "" if per is None else f"{per:.2f} per million output tokens"


def _measures(total: Group) -> Table:
    found = _aligned("latency, ms", "p50", "p90", "p99", "mean", "max")
    for name, spread in total.measures.items():
        measure = MEASURES[name]
        in_ms = measure.unit == "s"
        show = _ms if in_ms else _plain
        found.add_row(
            measure.title if in_ms else f"{measure.title} ({measure.unit})",
            *(show(value) for value in (spread.p50, spread.p90, spread.p99, spread.mean, spread.max)),
        )
    return found


def _groups(title: str, groups: Mapping[str, Group]) -> Table:
    found = _aligned(title, "sent", "errors", "tok/s", "TTFT p50", "p99", "ITL p50", "p99", "E2E p50", "p99")
    for name, group in groups.items():
        measures = (group.measures.get(measure) for measure in ("ttft", "itl", "e2e"))
        found.add_row(
            escape(name),
            str(group.sent),
            str(group.errors),
            f"{group.throughput:.1f}",
            *(cell for spread in measures for cell in _middle_and_tail(spread)),
        )
    return found


def _failures(failures: Mapping[str, Failure]) -> Table:
    found = Table("error", "times", "for example", box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for code, failure in failures.items():
        found.add_row(escape(code), str(failure.count), escape(failure.message))
    return found


def _aligned(first: str, *others: str) -> Table:
    """Figures to the right; fits 80 columns."""
    found = Table(first, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in others:
        found.add_column(name, justify="right", no_wrap=True)
    return found


def _middle_and_tail(spread: Distribution | None) -> tuple[str, str]:
    return ("–", "–") if spread is None else (_ms(spread.p50), _ms(spread.p99))


def _ms(seconds: float) -> str:
    """Four figures are enough."""
    ms = 1000 * seconds
    return f"{ms:.2f}" if ms < 100 else f"{ms:.1f}" if ms < 1000 else f"{ms:.0f}"


def _plain(value: float) -> str:
    return f"{value:.1f}"
