"""What Prometheus scrapes. `metric_table` declares the metrics, and `docs/metrics.md` says what they are for."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from loramux_adapters.errors import classes
from loramux_adapters.model import Tier
from loramux_adapters.ports import LoadOutcome
from loramux_serving.relay.record import RequestRecord
from loramux_serving.telemetry import metric_table as table
from loramux_serving.telemetry.adapter_labels import OTHER, AdapterLabels
from loramux_serving.telemetry.series import Count
from loramux_serving.telemetry.tgi_series import TgiSeries
from loramux_serving.telemetry.tier_gauges import TierGauges
from loramux_serving.telemetry.version_series import VersionSeries

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_ANSWER_BEGAN = ("ok", "cancelled", "interrupted")


class Metrics:
    """`relay.ports.Recorder`, `loramux_adapters.ports.TierObserver`, and a method for each other thing that is
    counted. No method blocks or raises; all are called on one event loop."""

    def __init__(
        self, registry: CollectorRegistry, *, max_adapters: int, version: str, base: str | None = None
    ) -> None:
        """Registers every metric of the table with `registry`, which must be new. `version` is the gateway's;
        `base` is the base's name, which has a label besides the `max_adapters`."""
        self._registry = registry
        self._labels = AdapterLabels(max_adapters, always=() if base is None else (base,))
        self._series: dict[str, _AdapterSeries] = {}
        self._codes = frozenset(error.code for error in classes())
        self._before_scrape: list[Callable[[], None]] = []

        self._requests = table.REQUESTS.counter(registry)
        self._request_errors = table.REQUEST_ERRORS.counter(registry)
        self._duration = table.REQUEST_DURATION.histogram(registry)
        self._queue = table.REQUEST_QUEUE.histogram(registry)
        self._ttft = table.TTFT.histogram(registry)
        self._tpot = table.TPOT.histogram(registry)
        self._prompt_tokens = table.PROMPT_TOKENS.counter(registry)
        self._completion_tokens = table.COMPLETION_TOKENS.counter(registry)
        self._versions = VersionSeries(registry)
        self._tgi = TgiSeries(registry)
        self._load = table.ADAPTER_LOAD.histogram(registry)
        self._evictions = table.ADAPTER_EVICTIONS.counter(registry)
        self._eviction_seconds = table.ADAPTER_EVICTION_SECONDS.histogram(registry)
        self.tiers = TierGauges(registry, self._labels)
        self._live_version = table.ADAPTER_LIVE_VERSION.gauge(registry)
        self._restarts = table.ENGINE_RESTARTS.counter(registry)
        self._worker_restarts = table.WORKER_RESTARTS.counter(registry)
        self._replica_state = table.REPLICA_STATE.gauge(registry)
        self._replicas_wanted = table.REPLICAS_WANTED.gauge(registry)
        self._outstanding = table.REQUESTS_OUTSTANDING.gauge(registry)
        self._queued = table.REQUESTS_QUEUED.gauge(registry)
        self._states: dict[str, set[str]] = {}
        table.BUILD_INFO.gauge(registry).labels(version).set(1)

    def record(self, record: RequestRecord) -> None:
        """Count a finished request. Its `adapter` must be one that exists, never a name as a caller sent it."""
        label = self._labels.label(record.adapter)
        series = self._series.get(label)
        if series is None:
            series = self._series[label] = _AdapterSeries(self, label)
        series.count(record)
        self._versions.count(record)
        self._tgi.count(record)
        if record.error_code is not None:
            self._request_errors.labels(record.error_code if record.error_code in self._codes else OTHER).inc()

    def adapter_loaded(self, source: Tier, target: Tier, outcome: LoadOutcome, seconds: float) -> None:
        """An adapter moved up from `source` to `target`, or failed to."""
        self._load.labels(f"{source}_{target}", outcome).observe(seconds)

    def adapter_evicted(self, tier: Tier, reason: str, seconds: float | None = None) -> None:
        """An adapter left `tier`. `reason` is a fixed word of the code, such as `lru` or `deleted`."""
        self._evictions.labels(tier, reason).inc()
        if seconds is not None:
            self._eviction_seconds.labels(tier).observe(seconds)

    def live_versions(self, live: Mapping[str, int | None], canaries: Mapping[str, int] | None = None) -> None:
        """The registry has just these adapters, with these versions live and these as canaries, oldest adapter
        first: so every gateway process over one registry gives labels to the same ones. Those that the registry has
        no more are forgotten, and so a late request of a deleted adapter can not keep its label."""
        canary_of = canaries or {}
        for gone in self._labels.own() - live.keys():
            self.forget(gone)
        for adapter, number in live.items():
            if self._labels.label(adapter) == OTHER:
                continue
            if number is None:
                self._live_version.remove_by_labels({"adapter": adapter})
            else:
                self._live_version.labels(adapter).set(number)
        self._versions.serving(
            {
                adapter: [each for each in (live[adapter], canary_of.get(adapter)) if each is not None]
                for adapter in self._labels.own() & live.keys()
            }
        )

    def forget(self, adapter: str) -> None:
        """The adapter was deleted: its series end, and its label is free for another."""
        if not self._labels.forget(adapter):
            return
        self._series.pop(adapter, None)
        self._versions.forget(adapter)
        for metric in (
            self._requests,
            self._duration,
            self._queue,
            self._ttft,
            self._tpot,
            self._prompt_tokens,
            self._completion_tokens,
            self._live_version,
            self._queued,
        ):
            metric.remove_by_labels({"adapter": adapter})

    def queued(self, waiting: Mapping[str, int]) -> None:
        """How many requests wait now, by adapter; none for those that are not named."""
        sums: dict[str, int] = {}
        for adapter, number in waiting.items():
            label = self._labels.label(adapter)
            sums[label] = sums.get(label, 0) + number
        self._queued.clear()
        for label, number in sums.items():
            self._queued.labels(label).set(number)
        self._tgi.queued(sum(sums.values()))

    def engine_restarted(self, replica: str) -> None:
        self._restarts.labels(replica).inc()

    def worker_restarted(self, worker: int) -> None:
        self._worker_restarts.labels(str(worker)).inc()

    def replica_state(self, replica: str, state: str) -> None:
        """`state` is one of the fleet's fixed words."""
        seen = self._states.setdefault(replica, set())
        seen.add(state)
        for other in seen:
            self._replica_state.labels(replica, other).set(1 if other == state else 0)

    def replicas_wanted(self, number: int) -> None:
        self._replicas_wanted.set(number)

    def outstanding(self, replica: str, requests: int) -> None:
        self._outstanding.labels(replica).set(requests)
        self._tgi.outstanding(replica, requests)

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Have `refresh` called at each scrape, to set gauges of what is cheaper to read than to follow."""
        self._before_scrape.append(refresh)

    def expose(self) -> bytes:
        """The body of `/metrics`, of type `CONTENT_TYPE`."""
        for refresh in self._before_scrape:
            refresh()
        return generate_latest(_WithoutCreated(self._registry))


class _WithoutCreated(Collector):
    """A registry without the `_created` series, which double the counters and which nothing here asks for. (The
    library can only switch them off for the whole process.)"""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _AdapterSeries:
    """The series of one adapter label, looked up once."""

    def __init__(self, metrics: Metrics, label: str) -> None:
        self._label = label
        self._requests = metrics._requests
        self._by_end: dict[tuple[str, str, int], Count] = {}
        self._duration = metrics._duration.labels(label)
        self._queue = metrics._queue.labels(label)
        self._ttft = metrics._ttft.labels(label)
        self._tpot = metrics._tpot.labels(label)
        self._prompt_tokens = metrics._prompt_tokens.labels(label)
        self._completion_tokens = metrics._completion_tokens.labels(label)

    def count(self, record: RequestRecord) -> None:
        end = (record.endpoint, record.outcome, record.status)
        requests = self._by_end.get(end)
        if requests is None:
            requests = self._by_end[end] = self._requests.labels(self._label, *end)
        requests.value += 1
        if record.queue_s is not None:
            self._queue.observe(record.queue_s)
        if record.prompt_tokens > 0:
            self._prompt_tokens.value += record.prompt_tokens
        if record.completion_tokens > 0:
            self._completion_tokens.value += record.completion_tokens
        whole = record.outcome == "ok"
        if whole:
            self._duration.observe(record.duration_s)
        if record.streamed and record.ttft_s is not None and record.outcome in _ANSWER_BEGAN:
            self._ttft.observe(record.ttft_s)
            if whole and record.completion_tokens >= 2:
                self._tpot.observe((record.duration_s - record.ttft_s) / (record.completion_tokens - 1))
