"""A flood on one adapter: the others are served, and what does not fit is told when to come back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.e2e.conftest import DEMO
from tests.fixtures.gateway import GatewayProcess, eventually
from tests.fixtures.vllm import RealVllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

FLOOD = 18
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
        LORAMUX_ADMISSION__MAX_QUEUE_PER_ADAPTER=str(FLOOD),
        LORAMUX_ADMISSION__QUEUE_TIMEOUT_S="300",
    )
    with process:
        process.wait_for_adapters("pirate", "shop-sql", "ticket-json")
        yield process


def test_a_flood_on_one_adapter_starves_no_other(narrow: GatewayProcess) -> None:
    body = {"model": "pirate", "messages": [{"role": "user", "content": "How do I make tea?"}], "ignore_eos": True}
    url = "/v1/chat/completions"
    statuses: list[int] = []

    def queued(adapter: str, count: int) -> bool:
        return f'loramux_requests_queued{{adapter="{adapter}"}} {count}.0' in httpx.get(f"{narrow.url}/metrics").text

    with narrow.client(300.0) as client, ThreadPoolExecutor(FLOOD + 1) as callers:
        with ExitStack() as places:
            held = {**body, "max_tokens": 900, "stream": True}
            holders = [places.enter_context(client.stream("POST", url, json=held)).iter_raw() for _ in range(PLACES)]
            for holder in holders:  # each holds a place until the block is left
                next(holder)
            flood = [
                callers.submit(lambda: statuses.append(client.post(url, json={**body, "max_tokens": 24}).status_code))
                for _ in range(FLOOD)
            ]
            eventually(lambda: queued("pirate", FLOOD))

            refused = client.post(url, json={**body, "max_tokens": 24})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "queue_full"
            assert int(refused.headers["retry-after"]) >= 1

            late = callers.submit(narrow.ask, "shop-sql", "How many customers live in Lyon?", max_tokens=8)
            eventually(lambda: queued("shop-sql", 1))
        assert late.result(300).startswith("SELECT")
        answered_before_it = len(statuses)
        for caller in flood:
            caller.result(300)
    assert answered_before_it <= 2 * PLACES
    assert statuses == [200] * FLOOD
    print(f"answered after {answered_before_it} of the {FLOOD} that had come before it")
