"""Every way in which RFC 9112 lets a request be framed. The engine gets each in the same form."""

import h11
import pytest

from tests.conformance.scene import Scene
from tests.conformance.smuggling_corpus import (
    BODY,
    CHUNKED,
    HOT,
    LENGTH,
    LENIENT,
    LOOK_ALIKES,
    SMUGGLED,
    WHOLE,
    request,
)

SENT = {"model": "shop@0123456789ab", "messages": []}

FORMS = {
    "content-length": request(LENGTH, body=BODY),
    "content-length with blanks and tabs": request(b"content-LENGTH: \t 30 \t", body=BODY),
    "content-length with leading zeros": request(b"Content-Length: 0030", body=BODY),
    "chunked": request(CHUNKED, body=WHOLE),
    "chunked, written otherwise": request(b"transfer-ENCODING:ChUnKeD", body=WHOLE),
    "chunked after a tab": request(b"Transfer-Encoding:\tchunked", body=WHOLE),
    "chunks of one byte": request(CHUNKED, body=b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"),
    "sizes with leading zeros": request(CHUNKED, body=b"0000000000000000001E\r\n" + BODY + b"\r\n000\r\n\r\n"),
    "extension": request(CHUNKED, body=b"1e;a\r\n" + BODY + b"\r\n0;b\r\n\r\n"),
    "extension with a value": request(CHUNKED, body=b"1e;a=b;c=d\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "extension in quotes": request(CHUNKED, body=b'1e;a="0\\"; x"\r\n' + BODY + b"\r\n0\r\n\r\n"),
    "trailers": request(
        CHUNKED,
        b"Trailer: Authorization, X-Request-Id",
        body=WHOLE[:-2] + b"Authorization: Bearer bad\r\nX-Request-Id: trailer\r\nHost: b\r\n\r\n",
    ),
    "empty line before the request": b"\r\n" + request(LENGTH, body=BODY),
    "Host with a port": request(LENGTH, body=BODY, host=b"Host: gateway.example:8080\r\n"),
    "Host of an IPv6 address": request(LENGTH, body=BODY, host=b"Host: [::1]:8080\r\n"),
    "Host that is empty": request(LENGTH, body=BODY, host=b"Host:\r\n"),
    "Host with what a name may hold": request(LENGTH, body=BODY, host=b"Host: a_b-c.%41~!$&'()*+,;=\r\n"),
    "absolute target": request(LENGTH, body=BODY, line=b"POST http://elsewhere:1" + HOT + b" HTTP/1.1"),
    "absolute target with https": request(LENGTH, body=BODY, line=b"POST https://elsewhere" + HOT + b" HTTP/1.1"),
    "query": request(LENGTH, body=BODY, line=b"POST " + HOT + b"?api-version=1&x=%00 HTTP/1.1"),
    "upgrade": request(
        LENGTH, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk", body=BODY
    ),
    "upgrade, chunked": request(CHUNKED, b"Connection: Upgrade", b"Upgrade: h2c", body=WHOLE),
    "upgrade to a web socket": request(
        LENGTH, b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", body=BODY
    ),
    **{f"lenient: {name}": data for name, data in LENIENT.items()},
    **{f"look-alike: {name}": data for name, data in LOOK_ALIKES.items()},
}


@pytest.mark.parametrize("name", FORMS)
def test_one_request_in_many_forms(scene: Scene, name: str) -> None:
    with scene.caller() as caller:
        for number in range(2):
            caller.send(FORMS[name])
            answer = caller.answer()
            assert answer.status == 200
            assert answer.one("x-request-id") == answer.json["id"]
            assert answer.version == "1.1", number
        assert caller.ask(b'{"model":"base"}', ("X-Request-Id", "next")).json["id"] == "next"
    received = scene.received.requests
    assert len(received) == 3
    for each in received[:2]:
        assert (each.method, each.target, each.json) == ("POST", HOT.decode(), SENT)
        assert each.all("content-length") == [str(len(each.body))]
        assert "transfer-encoding" not in each.names
        assert each.all("host") == [f"127.0.0.1:{scene.upstream.port}"]
        assert each.all("x-request-id") != ["trailer"]


def test_h11_and_the_gateway_talk(scene: Scene) -> None:
    """Both sides by an independent implementation, several requests on one connection, each form of body."""
    with scene.caller() as caller:
        for number in range(4):
            framing = [("Transfer-Encoding", "chunked")] if number % 2 else []
            answer = caller.ask(BODY, ("X-Request-Id", f"r{number}"), *framing)
            assert (answer.status, answer.json["id"], answer.one("x-request-id")) == (200, f"r{number}", f"r{number}")
    upstream = scene.received
    assert [each.all("x-request-id") for each in upstream.requests] == [[f"r{number}"] for number in range(4)]
    assert len(upstream.raw) == 1  # on one kept connection


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_absent_body_is_an_empty_one(scene: Scene, version: str) -> None:
    with scene.caller() as caller:
        caller.send(request(line=b"POST " + HOT + f" HTTP/{version}".encode()))
        assert (caller.answer().code) == "invalid_request"
    assert scene.received.requests == []


@pytest.mark.parametrize("keep_alive", [False, True])
def test_http_1_0(scene: Scene, keep_alive: bool) -> None:
    """One request a connection, whatever `Connection` says; the answer has no chunks."""
    asked = [b"Connection: keep-alive"] if keep_alive else []
    with scene.caller() as caller:
        caller.send(request(LENGTH, *asked, body=BODY, line=b"POST " + HOT + b" HTTP/1.0") + SMUGGLED)
        (answer,) = caller.answers()
    assert answer.status == 200
    assert answer.one("connection") == "close"
    assert answer.all("transfer-encoding") == []
    assert len(scene.received.requests) == 1


def test_http_1_0_needs_no_host_and_asks_for_no_interim_answer(scene: Scene) -> None:
    with scene.caller() as caller:
        line = b"POST " + HOT + b" HTTP/1.0"
        caller.send(request(LENGTH, b"Expect: 100-continue", body=BODY, line=line, host=b""))
        with pytest.raises(AssertionError, match="a final answer"):
            caller.interim()
    assert len(scene.received.requests) == 1


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
@pytest.mark.parametrize("path", [HOT, b"/application"])
def test_who_expects_to_be_asked_is_asked(scene: Scene, path: bytes, value: str) -> None:
    with scene.caller() as caller:
        line = b"POST " + path + b" HTTP/1.1"
        for _ in range(2):
            caller.send(request(LENGTH, f"Expect: {value}".encode(), line=line))
            assert caller.interim() == 100
            caller.send(BODY)
            assert caller.answer().status == 200
    assert all("expect" not in each.names for each in scene.received.requests)


def test_who_expects_and_sends_at_once_is_answered(scene: Scene) -> None:
    with scene.caller() as caller:
        for body, framing in ((BODY, LENGTH), (WHOLE, CHUNKED)):
            caller.send(request(framing, b"Expect: 100-continue", body=body))
            assert caller.answer().status == 200
    assert len(scene.received.requests) == 2


REFUSED_BY_ITS_HEAD = {
    "key": (request(LENGTH, b"Expect: 100-continue").replace(b"Bearer good", b"Bearer bad"), 401),
    "length": (request(b"Content-Length: 999999", b"Expect: 100-continue"), 413),
    "framing": (request(b"Expect: 100-continue", LENGTH, CHUNKED), 400),
    "size of the head": (request(LENGTH, b"Expect: 100-continue", b"X: " + b"y" * 20_000), 431),
}


@pytest.mark.parametrize("name", REFUSED_BY_ITS_HEAD)
def test_what_its_head_refuses_is_not_asked_for(scene: Scene, name: str) -> None:
    head, status = REFUSED_BY_ITS_HEAD[name]
    with scene.caller() as caller:
        caller.send(head)
        with pytest.raises(AssertionError, match=f"a final answer.*{status}"):
            caller.interim()
    assert scene.received.requests == []


LARGE = {
    "one header": b"X: " + b"y" * 20_000,
    "many headers": b"\r\n".join(b"X-%d: y" % number for number in range(2_500)),
    "a name": b"y" * 20_000 + b": x",
}


@pytest.mark.parametrize("path", [HOT, b"/application"])
@pytest.mark.parametrize("name", LARGE)
def test_a_head_that_is_too_large(scene: Scene, name: str, path: bytes) -> None:
    with scene.caller() as caller:
        caller.send(request(LENGTH, LARGE[name], body=BODY + SMUGGLED, line=b"POST " + path + b" HTTP/1.1"))
        (answer,) = caller.answers()
    assert (answer.status, answer.code) == (431, "head_too_large")
    assert scene.received.requests == []


def test_a_target_that_is_too_large(scene: Scene) -> None:
    with scene.caller() as caller:
        caller.send(request(LENGTH, body=BODY, line=b"POST " + HOT + b"?" + b"y" * 20_000 + b" HTTP/1.1"))
        assert [each.status for each in caller.answers()] == [431]
    assert scene.received.requests == []


@pytest.mark.parametrize("start", [b"POST /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n", b"P"])
def test_a_head_without_end_is_not_collected(scene: Scene, start: bytes) -> None:
    filler = b"X: y\r\n" if start.endswith(b"\n") else b"y"
    with scene.caller() as caller:
        caller.send(start)
        for _ in range(64):
            caller.send(filler * (16_384 // len(filler)))
        (answer,) = caller.answers()
    assert answer.status in (400, 431)


@pytest.mark.parametrize("framing", [b"Content-Length: 300000", CHUNKED], ids=["length", "chunked"])
def test_a_body_that_is_too_large(scene: Scene, framing: bytes) -> None:
    body = b"493e0\r\n" + b"y" * 300_000 + b"\r\n0\r\n\r\n" if framing is CHUNKED else b"y" * 300_000
    with scene.caller() as caller:
        caller.send(request(framing, body=body))
        answer = caller.answer()
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert scene.received.requests == []


def test_other_methods_have_their_bodies_read(scene: Scene) -> None:
    """A body of a GET is no second request (CL.0)."""
    with scene.caller() as caller:
        for method in ("GET", "DELETE", "OPTIONS", "HEAD"):
            line = f"{method} {HOT.decode()} HTTP/1.1".encode()
            caller.send(request(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED, line=line))
            assert caller.answer(method=method).status == 200
            caller.send(request(CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED), line=line))
            assert caller.answer(method=method).status == 200
        assert caller.ask(BODY, ("X-Request-Id", "next")).json["id"] == "next"
    assert [each.all("x-request-id") for each in scene.received.requests] == [["next"]]
    assert scene.gate.asgi_bodies == [SMUGGLED] * 8


def test_a_body_that_the_application_does_not_read_is_no_request(scene: Scene) -> None:
    """The answer may be out before the body has come (CL.0)."""

    async def at_once(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})  # type: ignore[operator]
        await send({"type": "http.response.body"})  # type: ignore[operator]

    config = scene.gate.server.config
    before, config.loaded_app = config.loaded_app, at_once
    try:
        with scene.caller() as caller:
            for line in (b"POST /nothing HTTP/1.1", b"GET /nothing HTTP/1.1"):
                caller.send(request(b"Content-Length: %d" % len(SMUGGLED), line=line))
                assert caller.answer(method="GET").status == 404
                caller.send(SMUGGLED)
            assert caller.ask(BODY, ("X-Request-Id", "next")).json["id"] == "next"
    finally:
        config.loaded_app = before
    assert [each.all("x-request-id") for each in scene.received.requests] == [["next"]]


def test_h11_takes_every_answer_of_the_gateway_for_one(scene: Scene) -> None:
    """Refusals of each layer: framing, key, size, name, body."""
    with scene.caller() as caller:
        for body, headers, status in (
            (b"no json", (), 400),
            (b'{"model":"nobody"}', (), 404),
            (b"[" * 100_000, (), 400),
            (b'{"model":"shop"}', (), 200),
        ):
            assert caller.ask(body, *headers).status == status
    with scene.caller() as caller, pytest.raises(h11.LocalProtocolError):
        caller.ask(b"12", ("Content-Length", "1"))  # h11 itself keeps the suite from a mistake
