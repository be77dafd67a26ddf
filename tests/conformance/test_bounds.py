"""What a connection may hold, and how it ends: cases that came from faults found by this suite."""

import pytest

from tests.conformance.recording_upstream import Script, Step
from tests.conformance.scene import Scene
from tests.conformance.smuggling_corpus import BODY, CHUNKED, HOT, LENGTH, WHOLE, request
from tests.conformance.test_upstream import DOCUMENT, LENGTH_OF_DOCUMENT, SIZED


def test_close_in_a_trailer(scene: Scene) -> None:
    """llhttp reads nothing more after it: the answer must say close, and the connection end."""
    with scene.caller() as caller:
        caller.send(request(CHUNKED, body=WHOLE[:-2] + b"Connection: close\r\n\r\n"))
        (answer,) = caller.answers()
    assert answer.one("connection") == "close"


@pytest.mark.parametrize("path", [HOT, b"/application"])
@pytest.mark.parametrize("part", ["trailer", "extension"])
def test_what_is_beside_the_body_is_bounded_as_well(scene: Scene, part: str, path: bytes) -> None:
    """2.5 MB of a trailer or a chunk extension, where heads may have 16 KiB."""
    start = b"1e\r\n" + BODY + b"\r\n0\r\nX: " if part == "trailer" else b"1e;a="
    with scene.caller() as caller:
        caller.send(request(CHUNKED, body=start, line=b"POST " + path + b" HTTP/1.1"))
        for _ in range(40):
            caller.send(b"y" * 65536)
        answer = caller.answer()
    assert answer.status in (400, 413, 431)


@pytest.mark.parametrize("status", [204])
def test_no_length_with_204(scene: Scene, status: int) -> None:
    """RFC 9110, section 8.6: MUST NOT."""
    scene.script(Script((b"HTTP/1.1 %d X\r\n\r\n" % status,)))
    with scene.caller() as caller:
        answer = caller.ask(BODY)
    assert (answer.status, answer.all("content-length"), answer.all("transfer-encoding")) == (status, [], [])


def test_304_does_not_claim_an_empty_document(scene: Scene) -> None:
    """RFC 9110, section 8.6: its length must be that of the 200, or be left out."""
    scene.script(Script((b"HTTP/1.1 304 X\r\ncontent-length: 50\r\n\r\n",)))
    with scene.caller() as caller:
        answer = caller.ask(BODY)
    assert answer.all("content-length") in ([], ["50"])


@pytest.mark.parametrize("status", [b"600", b"999", b"000"])
def test_a_status_that_is_none(scene: Scene, status: bytes) -> None:
    """RFC 9110, section 15: outside 100 to 599 it is invalid. Now a KeyError, logged as unexpected, 500."""
    scene.script(Script((b"HTTP/1.1 " + status + b" X\r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT, Step.CLOSE)))
    with scene.caller() as caller:
        answer = caller.ask(BODY)
    assert (answer.status, answer.code) == (503, "engine_unavailable")


def test_a_bad_target_after_a_request_that_waits(scene: Scene) -> None:
    """The refusal is for the bad one; now it is for the one before it, or a crash of the callback."""
    scene.script(Script((Step.STALL, SIZED)))
    bad = request(LENGTH, body=BODY, line=b"POST http://a:b" + HOT + b" HTTP/1.1")
    with scene.caller() as caller:
        caller.send(request(LENGTH, body=BODY) + request(LENGTH, b"X-Request-Id: second", body=BODY) + bad)
        scene.wait(lambda: len(scene.upstream.requests) == 1)
        scene.release()
        assert [answer.status for answer in caller.answers()] == [200, 200, 400]


def test_a_target_of_absolute_form_without_a_good_port_alone(scene: Scene) -> None:
    with scene.caller() as caller:
        caller.send(request(LENGTH, body=BODY, line=b"GET http://a:b/x HTTP/1.1"))
        assert [answer.status for answer in caller.answers()] == [400]


def test_a_body_over_64_kib_in_one_read(scene: Scene) -> None:
    with scene.caller() as caller:
        assert caller.ask(b'{"model":"shop","x":"' + b"y" * 200_000 + b'"}').status == 200


@pytest.mark.parametrize("target", [b"http://a:b" + HOT, b"http://" + HOT])
def test_targets_that_can_not_be_read(scene: Scene, target: bytes) -> None:
    """To go to REQUEST_LINES of smuggling_corpus.py, as "port that is no number", "absolute target without a host"."""
    with scene.caller() as caller:
        caller.send(request(LENGTH, body=BODY, line=b"POST " + target + b" HTTP/1.1"))
        assert [answer.status for answer in caller.answers()] == [400]
    assert scene.received.requests == []
