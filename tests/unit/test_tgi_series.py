"""TGI's names of what happened, as its dashboards read them."""

import pytest
from prometheus_client import CollectorRegistry

from loramux_serving.relay.record import Outcome, RequestRecord
from loramux_serving.telemetry.metrics import Metrics


def made() -> Metrics:
    return Metrics(CollectorRegistry(), max_adapters=4, version="0")


def record(outcome: Outcome = "ok", error_code: str | None = None) -> RequestRecord:
    return RequestRecord("r", "/generate", "k", "tone", 1, "one", 200, outcome, False, 2.5, 0.5, None, 8, 4, error_code)


def scraped(metrics: Metrics) -> dict[str, float]:
    lines = metrics.expose().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line.startswith("tgi_"))}


def test_what_is_answered() -> None:
    metrics = made()
    metrics.record(record())

    found = scraped(metrics)
    assert (found["tgi_request_count"], found["tgi_request_success"]) == (1, 1)
    assert (found["tgi_request_duration_sum"], found["tgi_request_queue_duration_sum"]) == (2.5, 0.5)
    assert found["tgi_request_inference_duration_sum"] == 2.0
    assert found["tgi_request_mean_time_per_token_duration_sum"] == 0.5
    assert (found["tgi_request_input_length_sum"], found["tgi_request_generated_tokens_sum"]) == (8, 4)


@pytest.mark.parametrize(
    ("outcome", "err"),
    [
        ("client_error", "validation"),
        ("rejected", "overloaded"),
        ("engine_error", "generation"),
        ("interrupted", "incomplete"),
        ("cancelled", "dropped"),
    ],
)
def test_what_fails(outcome: Outcome, err: str) -> None:
    metrics = made()
    metrics.record(record(outcome, "queue_full"))

    found = scraped(metrics)
    assert (found["tgi_request_count"], found["tgi_request_success"]) == (1, 0)
    assert found[f'tgi_request_failure{{err="{err}"}}'] == 1
    assert found["tgi_request_duration_count"] == 0


def test_who_is_not_let_in_is_not_counted() -> None:
    metrics = made()
    metrics.record(record("rejected", "unauthenticated"))

    assert scraped(metrics)["tgi_request_count"] == 0


def test_what_waits_and_runs_now() -> None:
    metrics = made()
    metrics.queued({"a": 2, "b": 3})
    metrics.outstanding("one", 4)
    metrics.outstanding("two", 1)

    found = scraped(metrics)
    assert (found["tgi_queue_size"], found["tgi_batch_current_size"]) == (5, 5)


def test_it_is_told_as_tgi_tells_it() -> None:
    text = made().expose().decode()

    assert "tgi_request_count 0.0\n" in text
    assert "tgi_request_count_total" not in text
