"""Inference requests in the names of TGI's metrics, for dashboards that were made for it. Of all doors together, as
TGI counts all of its own, and without labels but the one that TGI has."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from loramux_serving.relay.record import Outcome, RequestRecord
from loramux_serving.telemetry import metric_table as table

_FAILURES: Mapping[Outcome, str] = {
    "client_error": "validation",
    "rejected": "overloaded",
    "engine_error": "generation",
    "interrupted": "incomplete",
    "cancelled": "dropped",
}
"""TGI's word for each way to fail."""
_NOT_TGIS = frozenset({"unauthenticated", "forbidden"})
"""Who is not let in, TGI does not count."""


class TgiSeries:
    """One event loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = table.TGI_COUNT.counter(registry).labels()
        self._success = table.TGI_SUCCESS.counter(registry).labels()
        failure = table.TGI_FAILURE.counter(registry)
        self._failures = {outcome: failure.labels(err) for outcome, err in _FAILURES.items()}
        self._duration = table.TGI_DURATION.histogram(registry).labels()
        self._queue = table.TGI_QUEUE_DURATION.histogram(registry).labels()
        self._inference = table.TGI_INFERENCE_DURATION.histogram(registry).labels()
        self._per_token = table.TGI_TIME_PER_TOKEN.histogram(registry).labels()
        self._input_length = table.TGI_INPUT_LENGTH.histogram(registry).labels()
        self._generated = table.TGI_GENERATED_TOKENS.histogram(registry).labels()
        self._queue_size = table.TGI_QUEUE_SIZE.gauge(registry)
        self._batch_size = table.TGI_BATCH_SIZE.gauge(registry)
        self._at_replicas: dict[str, int] = {}

    def count(self, record: RequestRecord) -> None:
        """A finished request."""
        if record.error_code in _NOT_TGIS:
            return
        self._count.value += 1
        if record.outcome != "ok":
            self._failures[record.outcome].value += 1
            return
        self._success.value += 1
        queue_s = record.queue_s or 0.0
        inference_s = max(0.0, record.duration_s - queue_s)
        self._duration.observe(record.duration_s)
        self._queue.observe(queue_s)
        self._inference.observe(inference_s)
        if record.prompt_tokens:
            self._input_length.observe(record.prompt_tokens)
        if record.completion_tokens:
            self._generated.observe(record.completion_tokens)
            self._per_token.observe(inference_s / record.completion_tokens)

    def queued(self, waiting: int) -> None:
        self._queue_size.set(waiting)

    def outstanding(self, replica: str, requests: int) -> None:
        self._at_replicas[replica] = requests
        self._batch_size.set(sum(self._at_replicas.values()))
