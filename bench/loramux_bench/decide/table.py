"""A comparison and a verdict for the terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loramux_bench.decide.compare import Comparison, Row, Word
from loramux_bench.decide.gate import Verdict
from loramux_bench.decide.quantity import change, said

_NAMES = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E", "error_rate": "error rate", "rps": "requests/s"}
_STYLES: dict[Word, str] = {
    "faster": "green",
    "slower": "red",
    "fewer errors": "green",
    "more errors": "red",
    "no difference seen": "",
    "too few": "dim",
}
_MARKS = {"passed": ("passed", "green"), "failed": ("FAILED", "bold red"), "undecided": ("undecided", "yellow")}


def comparison_table(comparison: Comparison, *, a: str = "A", b: str = "B") -> RenderableType:
    """`a` and `b`: what the sides are called. Figures that were not measured on either side are left out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("")
    for heading in (a, b, "change", f"{100 * comparison.each_confidence:.3g} % interval"):
        table.add_column(Text(heading), justify="right")
    table.add_column("")
    last = ""
    for row in comparison.rows:
        if row.a is None and row.b is None:
            continue
        table.add_row(_NAMES.get(row.measure, row.measure) if row.measure != last else "", *_cells(row))
        last = row.measure
    return Group(table, *_notes((*comparison.differences, *comparison.warnings)))


def _cells(row: Row) -> tuple[str | Text, ...]:
    return (
        row.statistic,
        "-" if row.a is None else said(row.a, row.unit),
        "-" if row.b is None else said(row.b, row.unit),
        "-" if row.ratio is None else change(row.ratio),
        "-" if row.interval is None else f"{change(row.interval[0])} … {change(row.interval[1])}",
        Text(row.word, style=_STYLES[row.word]),
    )


def verdict_table(verdict: Verdict) -> RenderableType:
    """A line a check, and the whole at the end."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for check in verdict.checks:
        word, style = _MARKS[check.outcome]
        table.add_row(Text(word, style=style), Text(check.sentence))
    word, style = _MARKS[verdict.outcome]
    counts = [
        f"{count} {outcome}"
        for outcome in ("failed", "undecided", "passed")
        if (count := sum(check.outcome == outcome for check in verdict.checks))
    ]
    return Group(table, *_notes(verdict.warnings), Text(f"The gate: {word} ({', '.join(counts)}).", style=style))


def _notes(sentences: tuple[str, ...]) -> list[Text]:
    return [Text(f"! {sentence}", style="yellow") for sentence in sentences]
