from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from loramux_adapters.model import Tier
from loramux_adapters.ports import TierObserver
from loramux_serving.relay.ports import Outcome, Recorder, RequestRecord
from loramux_serving.telemetry.metric_table import METRICS, MetricSpec
from loramux_serving.telemetry.metrics import CONTENT_TYPE, Metrics


def made(max_adapters: int = 10, base: str | None = None) -> Metrics:
    return Metrics(CollectorRegistry(), max_adapters=max_adapters, version="1.2.3", base=base)


def record(
    adapter: str | None = "a",
    *,
    status: int = 200,
    outcome: Outcome = "ok",
    streamed: bool = True,
    duration_s: float = 2.0,
    queue_s: float | None = 0.5,
    ttft_s: float | None = 1.0,
    prompt_tokens: int = 7,
    completion_tokens: int = 11,
    error_code: str | None = None,
) -> RequestRecord:
    return RequestRecord(
        request_id="r",
        endpoint="/v1/completions",
        key_id="k",
        adapter=adapter,
        version=None if adapter is None else 1,
        replica="0",
        status=status,
        outcome=outcome,
        streamed=streamed,
        duration_s=duration_s,
        queue_s=queue_s,
        ttft_s=ttft_s,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        error_code=error_code,
    )


class Scrape:
    """What Prometheus reads, looked up by name and labels."""

    def __init__(self, metrics: Metrics) -> None:
        self.families = list(text_string_to_metric_families(metrics.expose().decode()))
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.samples.get((f"loramux_{name}", frozenset(labels.items())))

    def adapters(self) -> set[str]:
        return {value for _, labels in self.samples for label, value in labels if label == "adapter"}


def test_the_table_is_what_is_exposed() -> None:
    families = {family.name: family for family in Scrape(made()).families}
    assert len(families) == len(METRICS)
    for spec in METRICS:
        family = families[spec.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (spec.kind, spec.help)


@pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.name)
def test_names_follow_prometheus_rules(spec: MetricSpec) -> None:
    assert spec.name.startswith("loramux_")
    assert spec.name.endswith("_total") == (spec.kind == "counter")
    assert spec.name.endswith("_seconds") == (spec.unit == "seconds")
    assert bool(spec.buckets) == (spec.kind == "histogram")
    assert list(spec.buckets) == sorted(set(spec.buckets))


def test_the_table_names_each_metric_once() -> None:
    assert len({spec.name for spec in METRICS}) == len(METRICS)


def test_it_is_the_port() -> None:
    metrics = made()
    recorder: Recorder = metrics
    observer: TierObserver = metrics
    recorder.record(record())
    observer.adapter_evicted(Tier.CPU, "lru")
    assert CONTENT_TYPE.startswith("text/plain")


def test_an_answered_request() -> None:
    metrics = made()
    metrics.record(record())
    metrics.record(record())
    scrape = Scrape(metrics)
    assert scrape("requests_total", adapter="a", endpoint="/v1/completions", outcome="ok", status="200") == 2
    assert scrape("prompt_tokens_total", adapter="a") == 14
    assert scrape("completion_tokens_total", adapter="a") == 22
    assert scrape("request_duration_seconds_sum", adapter="a") == 4.0
    assert scrape("request_queue_seconds_sum", adapter="a") == 1.0
    assert scrape("time_to_first_token_seconds_sum", adapter="a") == 2.0
    assert scrape("time_per_output_token_seconds_sum", adapter="a") == pytest.approx(0.2)
    assert scrape("time_per_output_token_seconds_count", adapter="a") == 2


@pytest.mark.parametrize(
    ("case", "duration", "ttft", "tpot"),
    [
        (record(streamed=False), 1, 0, 0),
        (record(completion_tokens=1), 1, 1, 0),
        (record(completion_tokens=0), 1, 1, 0),
        (record(ttft_s=None), 1, 0, 0),
        (record(outcome="cancelled"), 0, 1, 0),
        (record(outcome="interrupted"), 0, 1, 0),
        (record(outcome="client_error", status=400), 0, 0, 0),
        (record(outcome="rejected", status=429, ttft_s=None, queue_s=None), 0, 0, 0),
    ],
)
def test_which_times_count(case: RequestRecord, duration: int, ttft: int, tpot: int) -> None:
    metrics = made()
    metrics.record(case)
    scrape = Scrape(metrics)
    assert scrape("request_duration_seconds_count", adapter="a") == duration
    assert scrape("time_to_first_token_seconds_count", adapter="a") == ttft
    assert scrape("time_per_output_token_seconds_count", adapter="a") == tpot
    assert scrape("request_queue_seconds_count", adapter="a") == (0 if case.queue_s is None else 1)


def test_a_request_that_came_to_no_adapter_has_no_adapter() -> None:
    metrics = made()
    metrics.record(record(None, status=404, outcome="rejected", error_code="model_not_found"))
    scrape = Scrape(metrics)
    assert scrape.adapters() == {""}
    assert scrape("request_errors_total", code="model_not_found") == 1


