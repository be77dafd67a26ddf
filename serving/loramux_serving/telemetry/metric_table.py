"""Every metric once: name, kind, labels, unit and help. `docs/metrics.md` tells of them all, and a test fails where
it does not.

Names follow Prometheus' rules: seconds and bytes, `_total` for what only grows. What labels can hold is bounded:
`adapter` by `metrics.max_adapters`, the others by what the gateway itself says, never by what a caller sends.
"""

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Gauge

from loramux_serving.telemetry.series import Counts, Distributions


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """`name` is the whole name, as it is scraped; `buckets` are upper bounds (histograms only)."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    unit: str
    help: str
    buckets: tuple[float, ...] = ()

    def counter(self, registry: CollectorRegistry) -> Counts:
        return Counts(self, registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        return Gauge(self.name, self.help, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Distributions:
        return Distributions(self, self.buckets, registry)


_REQUEST_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_QUEUE_S = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TTFT_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 30, 60)
_TPOT_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.4, 0.8, 2)
_LOAD_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""From a copy into a slot to a fetch from far away."""

_TGI_S = tuple(0.0001 * 1.5**power for power in range(1, 36))
"""TGI's own buckets."""
_TGI_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)

REQUESTS = MetricSpec(
    "loramux_requests_total",
    "counter",
    ("adapter", "endpoint", "outcome", "status"),
    "requests",
    "Inference requests that ended, by how they ended.",
)
REQUEST_ERRORS = MetricSpec(
    "loramux_request_errors_total",
    "counter",
    ("code",),
    "requests",
    "Inference requests that ended in an error, by its code.",
)
REQUEST_DURATION = MetricSpec(
    "loramux_request_duration_seconds",
    "histogram",
    ("adapter",),
    "seconds",
    "Time from a request's end to the last byte of its answer, of requests that were answered whole.",
    _REQUEST_S,
)
REQUEST_QUEUE = MetricSpec(
    "loramux_request_queue_seconds",
    "histogram",
    ("adapter",),
    "seconds",
    "Time in the queue of requests that came to a place, 0 for those that did not wait.",
    _QUEUE_S,
)
TTFT = MetricSpec(
    "loramux_time_to_first_token_seconds",
    "histogram",
    ("adapter",),
    "seconds",
    "Time from a request's end to the first byte of its streamed answer.",
    _TTFT_S,
)
TPOT = MetricSpec(
    "loramux_time_per_output_token_seconds",
    "histogram",
    ("adapter",),
    "seconds",
    "Mean time between the tokens of a streamed answer of two tokens or more.",
    _TPOT_S,
)
PROMPT_TOKENS = MetricSpec(
    "loramux_prompt_tokens_total", "counter", ("adapter",), "tokens", "Tokens of prompts, as the engine counted them."
)
COMPLETION_TOKENS = MetricSpec(
    "loramux_completion_tokens_total",
    "counter",
    ("adapter",),
    "tokens",
    "Tokens of answers, as the engine counted them.",
)
VERSION_REQUESTS = MetricSpec(
    "loramux_version_requests_total",
    "counter",
    ("adapter", "version", "outcome"),
    "requests",
    "Inference requests that came to a version, by how they ended.",
)
VERSION_DURATION = MetricSpec(
    "loramux_version_request_duration_seconds",
    "histogram",
    ("adapter", "version"),
    "seconds",
    "Time from a request's end to the last byte of its answer, of requests that a version answered whole.",
    _REQUEST_S,
)
VERSION_TTFT = MetricSpec(
    "loramux_version_time_to_first_token_seconds",
    "histogram",
    ("adapter", "version"),
    "seconds",
    "Time from a request's end to the first byte of a version's streamed answer.",
    _TTFT_S,
)
ADAPTER_LOAD = MetricSpec(
    "loramux_adapter_load_seconds",
    "histogram",
    ("transition", "outcome"),
    "seconds",
    "Time to move an adapter up, from one tier to another.",
    _LOAD_S,
)
ADAPTER_EVICTIONS = MetricSpec(
    "loramux_adapter_evictions_total",
    "counter",
    ("tier", "reason"),
    "adapters",
    "Adapters that left a tier, by why.",
)
ADAPTER_EVICTION_SECONDS = MetricSpec(
    "loramux_adapter_eviction_seconds",
    "histogram",
    ("tier",),
    "seconds",
    "Time to free an adapter's weights.",
    _LOAD_S,
)
ADAPTERS_RESIDENT = MetricSpec(
    "loramux_adapters_resident",
    "gauge",
    ("replica", "tier"),
    "adapters",
    "Adapters that a replica holds, each in its best tier, by the engine's own report.",
)
ADAPTERS_PINNED = MetricSpec(
    "loramux_adapters_pinned",
    "gauge",
    ("replica", "tier"),
    "adapters",
    "Adapters that a replica's engine keeps in a tier or above, by its own report.",
)
TIER_BYTES = MetricSpec(
    "loramux_tier_bytes",
    "gauge",
    ("replica", "tier"),
    "bytes",
    "What the weights of the adapters in a tier take in host memory, by the engine's own report; the disk tier, which "
    "belongs to no replica, on disk.",
)
SLOTS = MetricSpec("loramux_slots", "gauge", ("replica",), "adapters", "Adapters that fit into a replica's GPU slots.")
PLACES = MetricSpec(
    "loramux_places", "gauge", ("replica",), "adapters", "Adapters that fit into a replica's host memory."
)
TIER_REPORT_AGE = MetricSpec(
    "loramux_tier_report_age_seconds",
    "gauge",
    ("replica",),
    "seconds",
    "Age of the report from which a replica's tiers are told.",
)
ADAPTER_TIER = MetricSpec(
    "loramux_adapter_tier",
    "gauge",
    ("adapter", "replica"),
    "0 to 3",
    "Where an adapter's live version is on a replica: 3 in a GPU slot, 2 in host memory, 1 on disk, 0 remote.",
)
ADAPTER_LIVE_VERSION = MetricSpec(
    "loramux_adapter_live_version", "gauge", ("adapter",), "version number", "The version that the name serves."
)
ENGINE_RESTARTS = MetricSpec(
    "loramux_engine_restarts_total", "counter", ("replica",), "restarts", "Engines started again after they had ended."
)
WORKER_RESTARTS = MetricSpec(
    "loramux_worker_restarts_total",
    "counter",
    ("worker",),
    "restarts",
    "Workers of the gateway that ended by themselves and were started again.",
)
REPLICA_STATE = MetricSpec(
    "loramux_replica_state",
    "gauge",
    ("replica", "state"),
    "0 or 1",
    "1 for the state that a replica is in, 0 for those that it was in.",
)
REPLICAS_WANTED = MetricSpec("loramux_replicas_wanted", "gauge", (), "replicas", "Replicas that are meant to run.")
REQUESTS_OUTSTANDING = MetricSpec(
    "loramux_requests_outstanding", "gauge", ("replica",), "requests", "Requests at a replica now."
)
REQUESTS_QUEUED = MetricSpec(
    "loramux_requests_queued", "gauge", ("adapter",), "requests", "Requests that wait for a place now."
)
TGI_COUNT = MetricSpec("tgi_request_count", "counter", (), "requests", "Inference requests that ended.")
TGI_SUCCESS = MetricSpec("tgi_request_success", "counter", (), "requests", "Those that were answered whole.")
TGI_FAILURE = MetricSpec(
    "tgi_request_failure", "counter", ("err",), "requests", "Those that were not, by TGI's word for why."
)
TGI_DURATION = MetricSpec(
    "tgi_request_duration", "histogram", (), "seconds", "Time from a request's end to its answer's.", _TGI_S
)
TGI_QUEUE_DURATION = MetricSpec(
    "tgi_request_queue_duration", "histogram", (), "seconds", "Its time in the gateway's queue.", _TGI_S
)
TGI_INFERENCE_DURATION = MetricSpec(
    "tgi_request_inference_duration", "histogram", (), "seconds", "Its time outside of the queue.", _TGI_S
)
TGI_TIME_PER_TOKEN = MetricSpec(
    "tgi_request_mean_time_per_token_duration",
    "histogram",
    (),
    "seconds",
    "Its time outside of the queue, for each token of its answer.",
    _TGI_S,
)
TGI_INPUT_LENGTH = MetricSpec(
    "tgi_request_input_length", "histogram", (), "tokens", "Tokens of its prompt.", _TGI_TOKENS
)
TGI_GENERATED_TOKENS = MetricSpec(
    "tgi_request_generated_tokens", "histogram", (), "tokens", "Tokens of its answer.", _TGI_TOKENS
)
TGI_QUEUE_SIZE = MetricSpec("tgi_queue_size", "gauge", (), "requests", "Requests that wait for a place now.")
TGI_BATCH_SIZE = MetricSpec("tgi_batch_current_size", "gauge", (), "requests", "Requests at the engines now.")
BUILD_INFO = MetricSpec("loramux_build_info", "gauge", ("version",), "1", "The gateway's version, as a label.")

