"""One run, from a scenario to a directory of results: starts the load process, follows it, and knows how it ended."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from loramux_bench.errors import BenchError, EndpointError, ResultsError
from loramux_bench.interrupts import termination_interrupts
from loramux_bench.process import LoadProcess
from loramux_bench.record import RequestRecord, decode_all
from loramux_bench.run_dir import RunDir, RunInfo
from loramux_bench.scenario import Scenario

_LOOK_EVERY_S = 0.25
_ROOM_BYTES = 64 * 1024


class View(Protocol):
    """Somebody who looks on."""

    def show(self, info: RunInfo, fresh: Sequence[RequestRecord]) -> None:
        """Called some times a second, with the requests that have ended since."""


class Blind:
    """Nobody looks on."""

    def show(self, info: RunInfo, fresh: Sequence[RequestRecord]) -> None: ...


class Interrupted(BenchError):
    """The person pressed Ctrl-C; what was recorded is in `run`."""

    exit_status = 130

    def __init__(self, run: RunDir) -> None:
        super().__init__(f"Interrupted; what was recorded is in {run.path}.")
        self.run = run


def launch(scenario: Scenario, results: Path, *, processes: int = 1, view: View | None = None) -> RunDir:
    """Runs it to its end. Ctrl-C, or SIGTERM, ends the load, keeps what was recorded and raises `Interrupted`; a second
    one kills.

    Raises `EndpointError` or another `BenchError` with the load process's own words when the load never began, and
    `ResultsError` when it died.
    """
    run = RunDir.create(results, scenario.name)
    tail = _Tail(run)
    viewer = view or Blind()
    interrupted = False
    with termination_interrupts(), LoadProcess(scenario, run, processes=processes) as process:
        try:
            while not process.ended(_LOOK_EVERY_S):
                _look(run, tail, viewer)
        except KeyboardInterrupt:
            interrupted = True
            process.interrupt()
            try:
                while not process.ended(_LOOK_EVERY_S):
                    _look(run, tail, viewer)
            except KeyboardInterrupt:
                process.kill()
        status = process.exit_status
        words = process.last_words()
    _look(run, tail, viewer)
    if interrupted:
        raise Interrupted(run)
    info = run.info() if run.info_path.exists() else None
    if shutil.disk_usage(run.path).free < _ROOM_BYTES:
        raise ResultsError(f"There is no room left in {run.path}; what was recorded until then is there.")
    if info is None or info.outcome == "running":
        raise ResultsError(f"The load process ended with status {status} in the middle of its work. It said:\n{words}")
    if info.outcome == "failed":
        raise EndpointError(info.failure)
    return run


def _look(run: RunDir, tail: "_Tail", view: View) -> None:
    fresh = tail.fresh()
    if run.info_path.exists():
        view.show(run.info(), fresh)


class _Tail:
    """The whole lines that were added to a run's requests since the last look."""

    def __init__(self, run: RunDir) -> None:
        self._path = run.requests_path
        self._at = 0

    def fresh(self) -> list[RequestRecord]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._at += len(whole)
        return list(decode_all(whole.splitlines(keepends=True), self._path))
