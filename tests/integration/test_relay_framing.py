"""What the gateway takes for a request, on raw sockets: limits, refusals, keep-alive, pipelining, HTTP/1.0."""

import asyncio
import contextlib

import pytest

from tests.fakes.engine_server import WORDS, engine_server
from tests.fakes.raw_http import RawCaller, ask, post, raw_caller
from tests.fakes.relay_services import gateway, until

HOT = b"/v1/chat/completions"
BODY = b'{"model":"shop","messages":[]}'
SMUGGLED = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


def head(*lines: bytes, path: bytes = HOT, version: bytes = b"1.1") -> bytes:
    fields = [b"POST " + path + b" HTTP/" + version, b"Host: a", b"Authorization: Bearer good", *lines]
    return b"\r\n".join(fields) + b"\r\n\r\n"


def chunked(*lines: bytes, body: bytes, version: bytes = b"1.1") -> bytes:
    return head(b"Transfer-Encoding: chunked", *lines, version=version) + body


LENGTH = b"Content-Length: %d" % len(BODY)

MALFORMED = {
    "CL.TE": head(LENGTH, b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
    "TE.CL": head(b"Transfer-Encoding: chunked", b"Content-Length: 4") + b"0\r\n\r\n" + SMUGGLED,
    "TE.TE": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + b"0\r\n\r\n",
    "TE twice": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "TE not chunked": head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "TE not ending in chunked": head(b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n",
    "TE gzip, chunked": head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "TE identity, chunked": head(b"Transfer-Encoding: identity, chunked") + b"0\r\n\r\n",
    "TE quoted": head(b'Transfer-Encoding: "chunked"') + b"0\r\n\r\n",
    "TE with VT": head(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n",
    "TE empty": head(b"Transfer-Encoding: ", LENGTH) + BODY,
    "TE with a blank before the colon": head(b"Transfer-Encoding : chunked") + b"0\r\n\r\n",
    "TE in HTTP/1.0": chunked(body=b"0\r\n\r\n", version=b"1.0"),
    "two CL that differ": head(LENGTH, b"Content-Length: 0") + BODY,
    "two CL that agree": head(LENGTH, LENGTH) + BODY,
    "CL list": head(b"Content-Length: 30, 30") + BODY,
    "CL +30": head(b"Content-Length: +30") + BODY,
    "CL -1": head(b"Content-Length: -1") + BODY,
    "CL hex": head(b"Content-Length: 0x1e") + BODY,
    "CL empty": head(b"Content-Length: ") + BODY,
    "CL with a blank in it": head(b"Content-Length: 3 0") + BODY,
    "CL that overflows": head(b"Content-Length: 99999999999999999999999") + BODY,
    "CL with a blank before the colon": head(b"Content-Length : 30") + BODY,
    "bare LF": b"POST " + HOT + b" HTTP/1.1\nHost: a\nContent-Length: 30\n\n" + BODY,
    "bare LF after one header": head(b"X: y\nZ: 1", LENGTH) + BODY,
    "bare CR in a header": head(b"X: y\rZ: 1", LENGTH) + BODY,
    "obs-fold": head(b"X: y\r\n z", LENGTH) + BODY,
    "obs-fold of TE": head(b"Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n",
    "a blank before the first header": b"POST " + HOT + b" HTTP/1.1\r\n Host: a\r\n\r\n",
    "null in a value": head(b"X: a\x00b", LENGTH) + BODY,
    "null in a name": head(b"X\x00: b", LENGTH) + BODY,
    "control character in a value": head(b"X: a\x01b", LENGTH) + BODY,
    "header without colon": head(b"X", LENGTH) + BODY,
    "header without name": head(b": x", LENGTH) + BODY,
    "no Host": b"POST " + HOT + b" HTTP/1.1\r\n" + LENGTH + b"\r\n\r\n" + BODY,
    "two Hosts": head(b"Host: b", LENGTH) + BODY,
    "HTTP/0.9": b"POST " + HOT + b"\r\n\r\n",
    "HTTP/1.2": head(LENGTH, version=b"1.2") + BODY,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "blank in the path": head(LENGTH, path=b"/v1/chat completions") + BODY,
    "null in the path": head(LENGTH, path=b"/v1\x00") + BODY,
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "chunk size that overflows": chunked(body=b"f" * 18 + b"\r\n"),
    "chunk size -1": chunked(body=b"-1\r\n"),
    "chunk size 0x2": chunked(body=b"0x2\r\n{}\r\n0\r\n\r\n"),
    "blank after the chunk size": chunked(body=b"2 \r\n{}\r\n0\r\n\r\n"),
    "chunk size with bare LF": chunked(body=b"2\n{}\n0\n\n"),
    "chunk without its CRLF": chunked(body=b"2\r\n{}0\r\n\r\n"),
    "chunk with bare LF after it": chunked(body=b"2\r\n{}\n0\r\n\r\n"),
    "chunk extension with LF": chunked(body=b"2;a\nb\r\n{}\r\n0\r\n\r\n"),
    "trailer Content-Length": chunked(body=b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n"),
}


@pytest.mark.parametrize("whole", [True, False], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("path", [HOT, b"/admin/v1/adapters"], ids=["hot", "asgi"])
async def test_malformed_requests_are_refused_and_never_forwarded(path: bytes, whole: bool):
    async with engine_server() as engine, gateway(engine.url) as gate:

        async def refused(name: str, request: bytes) -> None:
            async with raw_caller(gate.port) as caller:
                await _send(caller, request.replace(HOT, path, 1), whole)
                answer = await caller.answer()
                assert 400 <= answer.status < 500, name
                assert answer.headers["connection"] == "close", name
                assert set(answer.json["error"]) == {"message", "type", "param", "code"}, name
                assert await caller.closed() == b"", name

        await asyncio.gather(*(refused(name, request) for name, request in MALFORMED.items()))
        await until(gate.idle)
        assert not engine.requests
        assert not gate.asgi_bodies


async def _send(caller: RawCaller, request: bytes, whole: bool) -> None:
    if whole:
        caller.send(request)
        return
    for index in range(len(request)):
        caller.send(request[index : index + 1])
        with contextlib.suppress(ConnectionError):
            await caller.writer.drain()
        await asyncio.sleep(0)


@pytest.mark.parametrize("whole", [True, False], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(
    "request_bytes",
    [
        head(LENGTH) + BODY,
        head(b"content-LENGTH:   30  ") + BODY,
        chunked(body=b"1e\r\n" + BODY + b"\r\n0\r\n\r\n"),
        chunked(body=b"0A;x=y\r\n" + BODY[:10] + b"\r\n14\r\n" + BODY[10:] + b"\r\n0\r\n\r\n"),
        chunked(body=b"1e\r\n" + BODY + b"\r\n0\r\nAuthorization: Bearer bad\r\nX-Request-Id: trailer\r\n\r\n"),
        b"\r\n" + head(LENGTH) + BODY,
        head(LENGTH, path=b"http://elsewhere" + HOT) + BODY,
        head(LENGTH, path=HOT + b"?api-version=1") + BODY,
        head(LENGTH, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk") + BODY,
        chunked(b"Connection: Upgrade", b"Upgrade: h2c", body=b"1e\r\n" + BODY + b"\r\n0\r\n\r\n"),
    ],
)
async def test_one_request_in_many_forms(request_bytes: bytes, whole: bool):
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        for _ in range(2):
            await _send(caller, request_bytes, whole)
            assert (await caller.answer()).status == 200
    for received in engine.requests:
        assert received.path == HOT.decode()
        assert received.json == {"model": "shop@0123456789ab", "messages": []}
        assert received.header("x-request-id") != "trailer"
        assert received.header("upgrade") is None
        assert received.header("transfer-encoding") is None


@pytest.mark.parametrize("path", [HOT, b"/other"])
async def test_a_head_may_not_be_too_large(path: bytes):
    async with gateway(max_head_bytes=2048) as gate:
        for header in (b"X: " + b"y" * 3000, *([b"\r\n".join(b"X%d: y" % number for number in range(400))])):
            async with raw_caller(gate.port) as caller:
                caller.send(head(header, LENGTH, path=path) + BODY)
                assert (await caller.answer()).status == 431
        async with raw_caller(gate.port) as caller:  # a head without end is not collected
            caller.send(b"POST /")
            with contextlib.suppress(ConnectionError):
                for _ in range(64):
                    caller.send(b"y" * 65536)
                    await caller.writer.drain()
            assert (await caller.answer()).status == 431


async def test_a_body_may_not_be_too_large():
    async with engine_server() as engine, gateway(engine.url, max_body_bytes=1024) as gate:
        async with raw_caller(gate.port) as caller:
            caller.send(head(b"Content-Length: 1025"))
            answer = await caller.answer()
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert answer.headers["x-request-id"]
            assert await caller.closed() == b""
        async with raw_caller(gate.port) as caller:
            caller.send(chunked(body=b"401\r\n" + b"y" * 1025 + b"\r\n0\r\n\r\n"))
            assert (await caller.answer()).status == 413
        async with raw_caller(gate.port) as caller:  # only inference is limited here: uploads have a limit of their own
            caller.send(head(b"Content-Length: 200000", path=b"/other") + b"y" * 200_000)
            assert (await caller.answer()).body == b"POST /other 200000"
        assert [record.error_code for record in gate.recorder.records] == ["body_too_large"] * 2
        assert not engine.requests


async def test_a_caller_that_is_still_sending_gets_its_answer():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        caller.send(post(b"y" * 8_000_000, key="Bearer bad"))
        assert (await caller.answer()).status == 401
        assert not engine.requests


async def test_slow_heads_and_bodies():
    async with gateway(head_timeout_s=0.2, body_timeout_s=0.2) as gate:
        async with raw_caller(gate.port) as caller:
            assert await caller.closed() == b""  # nothing asked, nothing answered
        async with raw_caller(gate.port) as caller:
            caller.send(b"\r\n")
            assert await caller.closed() == b""
        async with raw_caller(gate.port) as caller:
            caller.send(head(LENGTH)[:-10])
            assert (await caller.answer()).status == 408
        for path in (HOT, b"/other"):
            async with raw_caller(gate.port) as caller:
                caller.send(head(LENGTH, path=path) + BODY[:-1])
                assert (await caller.answer()).status == 408
                assert await caller.closed() == b""
        assert [record.error_code for record in gate.recorder.records] == ["request_timeout"]


async def test_a_slow_body_that_goes_on_is_no_time_out():
    async with (
        engine_server() as engine,
        gateway(engine.url, body_timeout_s=0.3) as gate,
        raw_caller(gate.port) as caller,
    ):
        caller.send(head(LENGTH))
        for index in range(len(BODY)):
            await asyncio.sleep(0.02)
            caller.send(BODY[index : index + 1])
        assert (await caller.answer()).status == 200


async def test_idle_connections_are_closed():
    async with (
        engine_server() as engine,
        gateway(engine.url, keep_alive_s=0.2) as gate,
        raw_caller(gate.port) as caller,
    ):
        caller.send(post(ask()))
        assert (await caller.answer()).status == 200
        assert await caller.closed() == b""


async def test_expect_100_continue():
    async with engine_server() as engine, gateway(engine.url) as gate:
        async with raw_caller(gate.port) as caller:
            caller.send(head(LENGTH, b"Expect: 100-continue"))
            assert (await caller.head())[0] == 100
            caller.send(BODY)
            assert (await caller.answer()).status == 200
        async with raw_caller(gate.port) as caller:  # refused by its head: never asked to go on
            caller.send(post(BODY, key="Bearer bad", headers={"Expect": "100-continue"})[: -len(BODY)])
            assert (await caller.answer()).status == 401
        async with raw_caller(gate.port) as caller:
            caller.send(head(b"Content-Length: 999999999", b"Expect: 100-continue"))
            assert (await caller.answer()).status == 413
        async with raw_caller(gate.port) as caller:  # it did not wait
            caller.send(head(LENGTH, b"Expect: 100-continue") + BODY)
            assert (await caller.answer()).status == 200
        assert engine.requests[0].header("expect") is None


@pytest.mark.parametrize("stream", [False, True])
async def test_http_1_0(stream: bool):
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        caller.send(post(ask(stream=stream), version="1.0"))
        answer = await caller.answer()
        assert "transfer-encoding" not in answer.headers
        assert ("content-length" in answer.headers) is not stream
        assert WORDS[-1] in answer.body.decode()
        assert await caller.closed() == b""


async def test_connection_close_is_honoured():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        caller.send(post(ask(), headers={"Connection": "close"}) + post(ask()))
        assert (await caller.answer()).headers["connection"] == "close"
        assert await caller.closed() == b""
        assert len(engine.requests) == 1


async def test_pipelined_requests_are_answered_in_order():
    asgi = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n"
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        batch = [asgi, post(ask("shop")), post(ask("base", stream=True)), post(b"bad"), asgi, post(ask("store"))]
        caller.send(b"".join(batch * 8))
        for _ in range(8):
            assert (await caller.answer()).body == b"GET /first 0"
            assert (await caller.answer()).json["model"] == "shop"
            assert b'"base"' in (await caller.answer()).body
            assert (await caller.answer()).status == 400
            assert (await caller.answer()).body == b"GET /first 0"
            assert (await caller.answer()).json["model"] == "store"
        assert len(engine.requests) == 24


async def test_a_pipelined_request_waits_for_its_turn():
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour.stall_before_head = True
        caller.send(post(ask()) + head(LENGTH, b"Expect: 100-continue"))
        await until(lambda: len(engine.requests) == 1)
        engine.gate.set()
        assert (await caller.answer()).status == 200
        assert (await caller.head())[0] == 100
        caller.send(BODY)
        assert (await caller.answer()).status == 200


@pytest.mark.parametrize(
    "bad",
    [b"rubbish\r\n\r\n", head(LENGTH, LENGTH), chunked(body=b"zz\r\n"), chunked(body=b"zz\r\n").replace(HOT, b"/x")],
)
async def test_a_malformed_pipelined_request_spares_those_before_it(bad: bytes):
    async with engine_server() as engine, gateway(engine.url) as gate, raw_caller(gate.port) as caller:
        engine.behaviour.stall_before_head = True
        caller.send(post(ask()) + post(ask()) + bad + post(ask()))
        await until(lambda: len(engine.requests) == 1)
        engine.gate.set()
        assert (await caller.answer()).status == 200
        assert (await caller.answer()).status == 200
        assert (await caller.answer()).status == 400
        assert await caller.closed() == b""
        assert len(engine.requests) == 2


async def test_other_methods_and_paths_are_the_applications():
    async with gateway() as gate, raw_caller(gate.port) as caller:
        for method, path in (("GET", HOT.decode()), ("PUT", HOT.decode()), ("POST", "/v1/chat/completions/")):
            caller.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi".encode())
            assert (await caller.answer()).body.decode() == f"{method} {path} 2"


async def test_shutdown_lets_requests_finish():
    async with (
        engine_server() as engine,
        gateway(engine.url) as gate,
        raw_caller(gate.port) as caller,
        raw_caller(gate.port) as idle,
    ):
        engine.behaviour.stall_after_frames = 2
        caller.send(post(ask(stream=True)))
        await until(lambda: engine.sent_bytes > 0)
        gate.server.should_exit = True
        assert await idle.closed() == b""
        engine.gate.set()
        assert (await caller.answer()).frames[-1] == "[DONE]"
        assert await caller.closed() == b""
