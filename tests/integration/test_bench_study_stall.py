"""`loramux bench stall` and `tiers`, and the servers that they start: the real commands and the real gateway over a
stand-in for vLLM that stalls while it loads."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loramux_bench.errors import EndpointError
from loramux_bench.studies.servers import EngineShape, Loramux, StockVllm
from tests.fixtures.gateway import eventually
from tests.fixtures.stalling_vllm import fake_python, small_base

pytestmark = pytest.mark.timeout(240)

COMMAND = Path(sys.executable).with_name("loramux")
LOAD_S = 0.08


def bench(tmp_path: Path, *arguments: str) -> tuple["subprocess.CompletedProcess[str]", list[dict[str, Any]]]:
    """What it said, and the rows of its result."""
    base = small_base(tmp_path / "base")
    done = subprocess.run(
        [
            *(str(COMMAND), "bench", *arguments, "--base", str(base), "--results", str(tmp_path / "results")),
            *("--engine-python", fake_python(tmp_path, "--itl", "0.01", "--load-s", str(LOAD_S))),
            *("--rank", "2", "--slots", "2", "--in-memory", "3", "--rounds", "1"),
        ],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").iterdir()
    assert not (path / "scratch").exists()
    rows: list[dict[str, Any]] = json.loads((path / "result.json").read_text())["result"]["rows"]
    return done, rows


def test_stalls_are_seen_on_every_side(tmp_path: Path) -> None:
    done, rows = bench(
        tmp_path,
        *("stall", "--rates", "5", "--caches", "warm", "--seconds", "1.5", "--streams", "2", "--adapters", "6"),
    )
    assert [(row["side"], row["arrivals_per_s"]) for row in rows] == [
        (side, rate)
        for side in ("stock-load", "stock-lazy", "loramux-prefetch", "loramux-request")
        for rate in (0.0, 5.0)
    ]
    for row in rows:
        assert row["failures"] == 0, row["failure"]
        assert row["gaps"]["count"] > 10
        assert row["gaps"]["min"] >= 0.0
    for row in rows[1::2]:
        assert row["due"] == 7
        assert row["loads"]["count"] >= 2
        assert row["loads"]["min"] >= LOAD_S
        assert row["gaps"]["max"] >= LOAD_S, "the stand-in stalls whoever loads"
        assert row["ratio_p99"]["value"] > 1.0
        if row["side"].startswith("loramux"):
            assert row["engine_loads"] == row["begun"], "each that came was cold"
        assert row["side"] in done.stdout


def test_tiers_are_told_apart(tmp_path: Path) -> None:
    _, rows = bench(tmp_path, "tiers", "--samples", "3", "--places", "base,gpu,cpu,disk,disk-load,s3")
    by_place = {(row["side"], row["place"]): row for row in rows}
    assert set(by_place) == {
        *(("stock", place) for place in ("base", "gpu", "cpu", "disk", "disk-load")),
        *(("loramux", place) for place in ("base", "gpu", "cpu", "disk", "s3")),
    }
    nowhere = by_place.pop(("loramux", "gpu"))
    assert nowhere["samples"] == 0, "without the plugin nobody says what is in the slots"
    assert nowhere["missed"] > 0
    for (side, place), row in by_place.items():
        assert row["samples"] == 3, (side, place)
        cold = place in ("disk", "disk-load", "s3")
        assert (row["ttft"]["min"] >= LOAD_S) == cold, (side, place, row["ttft"])
    assert by_place["loramux", "disk"]["to_base"]["value"] > 1.5


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_that_it_started(how: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(str(COMMAND), "bench", "stall", "--sides", "stock-load", "--seconds", "60", "--rank", "2"),
            *("--base", str(small_base(tmp_path / "base")), "--results", str(tmp_path / "results")),
            *("--engine-python", fake_python(tmp_path)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process:
        while "starting" not in (line := process.stderr.readline()):
            assert line, "it ended"
        mine = psutil.Process(process.pid)
        eventually(lambda: bool(mine.children()))
        children = mine.children(recursive=True)
        process.send_signal(how)
        assert process.wait(60) == 130
        assert "Interrupted" in process.stderr.read()
    assert children
    assert not [child for child in children if child.is_running()]
    assert not list((tmp_path / "results").glob("*/scratch"))


def test_servers_come_up_and_go(tmp_path: Path) -> None:
    shape = EngineShape(
        base=small_base(tmp_path / "base"), python=fake_python(tmp_path), max_loras=2, max_cpu_loras=3, max_lora_rank=8
    )
    with StockVllm(shape, log=tmp_path / "stock.log") as vllm:
        assert vllm.ready_s > 0
        assert httpx.get(f"{vllm.url}/v1/models").json()["data"][0]["id"] == "base"
        pid = vllm.pid
    assert not psutil.pid_exists(pid)
    for _ in range(2):  # the second finds what the first has left
        with Loramux(shape, home=tmp_path / "home", log=tmp_path / "gateway.log") as gateway:
            with gateway.admin() as admin:
                (replica,) = admin.replicas()
            assert replica.state == "ready"
            assert replica.capabilities is not None
            assert replica.capabilities["max_cpu_loras"] == 3
            assert httpx.get(f"{gateway.engine_url}/health").status_code == 200
            pid = gateway.pid
        assert not psutil.pid_exists(pid)


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    shape = EngineShape(base=small_base(tmp_path / "base"), python=fake_python(tmp_path))
    with pytest.raises(EndpointError, match="no memory left"):
        StockVllm(shape, log=tmp_path / "log", extra_args=["--crash", "no memory left"]).__enter__()
    with pytest.raises(EndpointError, match="no base model"):
        EngineShape(base=tmp_path / "nothing").directory  # noqa: B018
