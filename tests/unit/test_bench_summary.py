"""From records to `summary.json`, figures worked out by hand."""

import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from loramux_bench.errors import NothingMeasured, ResultsError, ScenarioError
from loramux_bench.record import RequestRecord, encode
from loramux_bench.results.distributions import distribution
from loramux_bench.results.summary import Summary, summarise
from loramux_bench.results.table import table
from loramux_bench.results.write import write_results
from loramux_bench.run_dir import ChurnRecord, Generator, RunDir, RunInfo, Sample
from loramux_bench.scenario import parse


def _info(scenario: dict[str, Any] | None = None, **fields: Any) -> RunInfo:
    content = {"name": "small", "load": {"requests": 10}, **(scenario or {})}
    whole = parse(content, "of this test").model_dump(mode="json")
    return RunInfo(name="small", scenario=whole, outcome="done", **fields)


def _request(sent_s: float = 0.0, **fields: Any) -> RequestRecord:
    """Answered with 5 tokens in 1 s: the first after 0.2 s, then gaps of 0.2 s."""
    known: dict[str, Any] = {
        "index": 0,
        "target": "loramux",
        "api": "openai-chat",
        "adapter": "pirate",
        "sent_s": sent_s,
        "first_token_s": sent_s + 0.2,
        "end_s": sent_s + 1.0,
        "gaps_s": (0.2, 0.2, 0.2, 0.2),
        "chunks": 5,
        "prompt_tokens": 10,
        "prompt_tokens_wanted": 10,
        "output_tokens": 5,
        "output_tokens_wanted": 5,
        "status": 200,
    }
    return RequestRecord(**(known | fields))


def _failed(sent_s: float, error: str = "http_503", message: str = "no room", **fields: Any) -> RequestRecord:
    nothing: dict[str, Any] = {
        "first_token_s": None,
        "gaps_s": (),
        "chunks": 0,
        "output_tokens": None,
        "prompt_tokens": None,
    }
    return _request(sent_s, **(nothing | {"end_s": sent_s + 0.01, "error": error, "message": message} | fields))


def test_distribution_of_five_values() -> None:
    found = distribution(np.array([4.0, 1.0, 3.0, 2.0, 10.0]))
    assert found is not None
    # Sorted 1 2 3 4 10; p90 lies at place 3.6: 4 + 0.6 · 6; deviations 0 -3 -1 -2 6: 50 / 4.
    assert (found.count, found.mean, found.min, found.max) == (5, 4.0, 1.0, 10.0)
    assert found.stddev == pytest.approx(12.5**0.5)
    assert (found.p25, found.p50, found.p75) == (2.0, 3.0, 4.0)
    assert (found.p90, found.p95, found.p99) == pytest.approx((7.6, 8.8, 9.76))


def test_distribution_of_one_value_and_of_none() -> None:
    one = distribution(np.array([2.5]))
    assert one is not None
    assert (one.stddev, one.p50, one.p99) == (None, 2.5, 2.5)
    assert distribution(np.array([])) is None


