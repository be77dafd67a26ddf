"""Counters and histograms of our own, against the client library's."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from loramux_serving.telemetry.metric_table import MetricSpec

_BOUNDS = (0.001, 0.01, 0.5, 1, 2.5, 40)
_COUNTER = MetricSpec("things_total", "counter", ("kind", "end"), "things", "Things that were.")
_HISTOGRAM = MetricSpec("thing_seconds", "histogram", ("kind",), "seconds", "How long they were.", _BOUNDS)
_KINDS = st.sampled_from(["a", 'b"', "c\\\n"])


def exposed(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(st.lists(st.tuples(_KINDS, st.sampled_from([0.001, 0.5, 3.0]) | st.floats(0, 100))))
def test_they_are_exposed_as_the_librarys(seen: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts, spread = _COUNTER.counter(ours), _HISTOGRAM.histogram(ours)
    their_counts = Counter(_COUNTER.name, _COUNTER.help, _COUNTER.labels, registry=theirs)
    their_spread = Histogram(_HISTOGRAM.name, _HISTOGRAM.help, _HISTOGRAM.labels, registry=theirs, buckets=_BOUNDS)
    for kind, amount in seen:
        counts.labels(kind, 200).inc()
        counts.labels(kind, 500).inc(amount)
        spread.labels(kind).observe(amount)
        their_counts.labels(kind, 200).inc()
        their_counts.labels(kind, 500).inc(amount)
        their_spread.labels(kind).observe(amount)
    assert exposed(ours) == exposed(theirs)


def test_all_children_of_a_label_go() -> None:
    registry = CollectorRegistry()
    counts = _COUNTER.counter(registry)
    for kind, end in (("a", "1"), ("a", "2"), ("b", "1")):
        counts.labels(kind, end).inc()
    counts.remove_by_labels({"kind": "a"})
    assert [line for line in exposed(registry) if not line.startswith("#")] == ['things_total{end="1",kind="b"} 1.0']
