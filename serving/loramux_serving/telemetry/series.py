"""Counters and histograms that cost little where they are counted.

The client library's own take a lock and check themselves each time; a request counts eight of them, and that is a tenth
of its time in the gateway. These are for one event loop, and are turned into the library's samples when they are
scraped.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

_Child = TypeVar("_Child", "Count", "Distribution")


class _Spec(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def help(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...


class Count:
    """One counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        self.value += amount


class Distribution:
    """One histogram. `bounds` are the upper bounds of its buckets, without infinity."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, amount: float) -> None:
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative buckets, and the sum."""
        buckets, total = [], 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            buckets.append((f"{float(bound)}" if bound < float("inf") else "+Inf", float(total)))
        return buckets, self._sum


class _Family(Collector, Generic[_Child]):
    """One metric, by its labels."""

    def __init__(self, spec: _Spec, make: Callable[[], _Child], registry: CollectorRegistry) -> None:
        self._spec = spec
        self._make: Callable[[], _Child] = make
        self._children: dict[tuple[str, ...], _Child] = {}
        registry.register(self)

    def labels(self, *values: object) -> _Child:
        """The child of these labels, in the order of the specification; it may be kept until it is removed."""
        key = tuple([str(value) for value in values])
        child = self._children.get(key)
        if child is None:
            assert len(key) == len(self._spec.labels), f"{self._spec.name} has the labels {self._spec.labels}"
            child = self._children[key] = self._make()
        return child

    def remove_by_labels(self, labels: Mapping[str, str]) -> None:
        """All children that have these labels."""
        places = [(self._spec.labels.index(name), value) for name, value in labels.items()]
        for key in [key for key in self._children if all(key[place] == value for place, value in places)]:
            del self._children[key]


class Counts(_Family[Count]):
    """A counter with labels. Its name ends with `_total`; one that does not is told as of no kind, since the library
    would name it so."""

    def __init__(self, spec: _Spec, registry: CollectorRegistry) -> None:
        super().__init__(spec, Count, registry)

    def collect(self) -> Iterator[Metric]:
        plain, total, _ = self._spec.name.partition("_total")
        make = CounterMetricFamily if total else UnknownMetricFamily
        family = make(plain, self._spec.help, labels=self._spec.labels)
        for key, child in self._children.items():
            family.add_metric(key, child.value)
        yield family


class Distributions(_Family[Distribution]):
    """A histogram with labels."""

    def __init__(self, spec: _Spec, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        super().__init__(spec, lambda: Distribution(bounds), registry)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._spec.name, self._spec.help, labels=self._spec.labels)
        for key, child in self._children.items():
            buckets, total = child.told()
            family.add_metric(key, buckets=buckets, sum_value=total)
        yield family