def test_counts_rates_and_measures() -> None:
    requests = [
        _request(-5.0, warmup=True, end_s=100.0),
        _request(0.0),
        _request(1.0, first_token_s=1.6, end_s=3.0, gaps_s=(0.4, 1.0), chunks=3, output_tokens=15, prompt_tokens=20),
        _failed(2.0),
        _failed(2.5, message="another"),
        _failed(2.6, "timeout", "", end_s=4.0, output_tokens=100),
        _request(3.0, cut=True, end_s=8.0, error="timeout"),
    ]
    summary = summarise(_info(), requests, [], [])
    total = summary.total
    assert (total.sent, total.answered, total.errors, total.cut, summary.warmup) == (6, 2, 3, 1, 1)
    assert total.error_rate == pytest.approx(3 / 5)
    assert {code: (f.count, f.message) for code, f in total.failures.items()} == {
        "http_503": (2, "no room"),
        "timeout": (1, ""),
    }
    assert list(total.failures) == ["http_503", "timeout"]
    assert (summary.from_s, summary.to_s, total.duration_s) == (0.0, 8.0, 8.0)
    assert total.rps == 0.25
    assert total.requests_per_min == 15.0
    assert total.throughput == 2.5  # 20 tokens of answered requests
    assert (total.output_tokens_total, total.input_tokens_total) == (20, 30)
    measures = total.measures
    assert (measures["ttft"].count, measures["ttft"].min, measures["ttft"].max) == (2, 0.2, pytest.approx(0.6))
    assert (measures["itl"].count, measures["itl"].p50, measures["itl"].max) == (6, 0.2, 1.0)
    assert (measures["tpot"].min, measures["tpot"].max) == (pytest.approx(0.1), pytest.approx(0.2))
    assert measures["e2e"].mean == pytest.approx(1.5)
    assert (measures["speed"].min, measures["speed"].max) == (pytest.approx(5.0), pytest.approx(7.5))
    assert (total.goodput, total.goodput_share, summary.lag, summary.cost) == (None, None, None, None)


def test_goodput_is_of_requests_that_keep_every_objective_of_requests() -> None:
    requests = [
        _request(0.0),
        _request(1.0, first_token_s=1.5),  # TTFT too long
        _request(2.0, end_s=5.0),  # E2E too long
        _request(3.0),
        _failed(4.0),
        _request(9.0, cut=True, end_s=10.0),
    ]
    slos = ["ttft:p99:300ms", "e2e:p50:2s", "throughput:9999", "error_rate:0%"]
    total = summarise(_info({"slos": slos}), requests, [], []).total
    assert total.goodput == pytest.approx(2 / 10)
    assert total.goodput_share == pytest.approx(2 / 5)
    only_of_the_run = summarise(_info({"slos": slos[2:]}), requests, [], []).total
    assert only_of_the_run.goodput is None


def test_groups_hold_their_own_values_and_add_up() -> None:
    requests = [
        _request(0.0, adapter="b", tenant="acme", version="2"),
        _request(0.0, adapter="a", tenant="zeta", version="1", first_token_s=0.5, gaps_s=(0.1, 0.4)),
        _request(2.0, adapter="b", tenant="zeta", version="3", gaps_s=(0.8,)),
        _failed(3.0, adapter="c", tenant="acme"),
        _request(9.0, adapter="b", tenant="acme", version="3"),
    ]
    tenants = {"tenants": [{"name": "acme"}, {"name": "zeta"}]}
    summary = summarise(_info(tenants), requests, [], [])
    by_adapter = summary.by_adapter
    assert list(by_adapter) == ["a", "b", "c"]
    assert (by_adapter["a"].measures["ttft"].p50, by_adapter["a"].measures["itl"].count) == (0.5, 2)
    assert by_adapter["a"].measures["itl"].max == 0.4
    assert (by_adapter["b"].answered, by_adapter["b"].measures["itl"].count) == (3, 9)
    assert by_adapter["b"].measures["itl"].max == 0.8
    assert (by_adapter["c"].errors, by_adapter["c"].error_rate, by_adapter["c"].measures) == (1, 1.0, {})
    assert by_adapter["c"].failures["http_503"].message == "no room"
    assert {group.duration_s for group in by_adapter.values()} == {10.0}
    for groups in (by_adapter, summary.by_tenant, summary.by_target):
        assert sum(group.sent for group in groups.values()) == 5
        assert sum(group.throughput for group in groups.values()) == pytest.approx(summary.total.throughput)
    assert {name: group.sent for name, group in summary.by_tenant.items()} == {"acme": 3, "zeta": 2}
    assert {name: group.sent for name, group in summary.by_version.items()} == {"a@1": 1, "b@2": 1, "b@3": 2}
    assert summarise(_info(), requests, [], []).by_tenant == {}


