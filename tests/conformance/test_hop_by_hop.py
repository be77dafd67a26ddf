"""Headers that concern one connection stay on it, both ways (RFC 9110, section 7.6.1)."""

import pytest

from tests.conformance.recording_upstream import Script
from tests.conformance.scene import Scene
from tests.conformance.smuggling_corpus import BODY, LENGTH, request

OF_ONE_CONNECTION = {
    "Keep-Alive": "timeout=5",
    "Proxy-Authenticate": "Basic",
    "Proxy-Authorization": "Basic eDp5",
    "Proxy-Connection": "keep-alive",
    "TE": "trailers",
    "Trailer": "X-Sum",
    "HTTP2-Settings": "AAMAAABk",
}
OF_THE_CALLER = {"Authorization": "Bearer good", "Cookie": "a=b", "Expect": "x", "Accept-Encoding": "gzip"}
END_TO_END = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "suite",
    "X-Own": "1",
    "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "OpenAI-Organization": "o",
}


def answering(*lines: bytes, body: bytes = b"{}") -> Script:
    head = b"".join(line + b"\r\n" for line in (*lines, b"Content-Length: %d" % len(body)))
    return Script((b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body,))


@pytest.mark.parametrize("name", [*OF_ONE_CONNECTION, *OF_THE_CALLER])
def test_the_engine_does_not_get_it(scene: Scene, name: str) -> None:
    value = {**OF_ONE_CONNECTION, **OF_THE_CALLER}[name]
    fields = {**END_TO_END, name: value}
    lines = [f"{key}: {each}".encode() for key, each in fields.items() if key != "Authorization"]
    with scene.caller() as caller:
        caller.send(request(LENGTH, *lines, body=BODY))
        assert caller.answer().status == 200
    (received,) = scene.received.requests
    assert name.lower() not in received.names
    for key, each in END_TO_END.items():
        assert received.all(key.lower()) == [each]


@pytest.mark.parametrize("name", [name for name in OF_ONE_CONNECTION if name != "HTTP2-Settings"])
def test_the_caller_does_not_get_it(scene: Scene, name: str) -> None:
    line = f"{name}: {OF_ONE_CONNECTION[name]}".encode()
    scene.script(answering(line, b"X-Own: 1", b"Set-Cookie: a", b"Set-Cookie: b", b"Connection: keep-alive"))
    with scene.caller() as caller:
        answer = caller.ask(BODY)
    assert answer.all(name.lower()) == []
    assert answer.all("connection") == []
    assert (answer.all("x-own"), answer.all("set-cookie")) == (["1"], ["a", "b"])


NAMED = {
    "one": [b"Connection: X-Hop"],
    "written otherwise": [b"cONNECTION: x-hOP"],
    "in a list": [b"Connection: keep-alive , X-Hop ,, x-other"],
    "in one of two lines": [b"Connection: keep-alive", b"Connection: X-Hop"],
    "after the header": [b"X-End: 2", b"Connection:\tX-Hop\t"],
}


@pytest.mark.parametrize("name", NAMED)
def test_what_connection_names_stays_too(scene: Scene, name: str) -> None:
    with scene.caller() as caller:
        caller.send(request(LENGTH, b"X-Hop: secret", *NAMED[name], b"X-Own: 1", body=BODY))
        assert caller.answer().status == 200
    (received,) = scene.received.requests
    assert {"x-hop", "connection"} & received.names == set()
    assert received.all("x-own") == ["1"]
    scene.reset()
    scene.script(answering(b"X-Hop: secret", *NAMED[name], b"X-Own: 1"))
    with scene.caller() as caller:
        answer = caller.ask(BODY)
    assert (answer.all("x-hop"), answer.all("connection"), answer.all("x-own")) == ([], [], ["1"])


@pytest.mark.parametrize("name", ["Content-Length", "Host", "X-Request-Id", "Content-Type"])
def test_connection_can_not_take_away_what_the_gateway_sets(scene: Scene, name: str) -> None:
    with scene.caller() as caller:
        caller.send(request(LENGTH, f"Connection: {name}".encode(), b"Content-Type: text/plain", body=BODY))
        assert caller.answer().status == 200
    (received,) = scene.received.requests
    assert received.names.issuperset({"content-length", "host", "x-request-id"})
    scene.reset()
    scene.script(answering(f"Connection: {name}".encode(), b"Content-Type: application/json"))
    with scene.caller() as caller:
        answer = caller.ask(BODY)
    assert (answer.body, len(answer.all("x-request-id"))) == (b"{}", 1)


def test_an_upgrade_is_not_passed_on(scene: Scene) -> None:
    """It is declined by serving the request as it stands."""
    with scene.caller() as caller:
        caller.send(request(LENGTH, b"Connection: Upgrade", b"Upgrade: websocket", body=BODY))
        answer = caller.answer()
    assert (answer.status, answer.all("upgrade")) == (200, [])
    (received,) = scene.received.requests
    assert {"upgrade", "connection"} & received.names == set()


def test_the_engine_can_not_speak_for_the_gateway(scene: Scene) -> None:
    forged = [f"X-Loramux-{name}: forged".encode() for name in ("Adapter", "Version", "Replica")]
    scene.script(answering(*forged, b"X-Request-Id: forged"))
    with scene.caller() as caller:
        answer = caller.ask(BODY, ("X-Request-Id", "mine"))
    assert "forged" not in str(answer.headers)
    assert answer.one("x-request-id") == "mine"


def test_trailers_stay(scene: Scene) -> None:
    with scene.caller() as caller:
        caller.send(request(b"Transfer-Encoding: chunked", body=b"1e\r\n" + BODY + b"\r\n0\r\nX-Sum: secret\r\n\r\n"))
        assert caller.answer().status == 200
    assert b"secret" not in scene.received.bytes_seen
    scene.reset()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
    scene.script(Script((head + b"e\r\ndata: [DONE]\n\n\r\n0\r\nX-Sum: secret\r\n\r\n",)))
    with scene.caller() as caller:
        answer = caller.ask(b'{"model":"shop","stream":true}')
    assert (answer.body, answer.trailers, answer.all("x-sum")) == (b"data: [DONE]\n\n", (), [])