def test_unknown_error_codes_share_a_label() -> None:
    metrics = made()
    for code in ("queue_full", "who-knows", "what-else"):
        metrics.record(record(error_code=code))
    scrape = Scrape(metrics)
    assert (scrape("request_errors_total", code="queue_full"), scrape("request_errors_total", code="other")) == (1, 2)


def test_odd_numbers_do_not_raise() -> None:
    metrics = made()
    metrics.record(record(prompt_tokens=-1, completion_tokens=-5, duration_s=float("nan"), queue_s=-0.1, status=0))


def test_labels_are_bounded() -> None:
    metrics = made(max_adapters=2, base="base")
    for adapter in ("a", "b", "c", "d", "base", "a"):
        metrics.record(record(adapter))
    scrape = Scrape(metrics)
    assert scrape.adapters() == {"a", "b", "base", "other"}
    assert scrape("prompt_tokens_total", adapter="other") == 14


def test_a_deleted_adapter_leaves_no_series() -> None:
    metrics = made(max_adapters=1)
    metrics.live_versions({"a": 1})
    metrics.record(record("a"))
    metrics.queued({"a": 3})
    metrics.forget("a")
    assert Scrape(metrics).adapters() == set()
    metrics.record(record("b"))
    assert Scrape(metrics)("prompt_tokens_total", adapter="b") == 7


def test_an_adapter_that_returns_counts_from_0() -> None:
    metrics = made()
    metrics.record(record("a"))
    metrics.forget("a")
    metrics.record(record("a"))
    assert Scrape(metrics)("prompt_tokens_total", adapter="a") == 7


def test_live_versions_follow_the_registry() -> None:
    metrics = made(max_adapters=2, base="base")
    metrics.record(record("base"))
    metrics.live_versions({"a": 1, "b": None, "c": 7})
    scrape = Scrape(metrics)
    assert [scrape("adapter_live_version", adapter=name) for name in ("a", "b", "c", "other")] == [1, None, None, None]
    metrics.live_versions({"b": 2, "c": 7})
    metrics.record(record("a"))
    scrape = Scrape(metrics)
    assert [scrape("adapter_live_version", adapter=name) for name in ("a", "b", "c")] == [None, 2, 7]
    assert scrape("prompt_tokens_total", adapter="other") == 7, "a late request of a deleted adapter"
    assert scrape("prompt_tokens_total", adapter="base") == 7
    metrics.live_versions({"b": None, "c": 7})
    assert Scrape(metrics)("adapter_live_version", adapter="b") is None


def test_queued_requests_are_those_of_now() -> None:
    metrics = made(max_adapters=1)
    metrics.queued({"a": 1, "b": 2, "c": 3})
    scrape = Scrape(metrics)
    assert (scrape("requests_queued", adapter="a"), scrape("requests_queued", adapter="other")) == (1, 5)
    metrics.queued({})
    assert Scrape(metrics).adapters() == set()


def test_moves_between_tiers() -> None:
    metrics = made()
    metrics.adapter_loaded(Tier.REMOTE, Tier.DISK, "ok", 1.5)
    metrics.adapter_loaded(Tier.DISK, Tier.CPU, "failed", 0.5)
    metrics.adapter_evicted(Tier.CPU, "lru")
    scrape = Scrape(metrics)
    assert scrape("adapter_load_seconds_sum", transition="remote_disk", outcome="ok") == 1.5
    assert scrape("adapter_load_seconds_count", transition="disk_cpu", outcome="failed") == 1
    assert scrape("adapter_evictions_total", tier="cpu", reason="lru") == 1


def test_replicas() -> None:
    metrics = made()
    metrics.residents("0", {Tier.GPU: 2, Tier.CPU: 5})
    metrics.residents("0", {Tier.GPU: 1})
    metrics.replica_state("0", "starting")
    metrics.replica_state("0", "ready")
    metrics.outstanding("0", 4)
    metrics.engine_restarted("0")
    scrape = Scrape(metrics)
    assert scrape("adapters_resident", replica="0", tier="gpu") == 1
    assert scrape("adapters_resident", replica="0", tier="cpu") == 0
    assert scrape("replica_state", replica="0", state="starting") == 0
    assert scrape("replica_state", replica="0", state="ready") == 1
    assert scrape("requests_outstanding", replica="0") == 4
    metrics.forget_replica("0")
    left = Scrape(metrics)
    assert [name for name, labels in left.samples if ("replica", "0") in labels] == ["loramux_engine_restarts_total"]


def test_build_info() -> None:
    assert Scrape(made())("build_info", version="1.2.3") == 1


def test_what_is_read_at_each_scrape() -> None:
    metrics = made()
    numbers: Iterator[int] = iter((1, 2))
    metrics.before_scrape(lambda: metrics.outstanding("0", next(numbers)))
    assert Scrape(metrics)("requests_outstanding", replica="0") == 1
    assert Scrape(metrics)("requests_outstanding", replica="0") == 2
