"""What is kept of a page of metrics, and how a scraper takes an endpoint's faults."""

import json
import threading

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from loramux_bench.admin.answers import AdapterView
from loramux_bench.admin.client import AdminClient
from loramux_bench.admin.metrics_page import read_page
from loramux_bench.admin.scrape import Scraper, best_tier
from loramux_bench.run_dir import Sample
from loramux_bench.scenario import Scrape


def page() -> str:
    registry = CollectorRegistry()
    Gauge("loramux_requests_outstanding", "x", ["replica"], registry=registry).labels("engine-0").set(3)
    Counter("loramux_requests", "x", ["adapter"], registry=registry).labels('odd "name"\\').inc(2)
    histogram = Histogram("loramux_request_duration_seconds", "x", ["adapter"], registry=registry)
    histogram.labels("pirate").observe(0.25)
    Gauge("vllm:num_requests_running", "x", registry=registry).set(4)
    Gauge("process_resident_memory_bytes", "x", registry=registry).set(1000)
    Gauge("python_gc_objects", "x", registry=registry).set(5)
    return generate_latest(registry).decode()


def test_a_page_keeps_gauges_counters_sums_and_counts() -> None:
    assert read_page(page()) == (
        {
            'loramux_requests_outstanding{replica="engine-0"}': 3.0,
            'loramux_requests_total{adapter="odd \\"name\\"\\\\"}': 2.0,
            'loramux_request_duration_seconds_sum{adapter="pirate"}': 0.25,
            'loramux_request_duration_seconds_count{adapter="pirate"}': 1.0,
            "vllm:num_requests_running": 4.0,
            "process_resident_memory_bytes": 1000.0,
        },
        0,
    )


def test_series_of_one_adapter_are_left_out_first() -> None:
    found, dropped = read_page(page(), limit=4)
    assert dropped == 2
    assert len(found) == 4
    assert {"vllm:num_requests_running", "process_resident_memory_bytes"} <= found.keys()


@pytest.mark.parametrize("text", ["<!DOCTYPE html><html>loramux_</html>", 'loramux_x{a="1} 3\n', "loramux_x three\n"])
def test_what_is_no_page(text: str) -> None:
    with pytest.raises(ValueError):
        read_page(text)


@pytest.mark.parametrize(
    ("tiers", "expected"),
    [({"a": "disk", "b": "gpu"}, "gpu"), ({"a": "remote", "b": "disk"}, "disk"), ({}, "remote")],
)
def test_the_best_tier_counts(tiers: dict[str, str], expected: str) -> None:
    assert best_tier(AdapterView(name="x", state="ready", tiers=tiers)) == expected


class Endpoint:
    """Answers by path; an answer that is missing is a 404. `took_s` is how long a path takes, on `timer`."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str]] = {
            "/metrics": (200, page()),
            "/admin/v1/replicas": (200, json.dumps({"replicas": [{"id": "engine-0", "state": "ready"}]})),
            "/admin/v1/adapters": (
                200,
                json.dumps(
                    {
                        "adapters": [{"name": "pirate", "state": "ready", "tiers": {"engine-0": "cpu"}}],
                        "next_cursor": None,
                    }
                ),
            ),
        }
        self.asked: list[str] = []
        self.took_s: dict[str, float] = {}
        self.now_s = 0.0

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        self.now_s += self.took_s.get(request.url.path, 0.0)
        status, text = self.answers.get(request.url.path, (404, "{}"))
        return httpx.Response(status, text=text)

    def now(self) -> float:
        return self.now_s

    def scraper(self, samples: list[Sample], **scrape: object) -> Scraper:
        client = AdminClient("http://endpoint", "", transport=httpx.MockTransport(self.answer))
        rules = Scrape.model_validate(scrape)
        return Scraper(client, rules, admin=True, keep=samples.append, now=self.now, timer=self.now)


class Ticking:
    """A stop whose waiting moves the endpoint's clock."""

    def __init__(self, endpoint: Endpoint, until_s: float) -> None:
        self._endpoint = endpoint
        self._until_s = until_s

    def is_set(self) -> bool:
        return self._endpoint.now_s >= self._until_s

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self._endpoint.now_s += timeout
        return self.is_set()


