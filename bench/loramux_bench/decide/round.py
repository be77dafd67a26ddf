"""One run as a comparison takes it: its measured requests, and what they were measured under."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loramux_bench.errors import ResultsError
from loramux_bench.record import RequestRecord
from loramux_bench.results.groups import span
from loramux_bench.results.summary import summarise
from loramux_bench.run_dir import RunDir, RunInfo


@dataclass(frozen=True, slots=True)
class Round:
    """One of several runs of a side."""

    name: str
    info: RunInfo
    records: tuple[RequestRecord, ...]
    """That ended, answered or not: without those of the warm-up and those that were cut. In the order of their
    sending."""
    duration_s: float
    """From the first origin to the last end of all that was measured, as in the summary: what rates are over."""
    limits: tuple[str, ...] = ()
    """Sentences: why its figures may be the load generator's rather than the endpoint's."""

    @property
    def answered(self) -> int:
        return sum(record.ok for record in self.records)

    @property
    def errors(self) -> int:
        return len(self.records) - self.answered


def make_round(name: str, info: RunInfo, requests: Iterable[RequestRecord], *, limits: Sequence[str] = ()) -> Round:
    """Of all requests of a run, those of the warm-up included."""
    measured = sorted((record for record in requests if not record.warmup), key=lambda record: record.sent_s)
    from_s, to_s = span(measured)
    ended = tuple(record for record in measured if not record.cut)
    return Round(name, info, ended, to_s - from_s, tuple(limits))


def read_round(run_dir: RunDir, *, target: str = "") -> Round:
    """Of a run's directory; of one target's requests where it is named.

    Raises `ResultsError` for a directory that can not be read and a target that the run has not, `ScenarioError` for a
    scenario in it that this version does not read.
    """
    info, requests = run_dir.info(), list(run_dir.requests())
    limits = summarise(info, requests, run_dir.samples(), run_dir.churn()).generator.reasons
    if target:
        targets = sorted({record.target for record in requests})
        if target not in targets:
            raise ResultsError(
                f"{run_dir.path} has no requests to {target!r}; there are {', '.join(targets) or 'none'}."
            )
        requests = [record for record in requests if record.target == target]
    return make_round(run_dir.path.name, info, requests, limits=limits)
