"""What a study's own clients see and do: against the mock, the admin interface's fake, and a port where nobody is."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from loramux_bench.apis.port import Ask
from loramux_bench.errors import EndpointError, NothingMeasured
from loramux_bench.record import RequestRecord
from loramux_bench.studies import cost, slots
from loramux_bench.studies.books import listing_s, memory_bytes, steady
from loramux_bench.studies.draw import asks, prompts
from loramux_bench.studies.figures import figures
from loramux_bench.studies.registration import Registration
from loramux_bench.studies.traffic import Clients, require_answers
from tests.fakes.admin_server import KEY, AdminServer, adapter
from tests.fixtures.gateway import free_port
from tests.fixtures.mock_endpoint import MockEndpoint

TTFT_S, ITL_S = 0.05, 0.01


@pytest.fixture(scope="module")
def mock() -> Iterator[MockEndpoint]:
    with MockEndpoint(ttft=TTFT_S, itl=ITL_S, adapters=4, key="lmx_mock") as endpoint:
        yield endpoint


def loop(url: str, models: list[str], *, clients: int, key: str = "lmx_mock", tokens: int = 6) -> list[RequestRecord]:
    async def asked() -> list[RequestRecord]:
        async with Clients(url, key) as callers:
            wanted = asks(models, prompts(len(models), 16, seed="1"), max_tokens=tokens)
            return list(await callers.loop(wanted, clients))

    return asyncio.run(asked())


class TestClients:
    def test_times_and_tokens_are_those_of_the_endpoint(self, mock: MockEndpoint) -> None:
        (record,) = loop(mock.url, ["mock-1"], clients=1)
        assert record.ok
        assert (record.adapter, record.tokens, len(record.gaps_s)) == ("mock-1", 6, 5)
        assert record.ttft_s is not None
        assert TTFT_S <= record.ttft_s < TTFT_S + 0.5
        assert TTFT_S + 5 * ITL_S <= record.e2e_s < TTFT_S + 5 * ITL_S + 0.5

    def test_a_client_has_one_request_at_a_time(self, mock: MockEndpoint) -> None:
        records = loop(mock.url, ["mock-0", "mock-1", "mock-2"] * 4, clients=3)
        assert [record.adapter for record in records] == ["mock-0", "mock-1", "mock-2"] * 4
        edges = sorted(edge for one in records for edge in ((one.sent_s, 1), (one.end_s, -1)))
        under_way = most = 0
        for _, change in edges:
            under_way += change
            most = max(most, under_way)
        assert most == 3
        assert figures([records]).requests == 12

    def test_what_is_refused_is_an_error_and_the_loop_goes_on(self, mock: MockEndpoint) -> None:
        records = loop(mock.url, ["nobody", "mock-0"], clients=1)
        assert [(record.status, record.ok) for record in records] == [(404, False), (200, True)]
        assert "nobody" in records[0].message
        with pytest.raises(NothingMeasured, match="does not exist"):
            require_answers(records[:1], "The warm-up")

    def test_nobody_there_is_an_error(self) -> None:
        (record,) = loop(f"http://127.0.0.1:{free_port()}", ["a"], clients=1)
        assert (record.error, record.status, record.ttft_s) == ("connect", 0, None)

    def test_an_answer_that_does_not_end_is_cut(self) -> None:
        async def asked(url: str) -> RequestRecord:
            async with Clients(url) as callers:
                return await callers.ask(Ask(model="mock-0", prompt="Hello", max_tokens=100, timeout_s=0.3))

        with MockEndpoint(ttft=0.01, itl=1.0) as slow:
            record = asyncio.run(asked(slow.url))
        assert (record.error, record.chunks) == ("timeout", 1)

    def test_a_stream_that_breaks_is_an_error(self) -> None:
        with MockEndpoint(ttft=0.01, itl=0.01, fault="break") as broken:
            (record,) = loop(broken.url, ["mock-0"], clients=1, tokens=20)
        assert record.error == "broken_stream"


def test_a_study_of_cost_measures_what_the_endpoint_does(mock: MockEndpoint) -> None:
    load = cost.Load(streams=(1, 2), rounds=2, prompt_tokens=16, max_tokens=6)

    async def measured() -> list[cost.Answered]:
        async with Clients(mock.url, "lmx_mock") as callers:
            return await cost.measure(callers, [_here(one) for one in cost.plan(load, "mock-base")])

    rows = cost.rows("mock", asyncio.run(measured()))
    assert [(row.streams, row.kind) for row in rows] == [(1, "adapter"), (2, "adapter"), (2, "mixed")]
    for row in rows:
        assert row.errors == 0
        assert row.e2e.rounds == 2
        assert 0.5 < row.e2e.value < 2
        assert row.ms_a_token == pytest.approx(1000 * ITL_S, rel=0.5)


def _here(batch: cost.Batch) -> cost.Batch:
    """By the names of the mock's adapters."""
    return replace(batch, asks=tuple(replace(ask, model=ask.model.replace("study-000", "mock-")) for ask in batch.asks))


