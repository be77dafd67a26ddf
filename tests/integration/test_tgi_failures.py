"""TGI's callers when the engine fails, on real sockets: recorded answers of vLLM, cut off or not sent."""

import json
from pathlib import Path
from typing import Any

import pytest

from loramux_adapters.errors import QueueFull
from tests.fakes.engine_server import Behaviour, engine_server
from tests.fakes.raw_http import post, raw_caller
from tests.fakes.relay_services import SHOP, gateway, until

ANSWERS = Path(__file__).parents[1] / "fixtures" / "vllm_completions"
FRAMES = [frame + b"\n\n" for frame in (ANSWERS / "numbers_stream.txt").read_bytes().split(b"\n\n")[:-1]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def chunks(*frames: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames)


def whole(name: str) -> Behaviour:
    return Behaviour(body=(ANSWERS / name).read_bytes())


def asks(path: str = "/generate_stream", **parameters: Any) -> bytes:
    return post({"inputs": "2, 4, 6, 8,", "parameters": parameters}, path)


def events(body: bytes) -> list[dict[str, Any]]:
    *found, rest = body.split(b"\n\n")
    assert rest == b""
    return [json.loads(event.removeprefix(b"data:")) for event in found]


async def test_a_whole_stream_is_told_and_counted() -> None:
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour = Behaviour(raw=HEAD + chunks(*FRAMES) + b"0\r\n\r\n")
        caller.send(asks(adapter_id="shop"))
        answer = await caller.answer()
        await until(gate.idle)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert events(answer.body)[-1]["generated_text"] == " 10,"
    assert engine.requests[0].json["model"] == SHOP.engine_name
    (record,) = gate.recorder.records
    assert (record.outcome, record.endpoint, record.streamed) == ("ok", "/generate_stream", True)
    assert (record.prompt_tokens, record.completion_tokens) == (11, 4)
    assert record.ttft_s is not None


async def test_an_engine_that_dies_in_a_stream() -> None:
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour = Behaviour(raw=HEAD + chunks(*FRAMES[:2]))
        caller.send(asks())
        answer = await caller.answer()
        await until(gate.idle)
    *tokens, error = events(answer.body)
    assert [event["token"]["text"] for event in tokens] == [" ", "1"]
    assert error["error_type"] == "generation"
    (record,) = gate.recorder.records
    assert record.outcome == "interrupted"
    assert (record.prompt_tokens, record.completion_tokens) == (11, 2)


async def test_an_engine_that_says_rubbish_in_a_stream() -> None:
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour = Behaviour(raw=HEAD + chunks(FRAMES[0], b"data: {\n\n", *FRAMES[1:]) + b"0\r\n\r\n")
        caller.send(asks())
        answer = await caller.answer()
        await until(gate.idle)
    first, error = events(answer.body)
    assert first["token"]["text"] == " "
    assert error["error_type"] == "generation"
    assert gate.recorder.records[0].outcome == "interrupted"


async def test_another_engine_is_asked_while_nothing_was_sent() -> None:
    async with engine_server() as first, engine_server() as second:
        for engine in (first, second):
            engine.once = [Behaviour(die_before_head=True)]
            engine.behaviour = Behaviour(raw=HEAD + chunks(*FRAMES) + b"0\r\n\r\n")
        second.once = []
        async with gateway(first.url, second.url) as gate, raw_caller(gate.port) as caller:
            caller.send(asks())
            answer = await caller.answer()
    assert events(answer.body)[-1]["generated_text"] == " 10,"


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
async def test_an_engine_that_is_not_there(path: str) -> None:
    async with engine_server() as engine:
        url = engine.url
    async with gateway(url) as gate, raw_caller(gate.port) as caller:
        caller.send(asks(path))
        answer = await caller.answer()
    assert answer.status == 424
    assert answer.json["error_type"] == "generation"
    assert gate.recorder.records[0].status == 424


async def test_a_dead_core() -> None:
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour = Behaviour(dead_core=True)
        caller.send(asks("/generate"))
        answer = await caller.answer()
    assert (answer.status, answer.json["error_type"]) == (424, "generation")


async def test_an_adapter_that_the_engine_lost() -> None:
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour = Behaviour(refuse_models=frozenset({SHOP.engine_name}))
        caller.send(asks("/generate", adapter_id="shop"))
        answer = await caller.answer()
    assert (answer.status, answer.json["error_type"]) == (424, "generation")
    assert SHOP.engine_name not in answer.body.decode()


async def test_a_full_queue() -> None:
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        gate.admission.error = QueueFull("Too many wait.")
        caller.send(asks("/generate"))
        answer = await caller.answer()
    assert (answer.status, answer.json["error_type"]) == (429, "overloaded")
    assert answer.headers["retry-after"] == "1"


async def test_an_answer_that_can_not_be_read() -> None:
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour = Behaviour(body=b'{"choices":[]}')
        caller.send(asks("/generate"))
        answer = await caller.answer()
    assert (answer.status, answer.json["error_type"]) == (424, "generation")


async def test_a_caller_who_leaves_ends_it_at_the_engine() -> None:
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour = Behaviour(stall_before_head=True)
        caller.send(asks())
        await engine.arrived.wait()
        caller.writer.close()
        await engine.disconnected.wait()
        await until(gate.idle)
    assert gate.recorder.records[0].outcome == "cancelled"


async def test_a_document_larger_than_is_passed_on_in_pieces() -> None:
    text = "日本" * 1_000_000
    document = {"choices": [{"index": 0, "text": text, "finish_reason": "length"}], "usage": {}}
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour = Behaviour(body=json.dumps(document, ensure_ascii=False).encode())
        caller.send(asks("/generate"))
        answer = await caller.answer()
    assert answer.json == {"generated_text": text}
