"""Engines that die, stall or talk rubbish, and callers that leave or do not read."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.fakes.engine_server import WORDS, Behaviour, EngineServer, engine_server
from tests.fakes.raw_http import RawCaller, ask, post, raw_caller
from tests.fakes.relay_services import Gateway, gateway, until

SHORT = {"first_byte_timeout_s": 0.3, "idle_timeout_s": 0.3, "connect_timeout_s": 0.3}


_at_once = False


@pytest.fixture(params=["waiting", "at once"], autouse=True)
def at_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whether the scene's requests wait, or are sent without a task to an engine that has answered before."""
    global _at_once
    _at_once = request.param == "at once"
    yield
    _at_once = False


@asynccontextmanager
async def scene(engines: int = 1, **settings: float) -> AsyncIterator[tuple[list[EngineServer], Gateway, RawCaller]]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(engine_server()) for _ in range(engines)]
        gate = await stack.enter_async_context(
            gateway(*[server.url for server in servers], at_once=_at_once, **settings)
        )
        caller = await stack.enter_async_context(raw_caller(gate.port))
        if _at_once:
            caller.send(post(ask()))
            assert (await caller.answer()).status == 200
            await until(lambda: bool(gate.recorder.records))
            servers[0].forget()
            gate.recorder.records.clear()
            gate.admission.places.clear()
            gate.admission.slots.clear()
            gate.leases.taken.clear()
        yield servers, gate, caller


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


NOTHING_SENT = {
    "dies before it answers": Behaviour(die_before_head=True),
    "dies before the first token": Behaviour(die_after_head=True, die_after_frames=0),
    "loses its core": Behaviour(dead_core=True),
    "rubbish": Behaviour(raw=b"+OK redis\r\n\r\n"),
    "both framings": Behaviour(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}"),
    "head without end": Behaviour(raw=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_500_000),
    "forgot the adapter": Behaviour(refuse_models=frozenset({"shop@0123456789ab"})),
}


def _again(name: str) -> bool:
    """A kept connection that closes before it answers says nothing of the engine: the request is sent once more."""
    return _at_once and name == "dies before it answers"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", NOTHING_SENT)
async def test_what_sent_nothing_is_tried_on_another_replica(name: str, stream: bool):
    async with scene(2) as ((bad, good), gate, caller):
        bad.behaviour = NOTHING_SENT[name]
        caller.send(post(ask(stream=stream)))
        answer = await caller.answer()
        await until(lambda: bool(gate.recorder.records))
        assert answer.status == 200
        assert answer.headers["x-loramux-replica"] == "r1"
        assert (len(bad.requests), len(good.requests)) == (1 + _again(name), 1)
        assert [replica.suspected for replica in gate.fleet.replicas] == [1, 0]
        assert gate.recorder.records[0].outcome == "ok"
        assert gate.leases.lost_names == ["shop@0123456789ab"] * (name == "forgot the adapter")
        assert gate.idle()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", NOTHING_SENT)
async def test_what_sent_nothing_ends_in_503_with_retry_after(name: str, stream: bool):
    async with scene(retries=1) as ((engine,), gate, caller):
        engine.behaviour = NOTHING_SENT[name]
        caller.send(post(ask(stream=stream)))
        answer = await caller.answer()
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json["error"]["code"] == "engine_unavailable"
        assert len(engine.requests) == 2 + _again(name)
        assert gate.recorder.records[0].outcome == "engine_error"
        caller.send(post(ask("nobody")))
        assert (await caller.answer()).status == 404  # the connection is still good


async def test_an_engine_that_is_not_there():
    async with engine_server() as good, gateway(f"http://127.0.0.1:{closed_port()}", good.url) as gate:
        async with raw_caller(gate.port) as caller:
            caller.send(post(ask()))
            assert (await caller.answer()).status == 200
        gate.fleet.replicas.pop()
        async with raw_caller(gate.port) as caller:
            caller.send(post(ask()))
            assert (await caller.answer()).status == 503
        gate.fleet.replicas.clear()
        async with raw_caller(gate.port) as caller:
            caller.send(post(ask()))
            answer = await caller.answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "3")


