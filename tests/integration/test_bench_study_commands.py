"""`loramux bench cost`, `slots` and `scale`, from the command to the table and the file: the gateway is real, and where
vLLM would be started, a stand-in is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("loramux")

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """What takes the interpreter's place."""
    script = tmp_path / "python"
    stand_in = ROOT / "tests" / "fakes" / "streaming_vllm.py"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "{stand_in}" "$@"\n')
    script.chmod(0o755)
    return script


def study(name: str, python: Path, base: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What the command prints, and the file that it writes."""
    results = python.parent / "results"
    options = ["--engine-python", str(python), "--base", str(base), "--results", str(results), "--modules", "q_proj"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("LORAMUX_")}
    command = [str(COMMAND), "bench", name, *options, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=220)
    assert done.returncode == 0, done.stdout + done.stderr
    (written,) = results.glob(f"{name}-*/result.json")
    assert not (written.parent / "scratch").exists()
    assert str(written) in done.stdout.replace("\n", "")
    content = json.loads(written.read_bytes())
    assert content["study"] == name
    return done.stdout, content["result"]


def test_cost(python: Path, vllm_base: Path) -> None:
    printed, result = study("cost", python, vllm_base, "--streams", "1,2", "--rounds", "2", "--tokens", "4")
    kinds = [(row["side"], row["streams"], row["kind"]) for row in result["rows"]]
    assert kinds == [
        (side, *kind) for side in ("stock", "loramux") for kind in ((1, "adapter"), (2, "adapter"), (2, "mixed"))
    ]
    assert all(row["errors"] == 0 and row["e2e"]["rounds"] == 2 for row in result["rows"])
    assert "1.25 on a CPU" in printed


def test_slots(python: Path, vllm_base: Path) -> None:
    printed, result = study(
        "slots", python, vllm_base, "--slots", "1", "--clients", "2", "--requests", "6", "--rounds", "1"
    )
    cells = [(row["side"], row["choice"], row["adapters"]) for row in result["rows"]]
    assert cells == [
        (side, choice, count) for side in ("stock", "loramux") for choice in ("uniform", "zipf") for count in (1, 2, 8)
    ]
    assert all(row["figures"]["requests"] == 6 and row["figures"]["errors"] == 0 for row in result["rows"])
    assert "evenness" in printed


def test_scale(python: Path, vllm_base: Path) -> None:
    printed, result = study(
        "scale", python, vllm_base, "--counts", "3", "--requests", "6", "--tokens", "3", "--restarts", "1"
    )
    assert [(row["side"], row["adapters"]) for row in result["rows"]] == [("loramux", 0), ("loramux", 3), ("stock", 3)]
    assert all(row["figures"]["errors"] == 0 for row in result["rows"][1:])
    assert set(result["restart_cost_s"]) == {"3"}
    assert "One more adapter costs the gateway" in printed
