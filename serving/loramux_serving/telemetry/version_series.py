"""Requests by version, for Prometheus: of the versions that names lead to now, so that two can be compared."""

from collections.abc import Collection, Mapping

from prometheus_client import CollectorRegistry

from loramux_serving.relay.record import RequestRecord
from loramux_serving.telemetry import metric_table as table
from loramux_serving.telemetry.adapter_labels import OTHER

_ANSWER_BEGAN = ("ok", "cancelled", "interrupted")


class VersionSeries:
    """An adapter that has a label of its own has one for each version that `serving` names, at most its live one and
    its canary; all others of its versions share `OTHER`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = table.VERSION_REQUESTS.counter(registry)
        self._duration = table.VERSION_DURATION.histogram(registry)
        self._ttft = table.VERSION_TTFT.histogram(registry)
        self._serving: dict[str, frozenset[int]] = {}

    def serving(self, versions: Mapping[str, Collection[int]]) -> None:
        """The adapters that have a label now, with the versions that they serve. The series of all others end."""
        for adapter in self._serving.keys() - versions.keys():
            self.forget(adapter)
        for adapter, numbers in versions.items():
            for gone in self._serving.get(adapter, frozenset()).difference(numbers):
                self._remove({"adapter": adapter, "version": str(gone)})
        self._serving = {adapter: frozenset(numbers) for adapter, numbers in versions.items()}

    def forget(self, adapter: str) -> None:
        if self._serving.pop(adapter, None) is not None:
            self._remove({"adapter": adapter})

    def count(self, record: RequestRecord) -> None:
        if record.adapter is None or record.version is None:
            return
        numbers = self._serving.get(record.adapter)
        if numbers is None:
            return
        labels = (record.adapter, str(record.version) if record.version in numbers else OTHER)
        self._requests.labels(*labels, record.outcome).inc()
        if record.outcome == "ok":
            self._duration.labels(*labels).observe(record.duration_s)
        if record.streamed and record.ttft_s is not None and record.outcome in _ANSWER_BEGAN:
            self._ttft.labels(*labels).observe(record.ttft_s)

    def _remove(self, labels: dict[str, str]) -> None:
        for metric in (self._requests, self._duration, self._ttft):
            metric.remove_by_labels(labels)
