from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from loramux_adapters.model import Capabilities, Resident, Tier, Version, VersionState
from loramux_adapters.ports import TierObserver
from loramux_serving.relay.ports import Recorder
from loramux_serving.relay.record import Outcome, RequestRecord
from loramux_serving.telemetry.metric_table import METRICS, MetricSpec
from loramux_serving.telemetry.metrics import CONTENT_TYPE, Metrics
from loramux_serving.whereabouts import Held, Whereabouts


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
    version: int | None = 1,
) -> RequestRecord:
    return RequestRecord(
        request_id="r",
        endpoint="/v1/completions",
        key_id="k",
        adapter=adapter,
        version=None if adapter in (None, "base") else version,
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
        untyped = spec.kind == "counter" and not spec.name.endswith("_total")
        assert (family.type, family.documentation) == ("unknown" if untyped else spec.kind, spec.help)


@pytest.mark.parametrize(
    "spec", [spec for spec in METRICS if not spec.name.startswith("tgi_")], ids=lambda spec: spec.name
)
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


def versions(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Requests by adapter and version."""
    found: dict[tuple[str, str], float] = {}
    for (name, labels), value in Scrape(metrics).samples.items():
        if name == "loramux_version_requests_total":
            given = dict(labels)
            place = (given["adapter"], given["version"])
            found[place] = found.get(place, 0) + value
    return found


def test_versions_that_are_served_are_told_apart() -> None:
    metrics = made(max_adapters=1, base="base")
    metrics.live_versions({"a": 1, "b": 1}, {"a": 2})
    for number in (1, 2, 3, 4):
        metrics.record(record("a", version=number))
    metrics.record(record("a", version=2, outcome="engine_error", status=502))
    for adapter, number in (("b", 1), ("base", None), (None, None)):
        metrics.record(record(adapter, version=number))
    assert versions(metrics) == {("a", "1"): 1, ("a", "2"): 2, ("a", "other"): 2}
    scrape = Scrape(metrics)
    assert scrape("version_requests_total", adapter="a", version="2", outcome="engine_error") == 1
    assert scrape("version_request_duration_seconds_count", adapter="a", version="2") == 1
    assert scrape("version_time_to_first_token_seconds_sum", adapter="a", version="2") == 1.0


def test_series_of_versions_end_with_them() -> None:
    metrics = made()
    metrics.live_versions({"a": 1, "b": 1}, {"a": 2})
    for number in (1, 2):
        metrics.record(record("a", version=number))
        metrics.record(record("b", version=number))
    metrics.live_versions({"a": 2, "b": 1})
    metrics.record(record("a", version=1))
    assert versions(metrics) == {("a", "2"): 1, ("a", "other"): 1, ("b", "1"): 1, ("b", "other"): 1}
    metrics.live_versions({"b": None})
    metrics.record(record("a", version=2))
    assert versions(metrics) == {("b", "other"): 1}
    left = {
        name for name, labels in Scrape(metrics).samples if ("version", "1") in labels or ("version", "2") in labels
    }
    assert left == set()


def test_versions_have_bounded_labels() -> None:
    metrics = made(max_adapters=2)
    for number in range(1, 50):
        metrics.live_versions({"a": number, "b": 1, "c": 1}, {"a": number + 1})
        for adapter in ("a", "b", "c", "other"):
            metrics.record(record(adapter, version=number))
    assert set(versions(metrics)) <= {("a", "49"), ("a", "50"), ("a", "other"), ("b", "1"), ("b", "other")}


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
    metrics.adapter_evicted(Tier.CPU, "lru", 0.25)
    scrape = Scrape(metrics)
    assert scrape("adapter_load_seconds_sum", transition="remote_disk", outcome="ok") == 1.5
    assert scrape("adapter_load_seconds_count", transition="disk_cpu", outcome="failed") == 1
    assert scrape("adapter_evictions_total", tier="cpu", reason="lru") == 1
    assert scrape("adapter_eviction_seconds_sum", tier="cpu") == 0.25


def test_replicas() -> None:
    metrics = made()
    metrics.replica_state("0", "starting")
    metrics.replica_state("0", "ready")
    metrics.outstanding("0", 4)
    metrics.engine_restarted("0")
    scrape = Scrape(metrics)
    assert scrape("replica_state", replica="0", state="starting") == 0
    assert scrape("replica_state", replica="0", state="ready") == 1
    assert scrape("requests_outstanding", replica="0") == 4
    assert scrape("engine_restarts_total", replica="0") == 1


MIB = 1024 * 1024
ABLE = Capabilities(dynamic_lora=True, max_loras=8, max_cpu_loras=32, max_lora_rank=16, evict=True, staging=True)


def live(adapter: str, digest: str) -> Version:
    return Version(adapter, 1, VersionState.READY, "/x", 0.0, digest=digest * 64, size_bytes=MIB)


def test_tiers_are_those_of_the_last_report() -> None:
    metrics = made()
    a, b, c = live("a", "a"), live("b", "b"), live("c", "c")
    metrics.live_versions({"a": 1, "b": 1, "c": 1})
    in_slot = Resident("a@aaaaaaaaaaaa", Tier.GPU, size_bytes=3, pin=Tier.GPU)
    in_memory = Resident("b@bbbbbbbbbbbb", Tier.CPU, size_bytes=4, pin=Tier.CPU)
    forgotten = Resident("c@cccccccccccc", Tier.DISK)
    found = Whereabouts({"0": Held(1.5, (in_slot, in_memory, forgotten))}, {a.digest or "": 7, c.digest or "": 9})
    metrics.tiers.show(found, {"0": ABLE}, {"a": a, "b": b, "c": c})
    scrape = Scrape(metrics)
    for name, gpu, cpu in (("adapters_resident", 1, 1), ("adapters_pinned", 1, 1), ("tier_bytes", 3, 4)):
        assert scrape(name, replica="0", tier="gpu") == gpu
        assert scrape(name, replica="0", tier="cpu") == cpu
    assert scrape("tier_bytes", replica="", tier="disk") == 16
    assert scrape("slots", replica="0") == 8
    assert scrape("places", replica="0") == 32
    assert scrape("tier_report_age_seconds", replica="0") == 1.5
    assert [scrape("adapter_tier", adapter=name, replica="0") for name in "abc"] == [3, 2, 1]


def test_tiers_of_what_left_have_no_series() -> None:
    metrics = made()
    metrics.live_versions({"a": 1, "b": 1})
    both = {"a": live("a", "a"), "b": live("b", "b")}
    metrics.tiers.show(Whereabouts({"0": Held(0.0, ()), "1": Held(0.0, ())}, {}), {"0": ABLE, "1": ABLE}, both)
    metrics.live_versions({"b": 1})
    metrics.tiers.show(Whereabouts({"1": Held(0.0, ())}, {}), {"0": ABLE, "1": ABLE}, {"b": both["b"]})
    scrape = Scrape(metrics)
    assert scrape.adapters() == {"b"}
    assert {value for _, labels in scrape.samples for label, value in labels if label == "replica"} == {"", "1"}
    metrics.tiers.clear()
    assert not any(name.startswith(("loramux_adapter_tier", "loramux_slots")) for name, _ in Scrape(metrics).samples)


def test_tiers_by_adapter_are_bounded() -> None:
    metrics = made(max_adapters=2)
    names = "abcde"
    metrics.live_versions(dict.fromkeys(names, 1))
    found = Whereabouts({"0": Held(0.0, ())}, {})
    metrics.tiers.show(found, {}, {name: live(name, name) for name in names})
    assert Scrape(metrics).adapters() == {"a", "b"}


def test_build_info() -> None:
    assert Scrape(made())("build_info", version="1.2.3") == 1


def test_what_is_read_at_each_scrape() -> None:
    metrics = made()
    numbers: Iterator[int] = iter((1, 2))
    metrics.before_scrape(lambda: metrics.outstanding("0", next(numbers)))
    assert Scrape(metrics)("requests_outstanding", replica="0") == 1
    assert Scrape(metrics)("requests_outstanding", replica="0") == 2
