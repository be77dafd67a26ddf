"""What engines answer: every form that RFC 9112 has, and everything that is none."""

import json

import pytest

from tests.conformance.caller import Answer, BrokenOffError
from tests.conformance.recording_upstream import Script, Step
from tests.conformance.scene import Scene
from tests.conformance.smuggling_corpus import BODY, LENGTH, request

DOCUMENT = b'{"id":"x","model":"shop@0123456789ab","choices":[]}'
RENAMED = DOCUMENT.replace(b"@0123456789ab", b"")
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH_OF_DOCUMENT = b"content-length: %d\r\n" % len(DOCUMENT)
SIZED = OK + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DOCUMENT), DOCUMENT)
STREAM = OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FRAME = b'data: {"model":"shop@0123456789ab","choices":[{"delta":{"content":"a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
STREAMED = b'{"model":"shop","stream":true}'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def answered(scene: Scene, *steps: bytes | Step, body: bytes = BODY) -> Answer:
    """The answer to one request; the engine's next one must be well."""
    scene.script(Script(steps))
    with scene.caller() as caller:
        answer = caller.ask(body, ("X-Request-Id", "mine"))
    assert answer.one("x-request-id") == "mine"
    assert len(scene.received.requests) == 1
    return answer


def byte_by_byte(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[index : index + 1] for index in range(len(data)))


