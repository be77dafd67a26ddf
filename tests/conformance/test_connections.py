"""Connections of callers: kept, pipelined, slow, half closed and broken."""

import time

import pytest

from tests.conformance.recording_upstream import Script, Step
from tests.conformance.scene import Scene
from tests.conformance.smuggling_corpus import BODY, CHUNKED, CORPUS, HOT, LENGTH, MARK, SMUGGLED, WHOLE, request

APPLICATION = b"GET /application HTTP/1.1\r\nHost: a\r\n\r\n"


def asks(identity: str, *lines: bytes) -> bytes:
    return request(LENGTH, b"X-Request-Id: " + identity.encode(), *lines, body=BODY)


def test_a_connection_is_kept(scene: Scene) -> None:
    with scene.caller() as caller:
        for number in range(5):
            caller.send(asks(f"r{number}"))
            answer = caller.answer()
            assert answer.json["id"] == f"r{number}"
            assert answer.all("connection") == []
    assert len(scene.received.requests) == 5


@pytest.mark.parametrize("value", [b"close", b"Close", b"x, close", b"close, x", b" ,close,"])
def test_connection_close(scene: Scene, value: bytes) -> None:
    with scene.caller() as caller:
        caller.send(asks("first", b"Connection: " + value) + SMUGGLED)
        (answer,) = caller.answers()
    assert answer.one("connection") == "close"
    upstream = scene.received
    assert len(upstream.requests) == 1
    assert MARK not in upstream.bytes_seen


def test_pipelined_requests_are_answered_in_their_order(scene: Scene) -> None:
    with scene.caller() as caller:
        chunked = request(CHUNKED, b"X-Request-Id: chunked", body=WHOLE)
        caller.send(b"".join(APPLICATION + asks(f"r{number}") + chunked for number in range(20)))
        for number in range(20):
            assert caller.answer(method="GET").body == b"GET /application 0"
            assert caller.answer().json["id"] == f"r{number}"
            assert caller.answer().json["id"] == "chunked"
    assert len(scene.received.requests) == 40


def test_the_engine_gets_one_pipelined_request_at_a_time(scene: Scene) -> None:
    scene.script(Script((Step.STALL, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")))
    with scene.caller() as caller:
        caller.send(asks("first") + asks("second") + asks("third"))
        scene.wait(lambda: len(scene.upstream.requests) == 1)
        scene.release()
        assert caller.answer().body == b"{}"
        assert [caller.answer().json["id"] for _ in range(2)] == ["second", "third"]
    assert len(scene.received.requests) == 3


@pytest.mark.parametrize("path", [HOT, b"/admin/v1/adapters"])
@pytest.mark.parametrize("name", ["both: CL.TE", "line: null before the request", "chunk: size: minus", "Host: none"])
def test_what_is_refused_spares_what_was_asked_before_it(scene: Scene, name: str, path: bytes) -> None:
    with scene.caller() as caller:
        caller.send(asks("r1") + asks("r2") + CORPUS[name].replace(HOT, path, 1))
        first, second, third = caller.answers()
    assert [first.json["id"], second.json["id"]] == ["r1", "r2"]
    assert 400 <= third.status < 500
    upstream = scene.received
    assert len(upstream.requests) == 2
    assert MARK not in upstream.bytes_seen


@pytest.mark.parametrize("path", [HOT, b"/application"])
def test_slow_heads_and_bodies_are_given_up(hasty: Scene, path: bytes) -> None:
    whole = request(LENGTH, body=BODY, line=b"POST " + path + b" HTTP/1.1")
    chunked = request(CHUNKED, body=WHOLE, line=b"POST " + path + b" HTTP/1.1")
    for sent in (whole[:4], whole[:60], whole[: -len(BODY) - 1], whole[: -len(BODY)], whole[:-1], chunked[:-1]):
        with hasty.caller() as caller:
            caller.send(sent)
            (answer,) = caller.answers()
        assert (answer.status, answer.code, answer.one("connection")) == (408, "request_timeout", "close")
    assert hasty.received.requests == []


def test_a_head_may_not_come_byte_by_byte_for_ever(hasty: Scene) -> None:
    """A byte now and then is no reason to wait longer for the head."""
    ends_at = time.monotonic() + 0.5
    with hasty.caller() as caller:
        caller.send(b"GET / HTTP/1.1\r\nX: ")
        while time.monotonic() < ends_at:
            caller.send(b"y")
            time.sleep(0.01)
        (answer,) = caller.answers()
    assert answer.status == 408


def test_who_says_nothing_is_hung_up_on(hasty: Scene) -> None:
    for sent in (b"", b"\r\n", b"\r\n\r\n"):
        with hasty.caller() as caller:
            caller.send(sent)
            assert caller.closes()


def test_who_says_nothing_more_is_hung_up_on(hasty: Scene) -> None:
    with hasty.caller() as caller:
        caller.send(asks("r1"))
        assert caller.answer().status == 200
        assert caller.closes()


CUT = {
    "in the request line": 10,
    "in a header": 60,
    "before the empty line": -len(BODY) - 2,
    "before the body": -len(BODY),
    "in the body": -1,
}


@pytest.mark.parametrize("path", [HOT, b"/application"])
@pytest.mark.parametrize("name", CUT)
def test_a_half_closed_socket_with_part_of_a_request(scene: Scene, name: str, path: bytes) -> None:
    """The rest can not come any more: nothing is forwarded, and the connection ends."""
    with scene.caller() as caller:
        caller.send(request(LENGTH, body=BODY, line=b"POST " + path + b" HTTP/1.1")[: CUT[name]])
        caller.half_close()
        assert caller.closes()
    assert scene.received.requests == []
    assert scene.gate.asgi_bodies == []


def test_a_half_closed_socket_in_chunks(scene: Scene) -> None:
    for end in range(1, len(WHOLE), 5):
        with scene.caller() as caller:
            caller.send(request(CHUNKED, body=WHOLE[:end]))
            caller.half_close()
            assert caller.closes()
    assert scene.received.requests == []


def test_who_half_closes_while_the_engine_works_has_left(scene: Scene) -> None:
    """An end of its bytes is all that a caller who leaves can be told by: the engine is freed at once."""
    scene.script(Script((Step.STALL,)))
    with scene.caller() as caller:
        caller.send(asks("r1"))
        scene.wait(lambda: len(scene.upstream.requests) == 1)
        caller.half_close()
        assert caller.closes()
        scene.wait(lambda: scene.upstream.left_early == 1)
    assert [record.outcome for record in scene.records] == ["cancelled"]


def test_who_half_closes_after_its_answer_has_got_it(scene: Scene) -> None:
    with scene.caller() as caller:
        caller.send(asks("r1"))
        assert caller.answer().json["id"] == "r1"
        caller.half_close()
        assert caller.closes()
    assert [record.outcome for record in scene.records] == ["ok"]


def test_half_a_request_after_a_whole_one(scene: Scene) -> None:
    with scene.caller() as caller:
        caller.send(asks("r1"))
        assert caller.answer().json["id"] == "r1"
        caller.send(asks("r2")[:-1])
        caller.half_close()
        assert caller.closes()
    assert len(scene.received.requests) == 1
