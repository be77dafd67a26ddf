"""`loramux bench compare` and `gate` on live mocks, and how commands end."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.fixtures.gateway import free_port
from tests.fixtures.mock_endpoint import MockEndpoint

COMMAND = Path(sys.executable).with_name("loramux")
TOML = """
name = "tiny"
[load]
users = 6
requests = 60
[prompts]
output_tokens = {mean = 5}
[scrape]
metrics = false
admin = false
"""


@pytest.fixture(scope="module")
def equal() -> Iterator[tuple[str, str]]:
    with (
        MockEndpoint(ttft=0.04, itl=0.01, jitter=0.03) as a,
        MockEndpoint(ttft=0.04, itl=0.01, jitter=0.03, seed=2) as b,
    ):
        yield a.url, b.url


def bench(cwd: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([COMMAND, "bench", *arguments], cwd=cwd, capture_output=True, text=True, timeout=110)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    (tmp_path / "tiny.toml").write_text(TOML)
    return "tiny.toml"


def test_compare_measures_two_endpoints_in_turns(equal: tuple[str, str], tiny: str, tmp_path: Path) -> None:
    done = bench(tmp_path, "compare", *equal, "--scenario", tiny, "--repeats", "2", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "TTFT" in done.stdout
    runs = {side: sorted((tmp_path / "out" / side).iterdir()) for side in ("a", "b")}
    assert [len(found) for found in runs.values()] == [2, 2]
    first, second = runs["a"]
    began = {run: json.loads((run / "run.json").read_text())["started_at"] for found in runs.values() for run in found}
    assert sorted(began, key=lambda run: began[run]) == [first, *runs["b"], second], "A B, B A"
    assert all((run / "report.html").exists() for run in began)

    again = bench(tmp_path, "compare", "out/a", "out/b")
    assert again.returncode == 0
    assert "no difference seen" in again.stdout


def test_the_gate_catches_a_slowdown_and_lets_an_equal_pair_pass(
    equal: tuple[str, str], tiny: str, tmp_path: Path
) -> None:
    """A slowdown that no noise hides: how it does at 10 % is for `loramux bench trust`, which takes its time."""
    baseline, candidate = equal
    passed = bench(
        tmp_path,
        "gate",
        tiny,
        "--url",
        candidate,
        "--against",
        baseline,
        "--repeats",
        "2",
        "--tolerance",
        "0.25",
        "--slo",
        "ttft:p50:2s",
        "--slo",
        "error_rate:0%",
        "--junit",
        "passed.xml",
    )
    assert passed.returncode == 0, passed.stdout + passed.stderr
    suite = ElementTree.parse(tmp_path / "passed.xml").getroot()
    assert suite.get("failures") == "0"

    with MockEndpoint(ttft=0.04, itl=0.01, jitter=0.03, slow=2.0) as slow:
        failed = bench(
            tmp_path,
            "gate",
            tiny,
            "--url",
            slow.url,
            "--against",
            "results/baseline",
            "--repeats",
            "2",
            "--tolerance",
            "0.25",
            "--slo",
            "ttft:p50:50ms",
            "--junit",
            "failed.xml",
        )
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "over the limit of 50 ms" in " ".join(failed.stdout.split())
    failures = ElementTree.parse(tmp_path / "failed.xml").findall(".//failure")
    assert len(failures) >= 2


def test_a_gate_that_can_not_measure_is_undecided(tiny: str, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    done = bench(tmp_path, "gate", tiny, "--url", nobody, "--slo", "ttft:p99:1s", "--junit", "gate.xml")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert nobody in (tmp_path / "gate.xml").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "smoke", "--set", "load.userz=3"], "load.userz: unknown key"),
        (["run", "nothing"], "no scenario 'nothing'"),
        (["run", "smoke", "--set", "load.users"], "key.key=value"),
        (["gate", "smoke", "--slo", "ttft:p98:1s"], "p98"),
        (["compare", "http://a", "http://b"], "--scenario"),
        (["gate", "smoke", "--junit", "/proc/none/gate.xml"], "/proc/none/gate.xml can not be written"),
        (["compare", "http://a", "results"], "both"),
        (["compare", "here", "there"], "holds no results"),
        (["report", "here"], "holds no results"),
    ],
)
def test_what_is_asked_wrongly_is_one_line_and_status_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = bench(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_scenarios_are_listed(tmp_path: Path) -> None:
    done = bench(tmp_path, "scenarios")
    assert done.returncode == 0
    for name in ("smoke", "steady", "burst", "zipf-100", "churn", "cold-start", "soak", "reference"):
        assert name in done.stdout