GOOD = {
    "content-length": (SIZED,),
    "chunked": (CHUNKED + IN_CHUNKS,),
    "chunked, written otherwise": (OK + b"Transfer-ENCODING: Chunked\r\n\r\n" + IN_CHUNKS,),
    "chunks of one byte": (CHUNKED, b"".join(b"1\r\n%c\r\n" % byte for byte in DOCUMENT), b"0\r\n\r\n"),
    "chunk extensions": (CHUNKED + IN_CHUNKS.replace(b"\r\n{", b';a=b;c="d"\r\n{'),),
    "trailers": (CHUNKED + IN_CHUNKS[:-2] + b"Content-Type: x\r\nX-Sum: 1\r\n\r\n",),
    "until it closes": (OK + b"\r\n" + DOCUMENT, Step.CLOSE),
    "until it closes, and says so": (OK + b"connection: close\r\n\r\n" + DOCUMENT, Step.CLOSE),
    "length, and closes": (OK + b"connection: close\r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT, Step.CLOSE),
    "length, and is reset": (SIZED, Step.RESET),
    "HTTP/1.0 until it closes": (b"HTTP/1.0 200 OK\r\n\r\n" + DOCUMENT, Step.CLOSE),
    "HTTP/1.0 with a length": (b"HTTP/1.0 200 OK\r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT,),
    "HTTP/1.0 that is kept": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT,
    ),
    "no reason": (b"HTTP/1.1 200 \r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT,),
    "neither reason nor blank": (b"HTTP/1.1 200\r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT,),
    "100 first": (b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED,),
    "102 and 103 first": (
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\nx-hint: 1\r\n\r\n" + SIZED,
    ),
    "103 twenty times": (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 20 + SIZED,),
    "a large head": (OK + b"x-large: " + b"y" * 30_000 + b"\r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT,),
    "an early answer": (SIZED,),
}


@pytest.mark.parametrize("cut", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", GOOD)
def test_one_answer_in_many_forms(scene: Scene, name: str, cut: bool) -> None:
    steps: list[bytes | Step] = []
    for step in GOOD[name]:
        small = isinstance(step, bytes) and cut and len(step) < 1000
        steps += byte_by_byte(step) if small and isinstance(step, bytes) else (step,)
    answer = answered(scene, *steps)
    assert (answer.status, answer.body) == (200, RENAMED)
    assert answer.all("content-length") == [str(len(RENAMED))]
    assert {"link", "x-hint", "x-sum"}.isdisjoint(name for name, _ in answer.headers)


NOT_AN_ANSWER: dict[str, tuple[bytes | Step, ...]] = {
    "closes before the head": (Step.CLOSE,),
    "is reset before the head": (Step.RESET,),
    "closes in the status line": (b"HTTP/1.1 2", Step.CLOSE),
    "closes in a header": (OK + b"content-le", Step.CLOSE),
    "closes before the end of the head": (OK + b"content-length: 0\r\n", Step.CLOSE),
    "closes after an interim answer": (b"HTTP/1.1 100 Continue\r\n\r\n", Step.CLOSE),
    "closes before the body": (OK + LENGTH_OF_DOCUMENT + b"\r\n", Step.CLOSE),
    "closes in the body": (SIZED[:-1], Step.CLOSE),
    "is reset in the body": (SIZED[:-1], Step.RESET),
    "closes before the first chunk": (CHUNKED, Step.CLOSE),
    "closes in a chunk's size": (CHUNKED + IN_CHUNKS[:1], Step.CLOSE),
    "closes in a chunk": (CHUNKED + IN_CHUNKS[:20], Step.CLOSE),
    "closes after a chunk": (CHUNKED + IN_CHUNKS[:-5], Step.CLOSE),
    "closes in the last chunk": (CHUNKED + IN_CHUNKS[:-2], Step.CLOSE),
    "closes in the trailers": (CHUNKED + IN_CHUNKS[:-2] + b"x-sum: 1\r\n", Step.CLOSE),
    "is reset before it closes": (OK + b"\r\n" + DOCUMENT, Step.RESET),
    "garbage": (b"+OK redis\r\n\r\n", Step.STALL),
    "null bytes": (b"\x00" * 64, Step.STALL),
    "TLS": (b"\x15\x03\x01\x00\x02\x02\x0a", Step.STALL),
    "a request": (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Step.STALL),
    "HTML": (b"<html></html>", Step.STALL),
    "HTTP/0.9": (b"hello\r\n", Step.STALL),
    "HTTP/2": (b"HTTP/2 200 OK\r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT, Step.STALL),
    "status of two digits": (SIZED.replace(b"200", b"20", 1), Step.STALL),
    "status of four digits": (SIZED.replace(b"200", b"2000", 1), Step.STALL),
    "status that is no number": (SIZED.replace(b"200", b"OK", 1), Step.STALL),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n" + SIZED, Step.STALL),
    "both framings": (OK + b"transfer-encoding: chunked\r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + IN_CHUNKS, Step.STALL),
    "both framings, length first": (
        OK + LENGTH_OF_DOCUMENT + b"transfer-encoding: chunked\r\n\r\n" + DOCUMENT,
        Step.STALL,
    ),
    "two lengths": (OK + LENGTH_OF_DOCUMENT + b"content-length: 2\r\n\r\n" + DOCUMENT, Step.STALL),
    "a list of lengths": (OK + b"content-length: 51, 51\r\n\r\n" + DOCUMENT, Step.STALL),
    "a negative length": (OK + b"content-length: -1\r\n\r\n" + DOCUMENT, Step.STALL),
    "a length in hexadecimal": (OK + b"content-length: 0x33\r\n\r\n" + DOCUMENT, Step.STALL),
    "a length that overflows": (OK + b"content-length: 18446744073709551667\r\n\r\n" + DOCUMENT, Step.STALL),
    "bare LF in the head": (SIZED.replace(b"\r\n", b"\n", 2), Step.STALL),
    "a folded header": (OK + b"x: y\r\n z\r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT, Step.STALL),
    "null in a header": (OK + b"x: y\x00\r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT, Step.STALL),
    "bare CR in a header": (OK + b"x: y\rz: 1\r\n" + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT, Step.STALL),
    "blank before a colon": (OK + b"transfer-encoding : chunked\r\n\r\n" + IN_CHUNKS, Step.CLOSE),
    "tab after chunked": (OK + b"transfer-encoding: chunked\t\r\n\r\n" + IN_CHUNKS, Step.CLOSE),
    "gzip": (OK + b"transfer-encoding: gzip\r\n\r\n" + IN_CHUNKS, Step.CLOSE),
    "chunked, gzip": (OK + b"transfer-encoding: chunked, gzip\r\n\r\n" + IN_CHUNKS, Step.CLOSE),
    "chunk size -1": (CHUNKED + b"-1\r\n" + DOCUMENT, Step.STALL),
    "chunk size 0x": (CHUNKED + b"0x33\r\n" + DOCUMENT + b"\r\n0\r\n\r\n", Step.STALL),
    "chunk size with a blank": (CHUNKED + b"33 \r\n" + DOCUMENT + b"\r\n0\r\n\r\n", Step.STALL),
    "chunk size that overflows": (CHUNKED + b"f" * 17 + b"\r\n" + DOCUMENT, Step.STALL),
    "chunk size too small": (CHUNKED + b"32\r\n" + DOCUMENT + b"\r\n0\r\n\r\n", Step.STALL),
    "chunk ends with bare LF": (CHUNKED + IN_CHUNKS.replace(b"\r\n", b"\n"), Step.STALL),
    "chunk extension with LF": (CHUNKED + b"33;a\nb\r\n" + DOCUMENT + b"\r\n0\r\n\r\n", Step.STALL),
    "two answers at once": (SIZED + SIZED, Step.STALL),
    "a body longer than its length": (SIZED + b"more", Step.STALL),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\n\r\n" + DOCUMENT, Step.STALL),
    "a head without end": (OK + b"x: " + b"y" * 1_200_000, Step.STALL),
    "interim answers without end": (b"HTTP/1.1 103 Early Hints\r\nx: " + b"y" * 60_000 + b"\r\n\r\n",) * 20,
}


@pytest.mark.parametrize("body", [BODY, STREAMED], ids=["document", "stream"])
@pytest.mark.parametrize("name", NOT_AN_ANSWER)
def test_what_is_no_answer_is_not_passed_on(scene: Scene, name: str, body: bytes) -> None:
    """The caller gets an answer of the gateway's own, as nothing was sent yet."""
    answer = answered(scene, *NOT_AN_ANSWER[name], body=body)
    assert (answer.status, answer.code) == (503, "engine_unavailable")
    assert int(answer.one("retry-after")) >= 1


BROKEN_STREAMS: dict[str, tuple[bytes | Step, ...]] = {
    "closes after a frame": (STREAM + chunk(FRAME), Step.CLOSE),
    "closes in a frame": (STREAM + chunk(FRAME + FRAME[:9]), Step.CLOSE),
    "closes in a chunk's size": (STREAM + chunk(FRAME) + b"4", Step.CLOSE),
    "closes before the last chunk": (STREAM + chunk(FRAME) + chunk(DONE), Step.CLOSE),
    "closes in the last chunk": (STREAM + chunk(FRAME) + chunk(DONE) + b"0\r\n", Step.CLOSE),
    "is reset": (STREAM + chunk(FRAME), Step.STALL, Step.RESET),
    "bad chunk size": (STREAM + chunk(FRAME), Step.STALL, b"zz\r\n", Step.STALL),
    "negative chunk size": (STREAM + chunk(FRAME), Step.STALL, b"-1\r\n", Step.STALL),
    "no end of a chunk": (STREAM + chunk(FRAME), Step.STALL, chunk(FRAME)[:-2] + b"XX", Step.STALL),
    "an answer in the middle": (STREAM + chunk(FRAME), Step.STALL, SIZED, Step.STALL),
    "fewer bytes than its length": (
        OK + b"content-type: text/event-stream\r\ncontent-length: 500\r\n\r\n" + FRAME,
        Step.CLOSE,
    ),
    "reset in place of an end": (OK + b"content-type: text/event-stream\r\n\r\n" + FRAME, Step.STALL, Step.RESET),
}


@pytest.mark.parametrize("name", BROKEN_STREAMS)
def test_a_stream_that_breaks_off_ends_in_an_error_frame(scene: Scene, name: str) -> None:
    """What came whole was passed on, nothing of a torn frame is, and the answer to the caller is itself whole."""
    scene.script(Script(BROKEN_STREAMS[name]))
    with scene.caller() as caller:
        caller.send(request(b"Content-Length: %d" % len(STREAMED), body=STREAMED))
        if Step.STALL in BROKEN_STREAMS[name]:
            scene.wait(lambda: any(connection.busy for connection in scene.upstream.live))
            scene.release()
        answer = caller.answer()
        assert answer.status == 200
        frames = answer.body.split(b"\n\n")
        assert frames[0] == FRAME.replace(b"@0123456789ab", b"").strip()
        assert frames[-1] == b""
        error = json.loads(frames[-2].removeprefix(b"data: "))["error"]
        assert error["code"] == "engine_failed"
        assert FRAME[:9] not in frames[1:-2]
        assert caller.ask(BODY, ("X-Request-Id", "next")).json["id"] == "next"
    assert len(scene.received.requests) == 2
    assert [record.outcome for record in scene.records[:1]] == ["interrupted"]


GOOD_STREAMS: dict[str, tuple[bytes | Step, ...]] = {
    "chunked": (STREAM + chunk(FRAME) + chunk(DONE) + b"0\r\n\r\n",),
    "byte by byte": byte_by_byte(STREAM + chunk(FRAME) + chunk(DONE) + b"0\r\n\r\n"),
    "chunks across frames": (
        STREAM + chunk(FRAME[:30]) + chunk(FRAME[30:] + DONE[:3]) + chunk(DONE[3:]) + b"0\r\n\r\n",
    ),
    "with a length": (
        OK + b"content-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(FRAME + DONE) + FRAME + DONE,
    ),
    "until it closes": (OK + b"content-type: text/event-stream\r\n\r\n" + FRAME + DONE, Step.CLOSE),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + FRAME + DONE, Step.CLOSE),
}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("name", GOOD_STREAMS)
def test_a_stream_in_many_forms(scene: Scene, name: str, version: str) -> None:
    scene.script(Script(GOOD_STREAMS[name]))
    line = f"POST /v1/chat/completions HTTP/{version}".encode()
    with scene.caller() as caller:
        caller.send(request(b"Content-Length: %d" % len(STREAMED), body=STREAMED, line=line))
        answer = caller.answer()
    assert answer.body == (FRAME + DONE).replace(b"@0123456789ab", b"")
    assert answer.all("transfer-encoding") == ([] if version == "1.0" else ["chunked"])
    assert len(scene.received.requests) == 1


STALLS: dict[str, tuple[bytes, ...]] = {
    "before the head": (),
    "in the head": (OK + b"x: ",),
    "after an interim answer": (b"HTTP/1.1 100 Continue\r\n\r\n",),
    "before the body": (OK + LENGTH_OF_DOCUMENT + b"\r\n",),
    "in the body": (SIZED[:-1],),
    "in a chunk": (CHUNKED + IN_CHUNKS[:20],),
    "before the last chunk": (CHUNKED + IN_CHUNKS[:-5],),
}


@pytest.mark.parametrize("name", STALLS)
def test_an_engine_that_stalls_is_given_up(hasty: Scene, name: str) -> None:
    answer = answered(hasty, *STALLS[name], Step.STALL)
    assert (answer.status, answer.code) == (504, "engine_timeout")
    assert hasty.upstream.left_early == 1


@pytest.mark.parametrize("sent", [FRAME, FRAME + FRAME[:9]], ids=["between frames", "in a frame"])
def test_a_stream_that_stalls_ends_in_an_error_frame(hasty: Scene, sent: bytes) -> None:
    answer = answered(hasty, STREAM + chunk(sent), Step.STALL, body=STREAMED)
    assert (answer.status, answer.body.count(b"data: ")) == (200, 2)
    assert b'"code":"engine_timeout"' in answer.body


def test_a_large_document_that_breaks_off_is_no_whole_answer(scene: Scene) -> None:
    """It was under way, so all that can be said is that it is not whole."""
    scene.script(Script((OK + b"content-length: 9000000\r\n\r\n", b" " * 6_000_000, Step.CLOSE)))
    with scene.caller() as caller, pytest.raises(BrokenOffError):
        caller.ask(BODY)
    assert [record.outcome for record in scene.records] == ["interrupted"]


@pytest.mark.parametrize("status", [200, 400, 413])
def test_an_answer_that_comes_before_the_body_was_taken(scene: Scene, status: int) -> None:
    """An engine may know from the head alone. It goes on reading, as it must (RFC 9112, section 9.6)."""
    head = b"HTTP/1.1 %d X\r\n" % status
    scene.script(Script((head + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT,), early=True))
    body = b'{"model":"shop","x":"' + b"y" * 200_000 + b'"}'
    with scene.caller() as caller:
        assert caller.ask(body).status == status
        assert caller.ask(BODY, ("X-Request-Id", "next")).json["id"] == "next"
    assert [len(each.body) > 1000 for each in scene.received.requests] == [True, False]


def test_an_answer_that_comes_too_late_is_nobodys(scene: Scene) -> None:
    """Bytes on a connection that no request waits on: it is closed, and the next caller's answer is its own."""
    scene.script(Script((SIZED, Step.STALL, SIZED.replace(b'"x"', b'"late"'), Step.STALL)))
    with scene.caller() as caller:
        assert caller.ask(BODY).status == 200
        connection = next(iter(scene.upstream.live))
        scene.release()
        scene.wait(lambda: connection not in scene.upstream.live)
        assert caller.ask(BODY, ("X-Request-Id", "next")).json["id"] == "next"
    upstream = scene.received
    assert len(upstream.raw) == 2


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body(scene: Scene, status: int) -> None:
    """A length in it would be that of an answer to another request: no bytes follow."""
    length = b"" if status == 204 else b"content-length: 50\r\n"
    answer = answered(scene, b"HTTP/1.1 %d X\r\netag: 1\r\n%b\r\n" % (status, length))
    assert (answer.status, answer.body, answer.all("etag")) == (status, b"", ["1"])


@pytest.mark.parametrize("status", [201, 299, 301, 400, 404, 418, 422, 429, 499, 500, 503, 599])
def test_any_status_is_passed_on(scene: Scene, status: int) -> None:
    answer = answered(scene, b"HTTP/1.1 %d X\r\n" % status + LENGTH_OF_DOCUMENT + b"\r\n" + DOCUMENT)
    assert (answer.status, answer.body) == (status, RENAMED)


def test_a_caller_that_leaves_frees_the_engine(scene: Scene) -> None:
    for steps in ((Step.STALL,), (OK + b"x", Step.STALL), (STREAM + chunk(FRAME), Step.STALL)):
        scene.reset()
        scene.script(Script(steps))
        with scene.caller() as caller:
            caller.send(request(LENGTH, body=BODY))
            scene.wait(lambda: len(scene.upstream.requests) == 1)
        scene.wait(lambda: scene.upstream.left_early == 1)
        assert [record.outcome for record in scene.records] == ["cancelled"]
