"""Requests whose engine can be asked at once: they take no task, and are otherwise as all others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from loramux_adapters.errors import LoramuxError, QueueFull, RateLimited
from loramux_serving.relay.way import Way
from tests.fakes.engine_server import WORDS, Behaviour, EngineServer, engine_server
from tests.fakes.raw_http import RawCaller, ask, post, raw_caller
from tests.fakes.relay_services import KEY, Gateway, gateway, until


@asynccontextmanager
async def scene(engines: int = 1) -> AsyncIterator[tuple[list[EngineServer], Gateway, RawCaller]]:
    """The caller was answered once, by the first engine."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(engine_server()) for _ in range(engines)]
        gate = await stack.enter_async_context(gateway(*[each.url for each in servers], at_once=True))
        caller = await stack.enter_async_context(raw_caller(gate.port))
        caller.send(post(ask()))
        assert (await caller.answer()).status == 200
        await until(lambda: bool(gate.recorder.records))
        servers[0].forget()
        gate.recorder.records.clear()
        yield servers, gate, caller


def ways(gate: Gateway) -> list[Way]:
    return [task for task in gate.server.server_state.tasks if isinstance(task, Way)]


async def test_a_short_answer_takes_no_task() -> None:
    async with scene() as ((engine,), gate, caller):
        engine.behaviour = Behaviour(stall_before_head=True)
        caller.send(post(ask()))
        await until(lambda: bool(engine.requests))
        assert len(ways(gate)) == len(gate.server.server_state.tasks) == 1
        engine.gate.set()
        answer = await caller.answer()
        assert answer.json["choices"][0]["message"]["content"] == "".join(WORDS)
        assert not gate.server.server_state.tasks
        assert gate.idle()
        assert engine.connections == 1
        record = gate.recorder.records[0]
        assert (record.outcome, record.adapter, record.version, record.completion_tokens) == ("ok", "shop", 3, 6)


async def test_the_server_ends_those_that_wait() -> None:
    async with scene() as ((engine,), gate, caller):
        engine.behaviour = Behaviour(stall_before_head=True)
        caller.send(post(ask()))
        await until(lambda: bool(engine.requests))
        for task in list(gate.server.server_state.tasks):
            task.cancel(msg="time is up")  # as uvicorn does
        assert await caller.closed() == b""
        await asyncio.wait_for(engine.disconnected.wait(), 5)
        await until(gate.idle)
        assert [record.outcome for record in gate.recorder.records] == ["cancelled"]
        assert not gate.server.server_state.tasks


@pytest.mark.parametrize("error", [RateLimited("Slower.", retry_after_s=7.0), QueueFull("Full.", retry_after_s=1.0)])
async def test_a_refusal_is_told_as_ever(error: LoramuxError) -> None:
    async with scene() as ((engine,), gate, caller):
        gate.admission.error = error
        caller.send(post(ask()))
        answer = await caller.answer()
        assert (answer.json["error"]["code"], answer.headers["retry-after"]) == (error.code, f"{error.retry_after_s:g}")
        assert gate.recorder.records[0].error_code == error.code
        gate.admission.error = None
        caller.send(post(ask()))
        assert (await caller.answer()).status == 200
        assert gate.idle()
        assert len(engine.requests) == 1


async def test_a_known_head_is_not_another_callers() -> None:
    async with scene() as (_, gate, caller):
        for key, status in ((KEY, 200), ("Bearer bad!", 401), (KEY, 200), ("Bearer bad!", 401)):
            caller.send(post(ask(), key=key))
            assert (await caller.answer()).status == status
        assert [record.status for record in gate.recorder.records] == [200, 401, 200, 401]


async def test_bodies_of_other_lengths_come_whole() -> None:
    async with scene() as ((engine,), _, caller):
        for text in ("", "a", "ab" * 5000, "abc"):
            caller.send(post(ask(text=text)))
            assert (await caller.answer()).status == 200
        assert [request.json["text"] for request in engine.requests] == ["", "a", "ab" * 5000, "abc"]
