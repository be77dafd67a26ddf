"""A flood on one adapter: the others are served, and what does not fit is told when to come back."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conftest import DEMO
from tests.fixtures.gateway import GatewayProcess, eventually
from tests.fixtures.vllm import RealVllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

FLOOD = 20
PLACES = 2


@pytest.fixture(scope="module")
def narrow(vllm: RealVllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway that lets two requests at a time to the engine, and lets as many of one adapter wait as are needed
    to be full."""
    process = GatewayProcess(
        tmp_path_factory.mktemp("home"),
        "--demo",
        str(DEMO),
        LORAMUX_ENGINE__URLS=vllm.url,
        LORAMUX_ADMISSION__MAX_CONCURRENT=str(PLACES),
        LORAMUX_ADMISSION__MAX_QUEUE_PER_ADAPTER=str(FLOOD - PLACES),
        LORAMUX_ADMISSION__QUEUE_TIMEOUT_S="300",
    )
    with process:
        process.wait_for_adapters("pirate", "shop-sql", "ticket-json")
        yield process


def test_a_flood_on_one_adapter_starves_no_other(narrow: GatewayProcess) -> None:
    statuses: list[int] = []
    body = {
        "model": "pirate",
        "messages": [{"role": "user", "content": "How do I make tea?"}],
        "max_tokens": 24,
        "ignore_eos": True,
    }

    def flood() -> None:
        with narrow.client(300.0) as client:
            statuses.append(client.post("/v1/chat/completions", json=body).status_code)

    callers = [threading.Thread(target=flood) for _ in range(FLOOD)]
    for caller in callers:
        caller.start()
    waiting = f'loramux_requests_queued{{adapter="pirate"}} {FLOOD - PLACES}.0'
    eventually(lambda: waiting in httpx.get(f"{narrow.url}/metrics").text)

    with narrow.client() as client:
        refused = client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "queue_full"
    assert int(refused.headers["retry-after"]) >= 1

    assert narrow.ask("shop-sql", "How many customers live in Lyon?", max_tokens=8).startswith("SELECT")
    answered_before_it = len(statuses)
    assert answered_before_it <= 2 * PLACES
    for caller in callers:
        caller.join(300)
    assert statuses == [200] * FLOOD
    print(f"answered after {answered_before_it} of the {FLOOD} that had come before it")