METRICS = (
    REQUESTS,
    REQUEST_ERRORS,
    REQUEST_DURATION,
    REQUEST_QUEUE,
    TTFT,
    TPOT,
    PROMPT_TOKENS,
    COMPLETION_TOKENS,
    VERSION_REQUESTS,
    VERSION_DURATION,
    VERSION_TTFT,
    ADAPTER_LOAD,
    ADAPTER_EVICTIONS,
    ADAPTER_EVICTION_SECONDS,
    ADAPTERS_RESIDENT,
    ADAPTERS_PINNED,
    TIER_BYTES,
    SLOTS,
    PLACES,
    TIER_REPORT_AGE,
    ADAPTER_TIER,
    ADAPTER_LIVE_VERSION,
    ENGINE_RESTARTS,
    WORKER_RESTARTS,
    REPLICA_STATE,
    REPLICAS_WANTED,
    REQUESTS_OUTSTANDING,
    REQUESTS_QUEUED,
    TGI_COUNT,
    TGI_SUCCESS,
    TGI_FAILURE,
    TGI_DURATION,
    TGI_QUEUE_DURATION,
    TGI_INFERENCE_DURATION,
    TGI_TIME_PER_TOKEN,
    TGI_INPUT_LENGTH,
    TGI_GENERATED_TOKENS,
    TGI_QUEUE_SIZE,
    TGI_BATCH_SIZE,
    BUILD_INFO,
)
