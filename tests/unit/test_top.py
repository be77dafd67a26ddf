"""`loramux top`: from two samples to a frame, and from a frame to lines; then the command itself, without a terminal
and on one."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from loramux_serving.cli import app
from loramux_serving.cli.frame import Frame, between, median
from loramux_serving.cli.gateway import Fault, Gateway
from loramux_serving.cli.sample import Counters, Sample, parse
from loramux_serving.cli.top import Watch
from loramux_serving.cli.top_view import moves, render
from loramux_serving.cli.units import duration, rate
from tests.fakes.admin_server import KEY, AdminServer, adapter

INF = float("inf")


def view(name: str, requests: int = 0, **changed: Any) -> dict[str, Any]:
    return {**adapter(name).model_dump(mode="json"), "requests": requests, "running": 0, "queued": 0, **changed}


def replica(replica_id: str = "engine-0", **changed: Any) -> dict[str, Any]:
    occupancy = {"used": 3, "total": 8, "pinned": 1}
    plain = {"id": replica_id, "state": "ready", "outstanding": 4, "slots": occupancy, "detail": "", "staging": True}
    return {**plain, "host": {**occupancy, "total": 32, "bytes": 3 << 20}, "report_age_s": 0.4, **changed}


def sample(at_s: float, *views: dict[str, Any], counters: Counters | None = None) -> Sample:
    return Sample(at_s, (replica(),), views, counters or Counters())


def test_rates_are_what_grew_over_the_time() -> None:
    before = sample(10.0, view("a", 5), counters=Counters(tokens={"a": 100.0}, evictions={"cpu": 1.0}))
    after = Counters(
        tokens={"a": 180.0}, evictions={"cpu": 3.0, "gpu": 2.0}, loads={"disk_cpu": 4.0}, load_s={"disk_cpu": 2.0}
    )
    frame = between(before, sample(14.0, view("a", 13), view("new", 2), counters=after))
    rows = {row.name: row for row in frame.adapters}
    assert (frame.span_s, rows["a"].per_s, rows["a"].tokens_per_s) == (4.0, 2.0, 20.0)
    assert (rows["new"].per_s, rows["new"].tokens_per_s) == (0.5, None)
    assert frame.evictions == {"cpu": 0.5, "gpu": 0.5}
    assert [(move.transition, move.per_s, move.mean_s) for move in frame.moves] == [("disk_cpu", 1.0, 0.5)]


def test_one_sample_has_no_rates() -> None:
    frame = between(None, sample(10.0, view("a", 5), counters=Counters(tokens={"a": 3.0}, loads={"disk_cpu": 1.0})))
    (row,) = frame.adapters
    assert (frame.span_s, row.per_s, row.tokens_per_s, row.ttft_p50_s) == (None, None, None, None)
    assert (frame.moves, frame.evictions) == ((), {})
    assert row.tiers == {"engine-0": "gpu", "engine-1": "disk"}


def test_a_gateway_that_began_anew_counts_from_nothing() -> None:
    before = sample(0.0, view("a", 500), counters=Counters(tokens={"a": 9000.0}))
    frame = between(before, sample(2.0, view("a", 6), counters=Counters(tokens={"a": 10.0})))
    assert (frame.adapters[0].per_s, frame.adapters[0].tokens_per_s) == (3.0, 5.0)


def test_the_busiest_adapter_comes_first() -> None:
    before = sample(0.0, *(view(name) for name in ("asleep", "late", "waits", "busy")))
    now = sample(
        1.0, view("asleep"), view("late", last_used_at=9.0), view("waits", queued=3), view("busy", 10), view("zz")
    )
    assert [row.name for row in between(before, now).adapters] == ["busy", "waits", "late", "asleep", "zz"]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({}, {}, None),
        ({0.1: 3.0, INF: 3.0}, {0.1: 3.0, INF: 3.0}, None),
        ({}, {0.1: 4.0, 0.3: 4.0, INF: 4.0}, 0.05),
        ({0.1: 4.0, 0.3: 4.0, INF: 4.0}, {0.1: 4.0, 0.3: 8.0, INF: 8.0}, 0.2),
        ({}, {0.1: 0.0, INF: 5.0}, 0.1),
        ({0.1: 9.0, INF: 9.0}, {0.1: 2.0, INF: 2.0}, 0.05),
    ],
)
def test_median_of_what_a_histogram_took_in(
    before: dict[float, float], now: dict[float, float], expected: float | None
) -> None:
    found = median(before, now)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_metrics_are_read_from_prometheus_text() -> None:
    text = """# HELP loramux_time_to_first_token_seconds ignored
