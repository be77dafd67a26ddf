"""The way of a request through the relay: names, bodies and headers, both ways, on real sockets."""

import asyncio
import io
import json
from typing import Any

import httpx
import openai
import pytest
import structlog

from loramux_adapters.errors import ArtifactError, EngineRejected, QueueFull, RateLimited
from loramux_serving.settings import LogSettings
from loramux_serving.telemetry.request_log import RequestLog
from tests.fakes.engine_server import WORDS, engine_server
from tests.fakes.raw_http import ask, post, raw_caller
from tests.fakes.relay_services import KEY, SHOP, FakeRecorder, gateway, until

TEXT = "".join(WORDS)


def client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="good", max_retries=0, http_client=httpx.AsyncClient())


async def test_a_chat_answer_has_the_callers_name():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        caller.send(post(ask("store", seed=7, temperature=0.10)))
        answer = await caller.answer()
    assert answer.status == 200
    assert answer.json["model"] == "store"
    assert answer.json["choices"][0]["message"]["content"] == TEXT
    assert engine.requests[0].json == {**ask(SHOP.engine_name), "seed": 7, "temperature": 0.1}
    assert answer.headers["x-loramux-adapter"] == "shop"
    assert answer.headers["x-loramux-version"] == "3"
    assert answer.headers["x-loramux-replica"] == "r0"
    record = gate.recorder.records[0]
    assert (record.outcome, record.status, record.prompt_tokens, record.completion_tokens) == ("ok", 200, 7, 6)
    assert (record.adapter, record.version, record.replica, record.key_id) == ("shop", 3, "r0", "k1")
    assert record.queue_s == 0.25
    assert gate.admission.places[0].spent == 13
    assert gate.idle()


async def test_the_base_has_no_version_header():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        caller.send(post(ask("base")))
        answer = await caller.answer()
    assert answer.json["model"] == "base"
    assert "x-loramux-version" not in answer.headers


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_stream_is_renamed_and_counted(path: str, spaced: bool):
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour.spaced_json = spaced
        caller.send(post(ask(stream=True), path))
        answer = await caller.answer()
        await until(lambda: bool(gate.recorder.records))
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.frames[-1] == "[DONE]"
    assert len(answer.frames) == len(WORDS) + 1  # the usage frame was for the gateway alone
    assert b"usage" not in answer.body
    assert SHOP.engine_name.encode() not in answer.body
    assert answer.body.count(b'"shop"') == len(WORDS)
    record = gate.recorder.records[0]
    assert record.streamed
    assert (record.prompt_tokens, record.completion_tokens) == (7, 6)
    assert record.ttft_s is not None
    assert record.ttft_s <= record.duration_s


async def test_a_caller_that_asks_for_usage_gets_it():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        caller.send(post(ask(stream=True, stream_options={"include_usage": True})))
        answer = await caller.answer()
    assert b'"usage":{' in answer.body
    assert gate.recorder.records[0].completion_tokens == 6


async def test_parameters_reach_the_engine_byte_for_byte():
    members = (
        b'"n": 2, "logprobs":true,"top_logprobs": 5,'
        b'"tools":[{"type":"function","function":{"name":"f", "parameters":{}}}],'
        b'"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"a": 1.50e+3}}},'
        b'"stop":["\\u0041\\n"],"seed":12345678901234567890123,"stream_options":{"include_usage":true, "x" : 1},'
        b'"unknown_\\u00e4":[1.0,  2]'
    )
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        caller.send(post(b'{"model":"shop","stream":true,' + members + b"}"))
        await caller.answer()
    sent = engine.requests[0].body
    for value in (
        b'[{"type":"function","function":{"name":"f", "parameters":{}}}]',
        b'{"type":"json_schema","json_schema":{"name":"x","schema":{"a": 1.50e+3}}}',
        b'["\\u0041\\n"]',
        b'"seed":12345678901234567890123',
        b'{"include_usage":true, "x" : 1}',
        b"[1.0,  2]",
    ):
        assert value in sent


async def test_embeddings_and_responses_pass():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        caller.send(post({"model": "shop", "input": "a"}, "/v1/embeddings"))
        embeddings = await caller.answer()
        caller.send(post({"model": "shop", "input": "a"}, "/v1/responses"))
        responses = await caller.answer()
    assert embeddings.json["model"] == responses.json["model"] == "shop"
    assert [record.prompt_tokens for record in gate.recorder.records] == [7, 7]
    assert gate.recorder.records[1].completion_tokens == 6


