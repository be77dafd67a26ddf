"""Where adapters are, for Prometheus: what the engines last reported, set anew at each scrape."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from loramux_adapters.model import Capabilities, Tier, Version
from loramux_serving.telemetry import metric_table as table
from loramux_serving.telemetry.adapter_labels import AdapterLabels
from loramux_serving.telemetry.metric_table import MetricSpec
from loramux_serving.whereabouts import Whereabouts, by_tier

_NEARNESS = {Tier.REMOTE: 0, Tier.DISK: 1, Tier.CPU: 2, Tier.GPU: 3}

GATEWAY = ""
"""The replica of the disk tier, which belongs to none. Prometheus takes an empty label for an absent one."""


class TierGauges:
    """What is not known has no series, and what left has none from the next scrape on."""

    def __init__(self, registry: CollectorRegistry, labels: AdapterLabels) -> None:
        self._labels = labels
        self._resident = _gauge(table.ADAPTERS_RESIDENT, registry)
        self._pinned = _gauge(table.ADAPTERS_PINNED, registry)
        self._bytes = _gauge(table.TIER_BYTES, registry)
        self._slots = _gauge(table.SLOTS, registry)
        self._places = _gauge(table.PLACES, registry)
        self._age = _gauge(table.TIER_REPORT_AGE, registry)
        self._tier = _gauge(table.ADAPTER_TIER, registry)

    def show(self, found: Whereabouts, able: Mapping[str, Capabilities], live: Mapping[str, Version]) -> None:
        """`able` has what each replica's engine can do, `live` each adapter's live version."""
        self.clear()
        for replica, held in found.held.items():
            self._age.labels(replica).set(held.age_s)
            for tier, occupancy in by_tier(held.residents).items():
                self._resident.labels(replica, tier).set(occupancy.used)
                self._pinned.labels(replica, tier).set(occupancy.pinned)
                self._bytes.labels(replica, tier).set(occupancy.size_bytes)
            if replica in able:
                self._slots.labels(replica).set(able[replica].max_loras)
                self._places.labels(replica).set(able[replica].max_cpu_loras)
        for adapter in self._labels.own() & live.keys():
            for replica, tier in found.tiers(live[adapter]).items():
                self._tier.labels(adapter, replica).set(_NEARNESS[tier])
        self._bytes.labels(GATEWAY, Tier.DISK).set(sum(found.disk.values()))

    def clear(self) -> None:
        """Nothing is known."""
        for gauge in (self._resident, self._pinned, self._bytes, self._slots, self._places, self._age, self._tier):
            gauge.clear()


def _gauge(spec: MetricSpec, registry: CollectorRegistry) -> Gauge:
    return Gauge(spec.name, spec.help, spec.labels, registry=registry)