def test_a_target_is_measured_over_its_own_time() -> None:
    requests = [_request(float(second)) for second in range(10)]
    requests += [_request(5.0 * second, target="slow", end_s=5.0 * second + 5.0) for second in range(10)]
    priced = {"targets": [{}, {"name": "slow"}], "cost": {"price_per_replica_hour": 1.0, "replicas": 1}}
    summary = summarise(_info(priced), requests, [], [])
    fast, slow = summary.by_target["loramux"], summary.by_target["slow"]
    assert (fast.duration_s, fast.throughput) == (10.0, 5.0)
    assert (slow.duration_s, slow.throughput) == (50.0, 1.0)
    assert summary.cost is None


def test_by_tier() -> None:
    samples = [
        Sample(at_s=0.5, tiers={"a": "disk", "b": "gpu"}),
        Sample(at_s=2.5, tiers={"a": "gpu", "b": "gpu"}),
    ]
    requests = [_request(at_s, adapter=name) for at_s in (0.0, 1.0, 3.0) for name in ("a", "b", "smollm2")]
    tiers = summarise(_info(base="smollm2"), requests, samples, []).by_tier
    assert {name: group.sent for name, group in tiers.items()} == {"base": 3, "disk": 1, "gpu": 3, "unknown": 2}
    assert summarise(_info(), requests, [Sample(at_s=0.0)], []).by_tier == {}
    other = _info({"targets": [{"admin": False}]})
    assert list(summarise(other, requests, samples, []).by_tier) == ["unknown"]


def test_lag_of_an_open_loop_is_in_its_latencies() -> None:
    requests = [
        _request(1.0, scheduled_s=1.0, index=0),
        _request(2.5, scheduled_s=2.0, first_token_s=2.7, end_s=3.5, index=1),
    ]
    scenario = {"load": {"shape": "open", "requests": 2, "arrivals": {"max_in_flight": 1}}}
    summary = summarise(_info(scenario), requests, [], [])
    assert summary.lag is not None
    assert (summary.lag.min, summary.lag.max) == (0.0, 0.5)
    assert summary.total.measures["ttft"].max == pytest.approx(0.7)
    assert summary.total.measures["e2e"].max == pytest.approx(1.5)
    assert any("max_in_flight" in reason for reason in summary.generator.reasons)
    closed = summarise(_info(), [_request(0.0)], [], [])
    assert not any("max_in_flight" in reason for reason in closed.generator.reasons)


def test_waiting_is_told_apart() -> None:
    requests = [
        _request(12.0, scheduled_s=2.0, not_ready_s=10.0, attempts=4),
        _failed(30.0, "not_ready", "starting", scheduled_s=0.0, not_ready_s=30.0, attempts=7),
        _request(13.0, scheduled_s=13.0),
    ]
    waited = summarise(_info(ready_wait_s=42.5), requests, [], []).not_ready
    assert (waited.before_load_s, waited.requests, waited.attempts, waited.total_s) == (42.5, 2, 3 + 7, 40.0)
    assert waited.spread_s is not None
    assert waited.spread_s.p50 == 20.0
    assert summarise(_info(), requests, [], []).total.measures["ttft"].max == pytest.approx(0.2)
    gave_up_at_once = summarise(_info(), [_failed(0.0, "not_ready")], [], []).not_ready
    assert (gave_up_at_once.requests, gave_up_at_once.attempts, gave_up_at_once.total_s) == (1, 1, 0.0)
    never = summarise(_info(), [_request(0.0)], [], []).not_ready
    assert (never.requests, never.attempts, never.spread_s) == (0, 0, None)