async def test_headers_for_the_engine():
    headers = {
        "Cookie": "a=b",
        "Connection": "X-Mine, keep-alive",
        "X-Mine": "1",
        "X-Kept": "yes",
        "Accept-Encoding": "gzip",
        "TE": "trailers",
        "X-Request-Id": "trace-1",
        "X-Loramux-Sticky": "user-7",
    }
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        caller.send(post(ask(), headers=headers))
        answer = await caller.answer()
    received = engine.requests[0]
    names = [name for name, _ in received.headers]
    assert len(set(names)) == len(names)
    for name in ("authorization", "cookie", "connection", "x-mine", "accept-encoding", "te"):
        assert received.header(name) is None
    assert received.header("x-kept") == "yes"
    assert received.header("host") == f"127.0.0.1:{engine.port}"
    assert received.header("content-length") == str(len(received.body))
    assert received.header("x-request-id") == answer.headers["x-request-id"] == "trace-1"
    assert gate.names.sticky == ["user-7", "user-7"]
    assert gate.names.key_ids == ["k1", "k1"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ü"])
async def test_a_request_id_is_made_where_none_is_fit(given: str):
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        caller.send(post(ask(), headers={"X-Request-Id": given}))
        answer = await caller.answer()
    made = answer.headers["x-request-id"]
    assert len(made) == 32
    assert engine.requests[0].header("x-request-id") == made
    assert gate.recorder.records[0].request_id == made


async def test_an_error_of_the_engine_passes_with_the_callers_name():
    body = f'{{"error":{{"message":"{SHOP.engine_name} is unhappy","code":400}}}}'.encode()
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour.status, engine.behaviour.body = 400, body
        caller.send(post(ask()))
        answer = await caller.answer()
    assert answer.status == 400
    assert answer.json["error"]["message"] == "shop is unhappy"
    assert gate.recorder.records[0].outcome == "client_error"


@pytest.mark.parametrize(
    ("request_bytes", "status", "code", "param", "outcome"),
    [
        (post(ask(), key=None), 401, "unauthenticated", None, "rejected"),
        (post(ask(), key="Bearer narrow"), 403, "forbidden", None, "rejected"),
        (post(ask("nobody")), 404, "model_not_found", "model", "client_error"),
        (post(b"no json"), 400, "invalid_request", None, "client_error"),
        (post(b"[1]"), 400, "invalid_request", None, "client_error"),
        (post({"messages": []}), 400, "invalid_request", "model", "client_error"),
        (post(ask(stream="yes")), 400, "invalid_request", "stream", "client_error"),
        (post(b'{"model":' + b"[" * 100_000), 400, "invalid_request", None, "client_error"),
    ],
)
async def test_refusals_have_openais_shape(
    request_bytes: bytes, status: int, code: str, param: str | None, outcome: str
):
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        caller.send(request_bytes)
        answer = await caller.answer()
        caller.send(post(ask()))  # the connection is still good
        assert (await caller.answer()).status == 200
    assert answer.status == status
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert answer.headers["x-request-id"]
    assert ("www-authenticate" in answer.headers) is (status == 401)
    assert len(engine.requests) == 1
    assert gate.recorder.records[0].outcome == outcome


@pytest.mark.parametrize(
    ("error", "status", "wait", "outcome"),
    [
        (RateLimited("Too many.", retry_after_s=3.2), 429, "4", "rejected"),
        (QueueFull("Full."), 503, "1", "rejected"),
    ],
)
async def test_limits_say_when_to_come_back(error: Exception, status: int, wait: str, outcome: str):
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        gate.admission.error = error
        caller.send(post(ask()))
        answer = await caller.answer()
    assert (answer.status, answer.headers["retry-after"]) == (status, wait)
    assert gate.recorder.records[0].outcome == outcome
    assert not engine.requests


@pytest.mark.parametrize(("error", "status"), [(EngineRejected("No."), 422), (ArtifactError("Bad."), 422)])
async def test_an_adapter_that_can_not_be_staged_is_not_tried_elsewhere(error: Exception, status: int):
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        gate.leases.error = error
        caller.send(post(ask()))
        answer = await caller.answer()
    assert answer.status == status
    assert len(gate.leases.taken) == 1
    assert gate.idle()


async def test_the_openai_client_streams():
    question: Any = [{"role": "user", "content": "?"}]
    async with engine_server() as engine, gateway(engine.url) as gate, client(gate.url) as ai:
        stream = await ai.chat.completions.create(model="shop", messages=question, stream=True)
        chunks = [chunk async for chunk in stream]
        whole = await ai.chat.completions.create(model="shop", messages=question)
        with pytest.raises(openai.NotFoundError) as caught:
            await ai.chat.completions.create(model="nobody", messages=[])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert {chunk.model for chunk in chunks} == {"shop"}
    assert whole.model == "shop"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 6
    assert caught.value.code == "model_not_found"
    assert len(engine.requests) == 2


async def test_connections_to_the_engine_are_shared_and_expire():
    async with engine_server() as engine, gateway(engine.url, upstream_keep_alive_s=0.3) as gate:
        async with raw_caller(gate.port) as caller:
            for _ in range(5):
                caller.send(post(ask(stream=True)))
                await caller.answer()
        assert engine.connections == 1
        await until(lambda: engine.open_connections == 0)
        async with raw_caller(gate.port) as caller:
            caller.send(post(ask()))
            assert (await caller.answer()).status == 200
        assert engine.connections == 2


async def test_upstream_connections_are_bounded():
    async with engine_server() as engine, gateway(engine.url, upstream_connections=2) as gate:
        engine.behaviour.stall_before_head = True

        async def one() -> int:
            async with raw_caller(gate.port) as caller:
                caller.send(post(ask()))
                return (await caller.answer()).status

        tasks = [asyncio.create_task(one()) for _ in range(6)]
        await until(lambda: len(engine.requests) == 2)
        engine.gate.set()
        assert await asyncio.gather(*tasks) == [200] * 6
        assert engine.connections == 2


async def test_a_large_document_is_chunked_and_renamed():
    filler = b'"x":"' + b"y" * 3_000_000 + b'",'
    name = SHOP.engine_name.encode()
    body = b'{"model":"%b",%b"model":"%b",%b"usage":{"prompt_tokens":1}}' % (name, filler, name, filler)
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port, limit=2**24) as caller:
        engine.behaviour.body = body
        caller.send(post(ask()))
        answer = await caller.answer()
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == body.replace(name, b"shop")