async def test_a_404_that_is_the_callers_is_passed_on():
    async with scene() as ((engine,), _, caller):
        engine.behaviour = Behaviour(status=404, body=b'{"error":{"message":"The response `r1` does not exist."}}')
        caller.send(post({"model": "shop"}, "/v1/responses"))
        assert (await caller.answer()).status == 404
        engine.behaviour = Behaviour(refuse_models=frozenset({"base"}))
        caller.send(post(ask("base")))
        assert (await caller.answer()).status == 404
        assert len(engine.requests) == 2


async def test_a_stream_that_breaks_off_ends_with_an_error_frame():
    async with scene(2) as ((engine, other), gate, caller):
        engine.behaviour = Behaviour(die_after_frames=3)
        caller.send(post(ask(stream=True)))
        answer = await caller.answer()
        assert answer.status == 200
        assert len(answer.frames) == 4
        assert '"code":"engine_failed"' in answer.frames[-1]
        assert "[DONE]" not in answer.body.decode()
        await until(lambda: bool(gate.recorder.records))
        record = gate.recorder.records[0]
        assert (record.outcome, record.error_code) == ("interrupted", "engine_failed")
        assert not other.requests
        assert gate.fleet.replicas[0].suspected == 1
        assert gate.idle()
        engine.behaviour = Behaviour()
        caller.send(post(ask()))
        assert (await caller.answer()).status == 200


async def test_an_error_frame_of_the_engine_is_passed_on():
    async with scene() as ((engine,), gate, caller):
        engine.behaviour = Behaviour(stall_after_frames=2, error_frame_after=2)
        caller.send(post(ask(stream=True)))
        await caller.head()
        frames = await caller.chunk()
        engine.gate.set()
        while chunk := await caller.chunk():
            frames += chunk
        assert b"EngineCore encountered" in frames
        await until(lambda: bool(gate.recorder.records))
        assert gate.recorder.records[0].outcome == "interrupted"


async def test_a_large_document_that_breaks_off_is_no_whole_answer():
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b" " * 6_000_000
    async with scene() as ((engine,), gate, caller):
        engine.behaviour = Behaviour(raw=raw)
        caller.send(post(ask()))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await caller.answer()
        await until(lambda: bool(gate.recorder.records))
        assert gate.recorder.records[0].outcome == "interrupted"


async def test_a_stalled_engine_is_given_up():
    async with scene(**SHORT) as ((engine,), gate, caller):
        engine.behaviour = Behaviour(stall_before_head=True)
        caller.send(post(ask()))
        answer = await caller.answer()
        assert (answer.status, answer.json["error"]["code"]) == (504, "engine_timeout")
        await until(engine.disconnected.is_set)
        assert len(engine.requests) == 1  # it may still be at work: once more would be twice
        engine.gate.clear()
        engine.behaviour = Behaviour(stall_after_frames=2)
        caller.send(post(ask(stream=True)))
        answer = await caller.answer()
        assert len(answer.frames) == 3
        assert '"code":"engine_timeout"' in answer.frames[-1]
        assert gate.idle()


async def test_a_stream_may_wait_for_its_first_token_longer_than_for_the_next():
    async with scene(first_byte_timeout_s=5, idle_timeout_s=0.1) as ((engine,), gate, caller):
        engine.behaviour = Behaviour(stall_after_frames=0)
        caller.send(post(ask(stream=True)))
        await until(lambda: engine.sent_bytes > 0)
        asyncio.get_running_loop().call_later(0.4, engine.gate.set)
        assert (await caller.answer()).frames[-1] == "[DONE]"
        assert gate.recorder.records[0].ttft_s > 0.3


async def test_a_kept_connection_that_died_is_no_failure():
    async with scene() as ((engine,), gate, caller):
        for _ in range(4):
            caller.send(post(ask()))
            assert (await caller.answer()).status == 200
            engine.once = [Behaviour(die_before_head=True)]
        assert gate.fleet.replicas[0].suspected == 0
        assert len(engine.requests) == 7


