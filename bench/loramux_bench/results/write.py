"""Makes `summary.json` and `report.html` of what a run recorded."""

from pathlib import Path

import msgspec

from loramux_bench.errors import NothingMeasured, ResultsError
from loramux_bench.report.html import render
from loramux_bench.results.series import series
from loramux_bench.results.summary import Summary, summarise
from loramux_bench.run_dir import RunDir


def write_results(run: RunDir) -> Summary:
    """May be done again: it gives the same. Each file is written whole or not at all.

    Raises `NothingMeasured`, after both are written, where no measured request was answered; `ResultsError` for records
    that can not be read, and for a place that can not be written, such as a full disk.
    """
    info = run.info()
    requests = list(run.requests())
    samples = run.samples()
    churn = run.churn()
    summary = summarise(info, requests, samples, churn)
    _write(run.summary_path, msgspec.json.format(msgspec.json.encode(summary), indent=2))
    page = render(info=info, summary=summary, series=series(requests, samples), requests=requests, churn=churn)
    _write(run.report_path, page.encode())
    if not summary.total.answered:
        raise NothingMeasured(_nothing(summary, run))
    return summary


def _nothing(summary: Summary, run: RunDir) -> str:
    total = summary.total
    if not total.sent:
        return f"No request was measured in {run.path}: the load ended before the first, or within its warm-up."
    said = "; ".join(
        f"{code} {failure.count} times{f' ({failure.message})' if failure.message else ''}"
        for code, failure in total.failures.items()
    )
    why = f": {said}" if said else f": all {total.cut} were under way when the run ended"
    return f"None of the {total.sent} measured requests in {run.path} was answered{why}."


def _write(path: Path, content: bytes) -> None:
    scratch = path.with_suffix(path.suffix + ".tmp")
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise ResultsError(
            f"{path} can not be written: {error.strerror}. Make room, or choose another place."
        ) from error
