"""One look at a gateway through its HTTP interfaces, for `loramux top`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from loramux_serving.cli.gateway import Fault, Gateway, path_of

View = Mapping[str, Any]
Counts = Mapping[str, float]

_TTFT = "loramux_time_to_first_token_seconds_bucket"
_TOKENS = "loramux_completion_tokens_total"
_LOADS = "loramux_adapter_load_seconds_count"
_LOAD_S = "loramux_adapter_load_seconds_sum"
_EVICTIONS = "loramux_adapter_evictions_total"
_READ = (_TTFT, _TOKENS, _LOADS, _LOAD_S, _EVICTIONS)

_PAGE = 1000
_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What only grows, until the gateway starts again. `ttft` has by adapter how many requests were at or below each
    bound in seconds; `tokens` is by adapter, `loads`, `load_s` and `failed` by transition, `evictions` by tier."""

    ttft: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    tokens: Counts = field(default_factory=dict)
    loads: Counts = field(default_factory=dict)
    load_s: Counts = field(default_factory=dict)
    failed: Counts = field(default_factory=dict)
    evictions: Counts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """`at_s` is of a clock that never goes back; the views are the admin interface's."""

    at_s: float
    replicas: Sequence[View]
    adapters: Sequence[View]
    counters: Counters


def take(gateway: Gateway, at_s: float) -> Sample:
    """Raises `Fault`."""
    replicas = gateway.call("GET", path_of("replicas"), answer_s=_ANSWER_S)["replicas"]
    try:
        counters = parse(gateway.text("/metrics", answer_s=_ANSWER_S))
    except ValueError as error:
        raise Fault(f"The metrics of {gateway.url} can not be read: {error}.") from error
    return Sample(at_s, replicas, _adapters(gateway), counters)


def _adapters(gateway: Gateway) -> list[View]:
    found: list[View] = []
    params: dict[str, str | int] = {"limit": _PAGE}
    while True:
        page = gateway.call("GET", path_of("adapters"), params=params, answer_s=_ANSWER_S)
        found += page["adapters"]
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


def parse(text: str) -> Counters:
    """Of the text of `/metrics`; what is not there is empty. Raises `ValueError` where it can not be read."""
    wanted = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(_READ))
    ttft: dict[str, dict[float, float]] = {}
    sums: dict[str, dict[str, float]] = {name: {} for name in ("tokens", "loads", "load_s", "failed", "evictions")}
    for family in text_string_to_metric_families(wanted):
        for name, labels, value, *_ in family.samples:
            if name == _TTFT:
                ttft.setdefault(labels.get("adapter", ""), {})[float(labels["le"])] = value
            elif name == _TOKENS:
                _add(sums["tokens"], labels.get("adapter", ""), value)
            elif name == _EVICTIONS:
                _add(sums["evictions"], labels["tier"], value)
            elif name == _LOADS:
                _add(sums["loads" if labels["outcome"] == "ok" else "failed"], labels["transition"], value)
            elif name == _LOAD_S and labels["outcome"] == "ok":
                _add(sums["load_s"], labels["transition"], value)
    return Counters(ttft=ttft, **sums)


def _add(sums: dict[str, float], key: str, value: float) -> None:
    sums[key] = sums.get(key, 0.0) + value