@pytest.mark.parametrize("stall", ["queue", "engine", "stream", "reused"])
async def test_a_caller_that_leaves_frees_everything(stall: str):
    async with scene() as ((engine,), gate, _):
        if stall == "queue":
            gate.admission.gate.clear()
        engine.behaviour = Behaviour(
            stall_before_head=stall in ("engine", "reused"), stall_after_frames=2 if stall == "stream" else None
        )
        async with raw_caller(gate.port) as caller:
            if stall == "reused":
                engine.behaviour = Behaviour()
                caller.send(post(ask()))
                await caller.answer()
                engine.behaviour = Behaviour(stall_before_head=True)
            caller.send(post(ask(stream=stall == "stream")) + post(ask()))  # the second one never gets its turn
            if stall == "queue":
                await until(lambda: gate.admission.waiting == 1)
            elif stall == "stream":
                await caller.head()
            else:
                await until(lambda: gate.leases.held == 1 and engine.requests[-1].path != "")
                await until(lambda: len(engine.requests) == (2 if stall == "reused" else 1))
            left_at = time.monotonic()
        if stall != "queue":
            async with asyncio.timeout(2):
                await engine.disconnected.wait()
            assert time.monotonic() - left_at < 0.1
        await until(gate.idle)
        await until(lambda: gate.recorder.records[-1].outcome == "cancelled")
        assert gate.recorder.records[-1].status == 499


async def test_a_caller_that_leaves_before_its_body_is_whole():
    async with scene() as ((engine,), gate, _):
        async with raw_caller(gate.port) as caller:
            caller.send(post(ask())[:-3])
            await until(lambda: len(gate.server.server_state.tasks) == 1)
        await until(lambda: bool(gate.recorder.records))
        assert gate.recorder.records[0].outcome == "cancelled"
        assert not engine.requests


WORD = "word " * 200
LONG = Behaviour(words=(WORD,) * 20_000)


async def test_a_slow_reader_holds_the_engine_back():
    async with scene() as ((engine,), gate, _), raw_caller(gate.port, limit=4096) as caller:
        engine.behaviour = LONG
        caller.send(post(ask(stream=True)))
        await until(lambda: engine.sent_bytes > 0)
        sent = -1
        while sent != engine.sent_bytes:
            sent = engine.sent_bytes
            await asyncio.sleep(0.2)
        (connection,) = gate.server.server_state.connections - _idle(gate)
        assert connection.transport.get_write_buffer_size() < 2**20
        assert sent < 18 * 2**20  # of 20 MB and more: the rest is in the sockets' own buffers
        answer = await caller.answer()
        assert len(answer.frames) == 20_001
        await until(gate.idle)
        assert gate.recorder.records[0].outcome == "ok"


def _idle(gate: Gateway) -> set[object]:
    connections = gate.server.server_state.connections
    return {each for each in connections if each.cycle is None or each.cycle.response_complete}


async def test_a_caller_that_never_reads_is_dropped():
    async with scene(write_timeout_s=0.3) as ((engine,), gate, _), raw_caller(gate.port, limit=4096) as caller:
        engine.behaviour = LONG
        caller.send(post(ask(stream=True)))
        await until(lambda: bool(gate.recorder.records), 10)
        assert gate.recorder.records[0].outcome == "cancelled"
        await until(engine.disconnected.is_set)
        await until(gate.idle)


async def test_an_engine_killed_under_load():
    """Every request either is answered whole, or gets a 503 with Retry-After, or an error frame at the end."""
    async with scene(2) as ((victim, _), gate, _), asyncio.TaskGroup() as group:
        victim.behaviour = Behaviour(stall_after_frames=3)
        kinds: dict[str, int] = {"whole": 0, "refused": 0, "broken": 0}

        async def one(stream: bool) -> None:
            async with raw_caller(gate.port) as caller:
                caller.send(post(ask(stream=stream)))
                answer = await caller.answer()
            if answer.status == 503:
                assert answer.headers["retry-after"]
                kinds["refused"] += 1
            elif stream and answer.frames[-1] != "[DONE]":
                assert '"error"' in answer.frames[-1]
                kinds["broken"] += 1
            else:
                assert answer.status == 200
                kinds["whole"] += 1

        tasks = [group.create_task(one(number % 2 == 0)) for number in range(60)]
        await until(lambda: len(victim.requests) == 60)
        victim.kill()
        await asyncio.gather(*tasks)
        assert sum(kinds.values()) == 60
        assert kinds["broken"] == 30
        assert len(WORDS) > 3
    assert gate.idle()