def test_token_counts_are_held_against_each_other() -> None:
    requests = [
        _request(0.0, output_tokens=10, output_tokens_local=10, output_tokens_wanted=12),
        _request(1.0, output_tokens=10, output_tokens_local=13, output_tokens_wanted=10, prompt_tokens=None),
        _request(2.0, output_tokens=8, output_tokens_local=7, output_tokens_wanted=8, prompt_tokens=14),
        _request(3.0, output_tokens=50),
        _failed(4.0, output_tokens=1, output_tokens_local=99),
    ]
    tokens = summarise(_info(prompt_overhead_tokens=3.0), requests, [], []).tokens
    assert tokens.output is not None
    assert tokens.output.requests == 3
    assert tokens.output.mean_difference == pytest.approx(-2 / 3)
    assert tokens.output.equal_share == pytest.approx(1 / 3)
    assert tokens.output.largest_difference == -3
    assert tokens.output_wanted is not None
    assert (tokens.output_wanted.requests, tokens.output_wanted.largest_difference) == (4, 45)
    assert tokens.prompt is None
    assert tokens.prompt_wanted is not None
    assert (tokens.prompt_wanted.requests, tokens.prompt_wanted.largest_difference) == (3, 4)
    assert tokens.prompt_overhead == 3.0


def test_without_usage_the_tokenizer_counts_and_without_it_chunks() -> None:
    nothing = {"prompt_tokens": None, "output_tokens": None}
    requests = [
        _request(0.0, prompt_tokens_local=8, output_tokens_local=7, **nothing),
        _request(1.0, **nothing),
    ]
    total = summarise(_info(), requests, [], []).total
    assert (total.input_tokens_total, total.output_tokens_total) == (8, 7 + 5)
    assert total.input_tokens is not None
    assert total.input_tokens.count == 1


def test_churn_by_action() -> None:
    churn = [
        ChurnRecord(at_s=1, action="add", adapter="x", took_s=0.2),
        ChurnRecord(at_s=2, action="add", adapter="y", took_s=9.0, status=409, error="http_409"),
        ChurnRecord(at_s=3, action="delete", adapter="x", took_s=0.1),
        ChurnRecord(at_s=4, action="add", adapter="z", took_s=0.4),
    ]
    found = summarise(_info(), [_request()], [], churn).churn
    assert list(found) == ["add", "delete"]
    assert (found["add"].count, found["add"].errors) == (3, 1)
    assert (found["add"].failures["http_409"].count, found["add"].failures["http_409"].message) == (1, "y")
    assert found["add"].took_s is not None
    assert (found["add"].took_s.count, found["add"].took_s.max) == (2, 0.4)


def test_cost_is_over_the_measured_time() -> None:
    scenario = {"cost": {"price_per_replica_hour": 36.0, "replicas": 2}}
    found = summarise(_info(scenario), [_request(0.0), _request(9.0)], [], []).cost
    assert found is not None
    assert found.total == pytest.approx(2 * 10 * 0.01)
    assert found.per_million_output_tokens == pytest.approx(0.2 / 10 * 1e6)


@pytest.mark.parametrize(
    ("url", "noted", "shared"),
    [
        ("", "", True),
        ("http://127.0.0.1:9/", "", True),
        ("http://localhost:9", "http://gateway:1", True),
        ("http://gateway:9", "", False),
        ("", "http://gateway:9", False),
    ],
)
def test_an_endpoint_on_this_machine_shares_it(url: str, noted: str, shared: bool) -> None:
    busy = Generator(users=1, in_flight=1, cpu=0.1, machine_cpu=1.0, loop_lag_s=0.0)
    info = _info({"targets": [{"url": url}]}, environment={"endpoint": {"url": noted}} if noted else {})
    verdict = summarise(info, [_request()], [Sample(at_s=0.5, generator=busy)], []).generator
    assert (bool(verdict.cautions), verdict.limited) == (shared, not shared)


