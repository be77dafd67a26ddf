"""The bench on a real gateway with real vLLM: its own adapters and keys, churn while it streams, and nothing left."""

from pathlib import Path

import pytest

from loramux_bench.launch import launch
from loramux_bench.results.write import write_results
from loramux_bench.scenario import parse
from tests.e2e.conftest import DEMO
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.vllm import RealVllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]


def test_a_load_with_churn_and_tenants_leaves_the_gateway_as_it_was(
    vllm: RealVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = parse(
        {
            "name": "live",
            "load": {"users": 2, "requests": 24, "warmup_requests": 2},
            "prompts": {"input_tokens": {"mean": 24}, "output_tokens": {"mean": 6}},
            "adapters": {"choice": "zipf", "base_share": 0.2, "provision": {"count": 3, "prefix": "load"}},
            "tenants": [{"name": "one"}, {"name": "two", "adapters": ["load-000"]}],
            "churn": {"adds_per_min": 30, "updates_per_min": 30, "deletes_per_min": 30},
            "slos": ["ttft:p99:60s"],
        },
        "of the test",
    )
    gateway = GatewayProcess(tmp_path / "home", "--demo", str(DEMO), LORAMUX_ENGINE__URLS=vllm.url)
    with gateway:
        gateway.wait_for_adapters("pirate", "shop-sql", "ticket-json")
        monkeypatch.setenv("LORAMUX_URL", gateway.url)
        monkeypatch.setenv("LORAMUX_ADMIN_KEY", gateway.key)
        run = launch(scenario, tmp_path / "results")
        adapters = {adapter["name"] for adapter in gateway.admin("GET", "/adapters").json()["adapters"]}
        keys = [key for key in gateway.admin("GET", "/keys").json()["keys"] if not key.get("revoked_at")]

    summary = write_results(run)
    total = summary.total
    assert (total.answered, total.errors) == (24, 0)
    assert set(summary.by_adapter) <= {"load-000", "load-001", "load-002", vllm.name}
    assert {record.adapter for record in run.requests() if record.tenant == "two"} <= {"load-000"}
    assert all(record.output_tokens == record.output_tokens_wanted for record in run.requests())
    assert all(record.replica for record in run.requests())
    assert set(summary.by_tier) <= {"gpu", "cpu", "disk", "base"}
    assert any(sample.replicas and "ready" in sample.replicas.values() for sample in run.samples())
    assert {record.action for record in run.churn()} == {"add", "update", "delete"}
    assert [record.error for record in run.churn() if record.error] == []

    assert adapters == {"pirate", "shop-sql", "ticket-json"}, "what the bench added is gone"
    assert not [key for key in keys if "bench" in key["name"] or key["name"] in ("one", "two")]
    assert run.info().left_undone == []
