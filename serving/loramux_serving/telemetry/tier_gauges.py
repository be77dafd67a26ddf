"""Where adapters are, for Prometheus: what the engines last reported, set anew at each scrape."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from loramux_adapters.model import Capabilities, Tier, Version
from loramux_serving.telemetry import metric_table as table
from loramux_serving.telemetry.adapter_labels import AdapterLabels
from loramux_serving.whereabouts import Whereabouts, by_tier

GATEWAY = ""
"""The replica of the disk tier, which belongs to none. Prometheus takes an empty label for an absent one."""


class TierGauges:
    """What is not known has no series, and what left has none from the next scrape on."""

    def __init__(self, registry: CollectorRegistry, labels: AdapterLabels) -> None:
        self._labels = labels
        self._resident = table.ADAPTERS_RESIDENT.gauge(registry)
        self._pinned = table.ADAPTERS_PINNED.gauge(registry)
        self._bytes = table.TIER_BYTES.gauge(registry)
        self._slots = table.SLOTS.gauge(registry)
        self._places = table.PLACES.gauge(registry)
        self._age = table.TIER_REPORT_AGE.gauge(registry)
        self._tier = table.ADAPTER_TIER.gauge(registry)

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
                self._tier.labels(adapter, replica).set(Tier.REMOTE.depth - tier.depth)
        self._bytes.labels(GATEWAY, Tier.DISK).set(sum(found.disk.values()))

    def clear(self) -> None:
        """Nothing is known."""
        for gauge in (self._resident, self._pinned, self._bytes, self._slots, self._places, self._age, self._tier):
            gauge.clear()