# TYPE loramux_time_to_first_token_seconds histogram
loramux_time_to_first_token_seconds_bucket{adapter="a",le="0.1"} 2.0
loramux_time_to_first_token_seconds_bucket{adapter="a",le="+Inf"} 3.0
loramux_completion_tokens_total{adapter="a"} 7.0
loramux_adapter_load_seconds_count{outcome="ok",transition="disk_cpu"} 4.0
loramux_adapter_load_seconds_count{outcome="failed",transition="disk_cpu"} 1.0
loramux_adapter_load_seconds_sum{outcome="ok",transition="disk_cpu"} 0.5
loramux_adapter_evictions_total{reason="lru",tier="cpu"} 2.0
loramux_adapter_evictions_total{reason="idle",tier="cpu"} 3.0
loramux_requests_queued{adapter="a"} 1.0
"""
    assert parse(text) == Counters(
        ttft={"a": {0.1: 2.0, INF: 3.0}},
        tokens={"a": 7.0},
        loads={"disk_cpu": 4.0},
        failed={"disk_cpu": 1.0},
        load_s={"disk_cpu": 0.5},
        evictions={"cpu": 5.0},
    )
    assert parse("<html>nothing of ours</html>") == Counters()


def lines_of(frame: Frame, width: int = 120, height: int | None = None) -> list[str]:
    console = Console(width=width, color_system=None, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(render(frame, Text("title"), 1.7e9, width, height))
    return captured.get().splitlines()


@cache
def thousand() -> Frame:
    names = [f"adapter-{number:04}" for number in range(1000)]
    before = sample(0.0, *(view(name) for name in names))
    return between(before, sample(1.0, *(view(name, number) for number, name in enumerate(names))))


def test_a_frame_in_lines() -> None:
    counters = Counters(loads={"disk_cpu": 2.0}, load_s={"disk_cpu": 0.16}, failed={"cpu_gpu": 1.0})
    frame = between(sample(0.0, view("a")), sample(1.0, view("a", 3), counters=counters))
    lines = lines_of(frame)
    assert lines[1].split() == [
        "REPLICA",
        "STATE",
        "REQUESTS",
        "SLOTS",
        "HOST",
        "BYTES",
        "STAGING",
        "REPORTED",
        "DETAIL",
    ]
    assert lines[2].split()[:3] == ["engine-0", "ready", "4"]
    assert "3/8 1 pinned" in lines[2]
    assert lines[3].strip() == "loads: disk_cpu 2.0/s (80 ms)   evictions: 0/s   failed: 1.0/s"
    assert lines[6].split() == ["a", "ready", "3.0", "0", "0", "gpu*", "disk", "-", "-", "-"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("height", [3, 10, 24])
def test_a_frame_is_no_wider_and_no_higher_than_the_terminal(width: int, height: int) -> None:
    lines = lines_of(thousand(), width, height)
    assert max(cell_len(line) for line in lines) <= width
    assert len(lines) <= max(height, 8)
    assert any(line.startswith("adapter-09") for line in lines), "the busiest is shown"
    assert lines[-1].strip().endswith("more")


def test_without_a_height_every_adapter_is_shown() -> None:
    assert sum(line.startswith("adapter-") for line in lines_of(thousand())) == 1000


def test_many_replicas_are_counted() -> None:
    tiers = {f"engine-{number}": "cpu" for number in range(4)}
    frame = between(None, sample(0.0, view("a", tiers=tiers, residency={})))
    assert "engine-3" in lines_of(frame, 160)[5]
    narrow = lines_of(frame, 50)
    assert "TIER" in narrow[5]
    assert "4 cpu" in narrow[6]


def test_names_move_no_cursor_and_are_no_markup() -> None:
    odd = view("a\x1b[2J[red]b", tiers={"e\x07": "gpu"}, residency={})
    frame = between(None, Sample(0.0, (replica("e\x07", detail="\x1b[31mdown"),), (odd,), Counters()))
    text = "\n".join(lines_of(frame))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]b" in text


def test_a_replica_that_tells_nothing() -> None:
    silent = replica(state="failed", slots=None, host=None, report_age_s=None, staging=None, detail="gone")
    frame = between(None, Sample(0.0, (silent,), (view("a", tiers={}, residency={}),), Counters()))
    lines = lines_of(frame)
    assert lines[2].split() == ["engine-0", "failed", "4", "-", "-", "-", "-", "-", "gone"]
    assert moves(frame) == "moves: -"


def test_units_of_top() -> None:
    assert [duration(each) for each in (None, 0.0004, 0.08, 1.25, 300.0)] == ["-", "0.4 ms", "80 ms", "1.2 s", "5 min"]
    assert [rate(each) for each in (None, 0.0, 0.25, 9.96, 120.4)] == ["-", "0", "0.2", "10", "120"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> AdminServer:
    monkeypatch.setenv("LORAMUX_ADMIN_KEY", KEY)
    return AdminServer()


def test_once_prints_one_frame_and_ends(server: AdminServer) -> None:
    done = CliRunner().invoke(app, ["top", "--once", "--interval", "0.1"], obj=server.transport)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "over 0 s" in done.stdout.splitlines()[0]
    assert any(line.startswith("pirate") for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout
    told = CliRunner().invoke(app, ["--json", "top", "--once", "--interval", "0.1"], obj=server.transport)
    assert json.loads(told.stdout)["adapters"][0]["tiers"] == {"engine-0": "gpu", "engine-1": "disk"}


def test_once_fails_where_there_is_no_gateway(server: AdminServer) -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    done = CliRunner().invoke(app, ["top", "--once"], obj=httpx.MockTransport(refuse))
    assert (done.exit_code, done.stderr.startswith("error: no gateway at ")) == (1, True)


class _Flaky:
    """The admin server, or nothing where `up` is false."""

    def __init__(self, server: AdminServer) -> None:
        self.server = server
        self.up = True

    def answer(self, request: httpx.Request) -> httpx.Response:
        if not self.up:
            raise httpx.ConnectError("refused")
        return self.server.answer(request)

    def watch(self, key: str = KEY) -> Watch:
        return Watch(Gateway("http://gateway", lambda: key, httpx.MockTransport(self.answer)))


def test_a_gateway_that_is_away_is_waited_for(server: AdminServer) -> None:
    flaky = _Flaky(server)
    watch = flaky.watch()
    flaky.up = False
    watch.look()
    assert watch.fault is not None
    assert watch.frame().adapters == ()
    flaky.up = True
    watch.look()
    watch.look()
    assert watch.fault is None
    assert watch.frame().span_s is not None
    flaky.up = False
    watch.look()
    assert watch.frame().span_s is None, "no rates of what is not seen"
    assert watch.frame().adapters[0].name == "pirate"
    flaky.up = True
    watch.look()
    assert (watch.fault, watch.frame().span_s) == (None, None)


def test_a_key_that_is_refused_ends_it(server: AdminServer) -> None:
    with pytest.raises(Fault, match="not known here"):
        _Flaky(server).watch(key="lmx_wrong").look()


@dataclass
class _Terminal:
    """`loramux top` on a terminal of its own, with no gateway to reach."""

    process: subprocess.Popen[bytes]
    ours: int
    theirs: int
    before: list[Any]
    shown: bytes = b""

    def read(self, until: Callable[[bytes], bool], timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not until(self.shown):
            assert time.monotonic() < deadline, self.shown[-2000:]
            if select.select([self.ours], [], [], 0.05)[0]:
                self.shown += os.read(self.ours, 65536)

    def ended(self) -> int:
        self.read(lambda shown: b"\x1b[?1049l" in shown)
        return self.process.wait(20.0)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[_Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 70, 0, 0))
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, "--url", "http://127.0.0.1:9", "top", "--interval", "0.1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={"PATH": os.defpath, "TERM": "xterm-256color", "LORAMUX_ADMIN_KEY": "k", "HOME": str(tmp_path)},
        start_new_session=True,
    )
    found = _Terminal(process, ours, theirs, before)
    try:
        found.read(lambda shown: b"not reachable" in shown)
        yield found
    finally:
        process.kill()
        process.wait(20.0)
        os.close(ours)
        os.close(theirs)


_RUN = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from loramux_serving.cli import main; main()"


@pytest.mark.parametrize("how", ["q", "ctrl-c", "sigterm"])
def test_it_ends_cleanly_and_leaves_the_terminal_as_it_was(terminal: _Terminal, how: str) -> None:
    assert termios.tcgetattr(terminal.theirs) != terminal.before, "keys come one by one meanwhile"
    if how == "sigterm":
        terminal.process.send_signal(signal.SIGTERM)
    else:
        os.write(terminal.ours, b"q" if how == "q" else b"\x03")
    assert terminal.ended() == 0
    assert termios.tcgetattr(terminal.theirs) == terminal.before
    assert b"Traceback" not in terminal.shown
