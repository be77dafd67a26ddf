"""What somebody sees of a run while it runs."""

import io
import time

from rich.console import Console

from loramux_bench.cli.progress import LiveView
from loramux_bench.record import RequestRecord
from loramux_bench.run_dir import RunInfo
from loramux_bench.scenario import Scenario, parse

SCENARIO: Scenario = parse({"name": "tea", "load": {"users": 1, "requests": 4}}, "of the test")


def record(error: str = "", *, warmup: bool = False) -> RequestRecord:
    return RequestRecord(
        index=0,
        target="loramux",
        api="openai-chat",
        adapter="pirate",
        warmup=warmup,
        sent_s=0.0,
        first_token_s=0.25,
        end_s=0.35,
        gaps_s=(0.05, 0.05),
        chunks=3,
        output_tokens=3,
        prompt_tokens_wanted=1,
        output_tokens_wanted=3,
        error=error,
    )


def info(status: str = "", *, began_s_ago: float | None = None) -> RunInfo:
    started_at = 0.0 if began_s_ago is None else time.time() - began_s_ago
    return RunInfo(name="tea", scenario={}, status=status, started_at=started_at)


def test_a_terminal_shows_a_bar_and_figures() -> None:
    screen = io.StringIO()
    with LiveView(SCENARIO, Console(file=screen, force_terminal=True, width=80)) as view:
        view.show(info("Uploading adapters (3 of 9)"), [])
        view.show(info(began_s_ago=2.0), [record(), record(), record("http_503"), record(warmup=True)])
    shown = screen.getvalue()
    assert "Uploading adapters (3 of 9)" in shown
    assert "3 ended · 1 errors · TTFT p50 250 ms · ITL p50 50.0 ms · 3 tok/s" in shown
    assert "75%" in shown


def test_a_log_has_a_line_for_each_step_and_no_more() -> None:
    log = io.StringIO()
    with LiveView(SCENARIO, Console(file=log, width=200)) as view:
        for number in range(5):
            view.show(info(f"Uploading adapters ({number} of 5)"), [])
        view.show(info("Load"), [])
        for _ in range(5):
            view.show(info(began_s_ago=1.0), [record()])
    assert log.getvalue().splitlines() == ["tea: Uploading adapters (0 of 5)", "tea: Load"]
