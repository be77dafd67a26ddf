"""Requests by version, for Prometheus: of the versions that names lead to now, so that two can be compared."""

from collections.abc import Collection, Mapping

from prometheus_client import CollectorRegistry

from loramux_serving.relay.record import RequestRecord
from loramux_serving.telemetry import metric_table as table
from loramux_serving.telemetry.adapter_labels import OTHER
from loramux_serving.telemetry.series import Count, Counts, Distribution, Distributions

_ANSWER_BEGAN = ("ok", "cancelled", "interrupted")


class VersionSeries:
    """An adapter that has a label of its own has one for each version that `serving` names, at most its live one and
    its canary; all others of its versions share `OTHER`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = table.VERSION_REQUESTS.counter(registry)
        self._duration = table.VERSION_DURATION.histogram(registry)
        self._ttft = table.VERSION_TTFT.histogram(registry)
        self._serving: dict[str, frozenset[int]] = {}
        self._looked_up: dict[tuple[str, int], _Version] = {}

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
        version = self._looked_up.get((record.adapter, record.version))
        if version is None:
            numbers = self._serving.get(record.adapter)
            if numbers is None:
                return
            label = str(record.version) if record.version in numbers else OTHER
            version = _Version(self._requests, self._duration, self._ttft, record.adapter, label)
            if label != OTHER:
                self._looked_up[record.adapter, record.version] = version
        version.count(record)

    def _remove(self, labels: dict[str, str]) -> None:
        for metric in (self._requests, self._duration, self._ttft):
            metric.remove_by_labels(labels)
        self._looked_up.clear()


class _Version:
    """The series of one version, looked up once."""

    def __init__(
        self, requests: Counts, duration: Distributions, ttft: Distributions, adapter: str, label: str
    ) -> None:
        self._requests = requests
        self._adapter = adapter
        self._label = label
        self._by_outcome: dict[str, Count] = {}
        self._duration: Distribution | None = None
        self._ttft: Distribution | None = None
        self._durations = duration
        self._ttfts = ttft

    def count(self, record: RequestRecord) -> None:
        requests = self._by_outcome.get(record.outcome)
        if requests is None:
            requests = self._requests.labels(self._adapter, self._label, record.outcome)
            self._by_outcome[record.outcome] = requests
        requests.value += 1
        if record.outcome == "ok":
            if self._duration is None:
                self._duration = self._durations.labels(self._adapter, self._label)
            self._duration.observe(record.duration_s)
        if record.streamed and record.ttft_s is not None and record.outcome in _ANSWER_BEGAN:
            if self._ttft is None:
                self._ttft = self._ttfts.labels(self._adapter, self._label)
            self._ttft.observe(record.ttft_s)