def test_nothing_sent_has_no_figures_and_is_json() -> None:
    summary = summarise(_info({"slos": ["ttft:p99:1s"]}), [], [], [])
    assert (summary.total.sent, summary.total.rps, summary.total.measures) == (0, 0.0, {})
    assert (summary.total.goodput, summary.total.goodput_share) == (0.0, 0.0)
    assert summary.by_adapter == {}
    assert msgspec.json.decode(msgspec.json.encode(summary), type=Summary) == summary


def test_a_scenario_that_can_not_be_read_is_refused() -> None:
    with pytest.raises(ScenarioError, match="of the run small"):
        summarise(RunInfo(name="small", scenario={"wrong": 1}), [], [], [])


def _written(path: Path, requests: list[RequestRecord]) -> RunDir:
    run = RunDir(path)
    run.write_info(_info({"slos": ["ttft:p99:300ms"]}))
    run.requests_path.write_bytes(b"".join(encode(request) + b"\n" for request in requests))
    sample = Sample(at_s=0.5, tiers={"pirate": "gpu"}, replicas={"engine-0": "ready"})
    run.samples_path.write_bytes(msgspec.json.encode(sample) + b"\n")
    return run


def test_results_are_written_and_can_be_made_again(tmp_path: Path) -> None:
    run = _written(tmp_path, [_request(0.0), _request(1.0), _failed(2.0)])
    summary = write_results(run)
    assert msgspec.json.decode(run.summary_path.read_bytes(), type=Summary) == summary
    assert b"<html" in run.report_path.read_bytes()
    first = run.summary_path.read_bytes()
    assert write_results(run) == summary
    assert run.summary_path.read_bytes() == first
    assert not list(tmp_path.glob("*.tmp"))


def test_a_run_of_errors_only_has_a_report_all_the_same(tmp_path: Path) -> None:
    run = _written(tmp_path, [_failed(0.0, "connect", "refused"), _failed(1.0, "connect", "refused")])
    with pytest.raises(NothingMeasured, match=r"None of the 2 .* was answered: connect 2 times \(refused\)"):
        write_results(run)
    summary = msgspec.json.decode(run.summary_path.read_bytes(), type=Summary)
    assert summary.total.failures["connect"].count == 2
    assert "connect" in run.report_path.read_text("utf-8")


def test_a_run_that_measured_nothing_says_why(tmp_path: Path) -> None:
    with pytest.raises(NothingMeasured, match="No request was measured"):
        write_results(_written(tmp_path, [_request(0.0, warmup=True)]))
    with pytest.raises(NothingMeasured, match="all 1 were under way"):
        write_results(_written(tmp_path, [_request(0.0, cut=True)]))


def test_a_place_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    run = _written(tmp_path, [_request(0.0)])
    run.report_path.mkdir()
    with pytest.raises(ResultsError, match=r"report\.html can not be written: "):
        write_results(run)
    assert not list(tmp_path.glob("*.tmp"))


def test_the_table_for_the_terminal() -> None:
    requests = [
        _request(0.0),
        _request(1.0, adapter="poet", first_token_s=1.5),
        _failed(2.0, message="no [room]"),
    ]
    text = _shown(summarise(_info({"slos": ["ttft:p99:300ms"]}), requests, [], []))
    assert "2 of 3 answered in 2.0 s" in text
    assert "1 (33.33%)" in text
    assert "350.0" in text  # TTFT p50, ms
    assert "poet" in text
    assert "no [room]" in text
    assert "There are no samples of the load process" in text


def test_the_table_leaves_many_adapters_to_the_report_and_shows_limits() -> None:
    requests = [_request(0.0, adapter=f"bench-{number}") for number in range(11)]
    summary = summarise(_info(), requests, [], [])
    assert "bench-3" not in _shown(summary)
    reason = "Load process 0 was [full]."
    limited = msgspec.structs.replace(summary, generator=msgspec.structs.replace(summary.generator, reasons=[reason]))
    assert f"The generator was the limit: {reason}" in _shown(limited)


def _shown(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table(summary))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()
