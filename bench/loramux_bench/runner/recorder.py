"""Writes what load processes report into the run's directory, as it comes."""

from collections.abc import Callable
from io import FileIO
from types import TracebackType

import msgspec

from loramux_bench.run_dir import ChurnRecord, RunDir, Sample
from loramux_bench.runner.orders import Report


class Recorder:
    """Lines are with the operating system when a call returns: a kill loses none of them. Where they can not be written
    any more, such as on a full disk, `broken` is called once, and nothing is written after."""

    def __init__(self, run: RunDir, workers: int, broken: Callable[[OSError], None]) -> None:
        """Raises `OSError`."""
        self._broken: Callable[[OSError], None] | None = broken
        self._requests = run.requests_path.open("ab", buffering=0)
        self._samples = run.samples_path.open("ab", buffering=0)
        self._churn = run.churn_path.open("ab", buffering=0)
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
        self._write(self._requests, *report.records)
        self.received += len(report.records)
        if report.sample:
            self._write(self._samples, report.sample)
        if report.done:
            self._busy.discard(report.worker)
        if report.closed:
            self._open.discard(report.worker)

    def sample(self, sample: Sample) -> None:
        self._write(self._samples, msgspec.json.encode(sample))

    def churn(self, record: ChurnRecord) -> None:
        self._write(self._churn, msgspec.json.encode(record))

    def _write(self, file: FileIO, *lines: bytes) -> None:
        broken = self._broken
        if broken is None or not lines:
            return
        content = memoryview(b"\n".join(lines) + b"\n")
        try:
            while content:
                content = content[file.write(content) :]
        except OSError as error:
            self._broken = None
            broken(error)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._broken = None
        for file in (self._requests, self._samples, self._churn):
            file.close()
