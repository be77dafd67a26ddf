"""A run while it runs: a bar and live figures on a terminal, a line now and then in a log."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from loramux_bench.record import RequestRecord
from loramux_bench.run_dir import RunInfo
from loramux_bench.scenario import Scenario

_RECENT_S = 10.0
_LINE_EVERY_S = 10.0


class LiveView:
    """Shows one run; a `launch.View`. Figures are of the last ten seconds."""

    def __init__(self, scenario: Scenario, console: Console, label: str = "") -> None:
        self._load = scenario.load
        self._label = label or scenario.name
        self._console = console
        self._recent: deque[tuple[float, RequestRecord]] = deque()
        self._done = 0
        self._errors = 0
        self._said = ""
        self._line_at = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            expand=True,
        )
        self._task: TaskID = self._progress.add_task(self._label, total=None)
        self._live = Live(self._drawn(""), console=console, transient=True, refresh_per_second=8)

    def _drawn(self, figures: str) -> RenderableType:
        return Group(self._progress, Text(f"  {figures}"))

    def __enter__(self) -> "LiveView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, info: RunInfo, fresh: Sequence[RequestRecord]) -> None:
        now = time.monotonic()
        measured = [record for record in fresh if not record.warmup and not record.cut]
        self._done += len(measured)
        self._errors += sum(1 for record in measured if record.error)
        self._recent.extend((now, record) for record in measured)
        while self._recent and self._recent[0][0] < now - _RECENT_S:
            self._recent.popleft()
        total, completed = self._how_far(info)
        self._progress.update(
            self._task,
            description=self._label if info.started_at else f"{self._label}: {info.status or 'starting'}",
            total=total,
            completed=completed,
        )
        window_s = min(_RECENT_S, max(0.5, time.time() - info.started_at)) if info.started_at else _RECENT_S
        figures = self._figures(window_s)
        if self._console.is_terminal:
            self._live.update(self._drawn(figures), refresh=True)
        else:
            self._lines(info, now, figures)

    def _how_far(self, info: RunInfo) -> tuple[float | None, float]:
        if self._load.requests is not None:
            return self._load.requests, self._done
        seconds = time.time() - info.started_at if info.started_at else 0.0
        length_s = self._load.duration_s or sum(stage.duration_s for stage in self._load.arrivals.stages)
        return length_s or None, max(0.0, min(seconds, length_s) if length_s else seconds)

    def _figures(self, window_s: float) -> str:
        answered = [record for _, record in self._recent if record.ok]
        ttft = [record.ttft_s for record in answered if record.ttft_s is not None]
        gaps = [gap for record in answered for gap in record.gaps_s]
        parts = [f"{self._done} ended", f"{self._errors} errors"]
        if ttft:
            parts.append(f"TTFT p50 {np.median(ttft) * 1000:.0f} ms")
        if gaps:
            parts.append(f"ITL p50 {np.median(gaps) * 1000:.1f} ms")
        if answered:
            parts.append(f"{sum(record.tokens for record in answered) / window_s:.0f} tok/s")
        return " · ".join(parts)

    def _lines(self, info: RunInfo, now: float, figures: str) -> None:
        doing = "" if info.started_at else info.status
        step = doing.partition(" (")[0]
        if doing and (step != self._said or now - self._line_at >= _LINE_EVERY_S):
            self._said = step
            self._console.print(f"{self._label}: {doing}")
            self._line_at = now
        elif info.started_at and now - self._line_at >= _LINE_EVERY_S:
            self._line_at = now
            self._console.print(f"{self._label}: {figures}")


def watcher(console: Console) -> Callable[[Scenario, str], LiveView]:
    """Views of runs, one after the other, on one console."""
    return lambda scenario, label: LiveView(scenario, console, label)
