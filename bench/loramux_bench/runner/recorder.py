"""Writes what load processes report into the run's directory, as it comes."""

from types import TracebackType
from typing import BinaryIO

import msgspec

from loramux_bench.run_dir import ChurnRecord, RunDir, Sample
from loramux_bench.runner.orders import Report


class Recorder:
    """Lines are whole and with the operating system when a call returns: a kill loses none of them. Calls raise
    `OSError` where the disk is full."""

    def __init__(self, run: RunDir, workers: int) -> None:
        self._requests = run.requests_path.open("ab")
        self._samples = run.samples_path.open("ab")
        self._churn = run.churn_path.open("ab")
        self._busy = set(range(workers))
        self._open = set(range(workers))
        self.received = 0

    @property
    def all_done(self) -> bool:
        """Every load process has said that it has nothing left."""
        return not self._busy

    @property
    def all_closed(self) -> bool:
        """Every load process has sent its last report."""
        return not self._open

    def forget_workers(self) -> None:
        """Load processes have died: nobody is waited for any more."""
        self._busy.clear()
        self._open.clear()

    def report(self, report: Report) -> None:
        _write(self._requests, *report.records)
        self.received += len(report.records)
        if report.sample:
            _write(self._samples, report.sample)
        if report.done:
            self._busy.discard(report.worker)
        if report.closed:
            self._open.discard(report.worker)

    def sample(self, sample: Sample) -> None:
        _write(self._samples, msgspec.json.encode(sample))

    def churn(self, record: ChurnRecord) -> None:
        _write(self._churn, msgspec.json.encode(record))

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for file in (self._requests, self._samples, self._churn):
            file.close()


def _write(file: BinaryIO, *lines: bytes) -> None:
    if lines:
        file.write(b"\n".join(lines) + b"\n")
        file.flush()
