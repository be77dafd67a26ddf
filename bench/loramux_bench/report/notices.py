"""What to know before the figures are believed, in plain sentences."""

from collections.abc import Iterator
from dataclasses import dataclass

from loramux_bench.report.figures import percent
from loramux_bench.results.summary import Summary
from loramux_bench.run_dir import RunInfo

FEW = 100
"""Of fewer answered requests the 99th percentile is about the largest value."""


@dataclass(frozen=True, slots=True)
class Notice:
    """`bad`: the figures are not what was asked for, or not the endpoint's alone."""

    text: str
    bad: bool = False


def notices(info: RunInfo, summary: Summary) -> list[Notice]:
    """The gravest first; none for a whole run without errors whose generator had time to spare."""
    return sorted(_notices(info, summary), key=lambda notice: not notice.bad)


def _notices(info: RunInfo, summary: Summary) -> Iterator[Notice]:
    total = summary.total
    ended = total.answered + total.errors
    if info.outcome == "failed":
        yield Notice(
            f"The run failed: {_sentence(info.failure or 'it did not say why')} What it recorded is below.", True
        )
    elif info.outcome == "interrupted":
        yield Notice("The run was interrupted before its end: the figures are of what was recorded until then.", True)
    elif info.outcome == "running":
        yield Notice("The run has not ended, or it was killed: the figures are of what was recorded so far.", True)
    if not total.sent:
        yield Notice("No request was measured: there is nothing to show but the scenario and its environment.", True)
    elif not total.answered:
        yield Notice(f"None of the {total.sent:,} measured requests was answered: there are no latencies.", True)
    if summary.generator.limited:
        yield Notice(
            "The load generator was a limit in this run: the endpoint may be better than these figures. "
            + " ".join(summary.generator.reasons),
            True,
        )
    if total.errors:
        code, failure = next(iter(total.failures.items()))
        most = f"{code}" if len(total.failures) == 1 else f"most often {code} ({failure.count:,})"
        yield Notice(
            f"{total.errors:,} of {ended:,} requests ({percent(total.error_rate)}) ended in an error: {most}. "
            "Latencies and tokens are of the answered ones only.",
            True,
        )
    if total.cut:
        yield Notice(
            f"{total.cut:,} {_were(total.cut)} under way when the run ended: counted neither as answered nor as errors."
        )
    failed = sum(changes.errors for changes in summary.churn.values())
    if failed:
        tried = sum(changes.count for changes in summary.churn.values())
        yield Notice(f"{failed:,} of {tried:,} changes of adapters failed: the churn was not the one asked for.", True)
    if len(summary.by_target) > 1:
        yield Notice(
            f"The figures at the top mix {len(summary.by_target)} targets: compare them in the table by target."
        )
    if 0 < total.answered < FEW:
        yield Notice(
            f"With {total.answered:,} answered request{'' if total.answered == 1 else 's'} the p99 of a latency says "
            "little: it is near the largest."
        )
    for text in info.left_undone:
        yield Notice(text, True)
    for text in info.notes:
        yield Notice(text)
    for caution in summary.generator.cautions:
        yield Notice(caution)


def _were(count: int) -> str:
    return "request was" if count == 1 else "requests were"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