def test_a_study_of_slots_needs_adapters_that_answer(mock: MockEndpoint) -> None:
    load = slots.Load(slots=1, clients=2, requests=4, rounds=1)

    async def measured() -> None:
        async with Clients(mock.url, "lmx_mock") as callers:
            await slots.measure(callers, load, slots.plan(load))

    with pytest.raises(NothingMeasured):
        asyncio.run(measured())


ADAPTERS = {f"study-{number}": Path(f"/adapters/{number}") for number in range(6)}


class TestRegistration:
    def add(self, transport: httpx.AsyncBaseTransport, key: str, *, prefetch: bool = False) -> float:
        async def added() -> float:
            async with Registration("http://gateway", key, transport=transport) as registration:
                length_s = await registration.add(ADAPTERS)
                if prefetch:
                    await registration.prefetch(ADAPTERS, "cpu")
                return length_s

        return asyncio.run(added())

    def test_loramux_is_told_where_they_are(self) -> None:
        server = AdminServer()
        assert self.add(server.transport, KEY, prefetch=True) > 0
        assert set(ADAPTERS) < set(server.adapters)
        assert [path for _, path in server.requests].count("/admin/v1/adapters") == 6
        assert server.requests[-1] == ("POST", "/admin/v1/adapters/study-5/prefetch")

    def test_vllm_is_told_where_they_are(self) -> None:
        heard: list[tuple[str, bytes]] = []

        def answer(request: httpx.Request) -> httpx.Response:
            heard.append((request.url.path, request.read()))
            return httpx.Response(200, text="Success")

        self.add(httpx.MockTransport(answer), "")
        assert {path for path, _ in heard} == {"/v1/load_lora_adapter"}
        assert any(b'"lora_name":"study-3","lora_path":"/adapters/3"' in body for _, body in heard)

    def test_the_first_refusal_ends_it(self) -> None:
        with pytest.raises(EndpointError, match="key is not known"):
            self.add(AdminServer().transport, "lmx_wrong")

    def test_nobody_there(self) -> None:
        def gone(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

        with pytest.raises(EndpointError, match="did not answer"):
            self.add(httpx.MockTransport(gone), "")


class TestBooks:
    def test_all_pages_are_listed(self) -> None:
        server = AdminServer()
        server.adapters = {f"a{number:04d}": adapter(f"a{number:04d}") for number in range(1500)}
        first_s, all_s = listing_s("http://gateway", KEY, transport=server.transport)
        assert 0 < first_s < all_s
        asked = [path for _, path in server.requests]
        assert (
            asked.count("/admin/v1/adapters?limit=1000")
            == asked.count("/admin/v1/adapters?limit=1000&cursor=a0999")
            == 5
        )

    def test_a_refusal_is_told(self) -> None:
        with pytest.raises(EndpointError, match="does not list its adapters"):
            listing_s("http://gateway", "lmx_wrong", transport=AdminServer().transport)

    def test_memory_is_that_of_the_process(self) -> None:
        with MockEndpoint() as running:
            found = memory_bytes(running.pid)
            assert found == pytest.approx(psutil.Process(running.pid).memory_info().rss, rel=0.1)

    def test_steady_is_what_does_not_change_for_a_while(self) -> None:
        assert steady([5_000, 1_000, 1_001, 1_002, 1_000, 1_001, 1_000])
        assert not steady([1_000, 1_001, 1_002, 1_000, 1_100, 1_100])
        assert not steady([1_000] * 5)
