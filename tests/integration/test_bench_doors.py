"""The scenario `doors`, which comes with the bench: users of three interfaces side by side at one gateway."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loramux_bench.launch import launch
from loramux_bench.results.write import write_results
from loramux_bench.scenario import load_scenario
from tests.fixtures.gateway import GatewayProcess, free_port
from tests.fixtures.vllm import NAME, random_adapter

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "tests" / "fakes" / "completing_vllm.py"
REQUEST = '{"event":"request"'
ADAPTERS = ("pirate", "shop-sql", "ticket-json")


@pytest.fixture
def gateway(vllm_base: Path, tmp_path: Path) -> Iterator[GatewayProcess]:
    """With adapters of the demo's names."""
    port = free_port()
    engine = subprocess.Popen(
        [sys.executable, str(STAND_IN), "--port", str(port), "--served-model-name", NAME],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process = GatewayProcess(
        tmp_path / "home",
        LORAMUX_ENGINE__URLS=f"http://127.0.0.1:{port}",
        LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(tmp_path)]),
    )
    with process:
        for seed, name in enumerate(ADAPTERS):
            source = str(random_adapter(vllm_base, tmp_path / name, seed=seed))
            process.admin("POST", "/adapters", json={"name": name, "source": source, "wait": True}).raise_for_status()
        yield process
    engine.terminate()
    engine.wait(20)


def test_three_interfaces_side_by_side(
    gateway: GatewayProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = gateway.admin("POST", "/keys", json={"name": "bench", "aws": True}).raise_for_status().json()
    monkeypatch.setenv("LORAMUX_URL", gateway.url)
    monkeypatch.setenv("LORAMUX_ADMIN_KEY", gateway.key)
    monkeypatch.setenv("LORAMUX_AWS_KEY", f"{made['access_key_id']}:{made['secret_access_key']}")
    monkeypatch.delenv("LORAMUX_API_KEY", raising=False)
    run = launch(load_scenario("doors", ["load.requests=18", "load.warmup_requests=3"]), tmp_path / "results")

    summary = write_results(run)
    assert (summary.total.answered, summary.total.errors) == (18, 0)
    assert set(summary.by_target) == {"openai", "tgi", "sagemaker"}
    assert set(summary.by_adapter) == set(ADAPTERS)
    for record in run.requests():
        assert record.replica == "engine-0", record
        assert record.version == "1"
        assert record.output_tokens
        assert record.ttft_s is not None
    routes = {"/v1/completions", "/generate_stream", "/endpoints/{EndpointName}/invocations-response-stream"}
    logged = {json.loads(line)["endpoint"] for line in gateway.log.splitlines() if line.startswith(REQUEST)}
    assert routes <= logged, "each went through its own door"