def test_a_sample_has_all_parts() -> None:
    sample = Endpoint().scraper([]).sample()
    assert sample.tiers == {"pirate": "cpu"}
    assert sample.replicas == {"engine-0": "ready"}
    assert sample.metrics is not None
    assert sample.metrics["vllm:num_requests_running"] == 4.0


def test_a_part_that_fails_is_none_and_asked_again() -> None:
    endpoint = Endpoint()
    scraper = endpoint.scraper([])
    good = endpoint.answers
    endpoint.answers = dict.fromkeys(good, (500, "broken"))
    assert scraper.sample() == Sample(at_s=0.0)
    endpoint.answers = dict.fromkeys(good, (200, "<html>"))
    assert scraper.sample() == Sample(at_s=0.0)
    endpoint.answers = good
    sample = scraper.sample()
    assert None not in (sample.metrics, sample.tiers, sample.replicas)
    # What was there once may be so again.
    endpoint.answers = {}
    assert scraper.sample() == Sample(at_s=0.0)
    endpoint.answers = good
    assert scraper.sample().metrics is not None


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_is_not_there_is_not_asked_again(status: int) -> None:
    endpoint = Endpoint()
    endpoint.answers = dict.fromkeys(endpoint.answers, (status, "{}"))
    scraper = endpoint.scraper([])
    scraper.sample()
    asked = len(endpoint.asked)
    scraper.sample()
    assert asked == 3
    assert len(endpoint.asked) == 3


def test_what_the_scenario_does_not_want_is_not_asked() -> None:
    endpoint = Endpoint()
    endpoint.scraper([], admin=False).sample()
    assert endpoint.asked == ["/metrics"]


def test_a_slow_scrape_does_not_pile_up() -> None:
    endpoint = Endpoint()
    endpoint.took_s = {"/metrics": 2.5}
    samples: list[Sample] = []
    endpoint.scraper(samples, admin=False).run(Ticking(endpoint, 10.0))
    assert [sample.at_s for sample in samples] == [2.5, 5.5, 8.5, 11.5], "when it had come"


def test_a_long_list_is_asked_for_less_often() -> None:
    endpoint = Endpoint()
    endpoint.took_s = {"/admin/v1/replicas": 0.05, "/admin/v1/adapters": 0.15}
    samples: list[Sample] = []
    scraper = endpoint.scraper(samples)
    scraper.run(Ticking(endpoint, 20.0))
    assert len(samples) == 20
    # It costs 0.1 s more than a short answer: 2 % of the time is one in 5 s.
    assert [round(sample.at_s) for sample in samples if sample.tiers] == [0, 6, 12, 18]
    assert "less often" in scraper.notes[0]
    assert "5.0 s" in scraper.notes[0]


def test_a_list_that_is_slow_once_is_asked_for_as_often() -> None:
    """The machine is busy with the load then: the list itself costs what it cost before."""
    endpoint = Endpoint()
    samples: list[Sample] = []
    scraper = endpoint.scraper(samples)
    scraper.sample()
    endpoint.took_s = {"/admin/v1/replicas": 0.01, "/admin/v1/adapters": 0.4}
    scraper.run(Ticking(endpoint, 5.0))
    assert all(sample.tiers for sample in samples)
    assert scraper.notes == ()


def test_a_short_list_is_in_every_sample() -> None:
    endpoint = Endpoint()
    endpoint.took_s = {"/admin/v1/replicas": 0.04, "/admin/v1/adapters": 0.05}
    samples: list[Sample] = []
    scraper = endpoint.scraper(samples)
    scraper.run(Ticking(endpoint, 5.0))
    assert all(sample.tiers for sample in samples)
    assert scraper.notes == ()


def test_a_scraper_that_is_stopped_ends() -> None:
    endpoint = Endpoint()
    samples: list[Sample] = []
    stop = threading.Event()
    runner = threading.Thread(target=endpoint.scraper(samples, every_s=60.0).run, args=(stop,))
    runner.start()
    stop.set()
    runner.join(20)
    assert not runner.is_alive()