async def test_an_answer_that_ends_with_the_connection():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour.close_delimited = True
        for _ in range(2):
            caller.send(post(ask(stream=True)))
            assert (await caller.answer()).frames[-1] == "[DONE]"
    assert engine.connections == 2


async def test_interim_answers_of_the_engine_are_passed_over():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour.raw = (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        )
        caller.send(post(ask()))
        answer = await caller.answer()
    assert (answer.status, answer.body) == (200, b"{}")
    assert "link" not in answer.headers
    assert KEY not in str(engine.requests)


async def test_one_log_line_for_each_request_and_no_prompt_in_it():
    written = io.StringIO()
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        log = RequestLog(LogSettings(format="json"), FakeRecorder(), written)
        caller.send(post(ask(user="secret"), headers={"X-Request-Id": "trace-1"}) + post(ask("nobody")))
        assert (await caller.answer()).status == 200
        assert (await caller.answer()).status == 404
        await until(lambda: len(gate.recorder.records) == 2)
        for record in gate.recorder.records:
            log.record(record)
        log.flush()
    lines = written.getvalue()
    told = [json.loads(line) for line in lines.splitlines()]
    assert [(line["status"], line["outcome"]) for line in told] == [(200, "ok"), (404, "client_error")]
    assert told[0]["request_id"] == "trace-1"
    assert told[0]["adapter"] == "shop"
    assert told[1]["error_code"] == "model_not_found"
    assert "secret" not in lines
    assert "forty" not in lines


async def test_a_request_does_not_inherit_the_id_of_the_one_before_it():
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(structlog.contextvars.get_contextvars())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with engine_server() as engine, gateway(engine.url) as gate:
        gate.server.config.loaded_app = app
        async with raw_caller(gate.port) as caller:
            caller.send(post(ask()) + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await caller.answer()).status == 200
            assert (await caller.answer()).status == 204
    assert seen == [{}]


async def test_a_cold_request_takes_no_place_while_it_is_loaded():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        gate.leases.cold.add(SHOP.engine_name)
        for _ in range(2):
            caller.send(post(ask("store")))
            assert (await caller.answer()).status == 200
    assert [place.stepped_aside for place in gate.admission.places] == [1, 0]
    assert gate.idle()


async def test_a_request_tells_which_slot_it_takes():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        for model in ("store", "base"):
            caller.send(post(ask(model)))
            assert (await caller.answer()).status == 200
    assert gate.admission.slots == [SHOP.engine_name, None]


async def test_while_a_request_waits_its_adapter_is_loaded():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        gate.leases.cold.add(SHOP.engine_name)
        gate.admission.gate.clear()
        caller.send(post(ask("store")))
        await until(lambda: gate.admission.waiting == 1)
        assert gate.leases.foreseen == [(SHOP.engine_name, "r0")]
        gate.leases.cold.clear()
        gate.admission.gate.set()
        assert (await caller.answer()).status == 200
        assert gate.admission.places[0].stepped_aside == 0
        caller.send(post(ask("store")))
        assert (await caller.answer()).status == 200
    assert len(gate.leases.foreseen) == 1, "who does not wait foresees nothing"
    assert gate.idle()


async def test_a_request_that_waits_while_no_engine_is_ready_is_told_so_later():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        replicas, gate.fleet.replicas = gate.fleet.replicas, []
        gate.admission.gate.clear()
        caller.send(post(ask("store")))
        await until(lambda: gate.admission.waiting == 1)
        gate.fleet.replicas = replicas
        gate.admission.gate.set()
        assert (await caller.answer()).status == 200
    assert gate.leases.foreseen == []
