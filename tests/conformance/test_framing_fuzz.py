"""Property fuzzing of the protocol class: how bytes are cut does not matter, and h11 agrees on what they say.

`HYPOTHESIS_PROFILE=long` (see `tests/conftest.py`) lets it run for long."""

import json
import re
from collections.abc import Sequence

import h11
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from loramux_serving.relay.request import ENDPOINTS
from tests.conformance.smuggling_corpus import (
    BODY,
    CHUNKED,
    CORPUS,
    HOT,
    LENGTH,
    LENIENT,
    LOOK_ALIKES,
    SMUGGLED,
    WHOLE,
    request,
)
from tests.conformance.wire import Outcome, Wire

REFUSED = ("malformed_request", "head_too_large")
BY_THE_HEAD = ("unauthenticated", "body_too_large")
"""Refused before the body has come, and whether or not it comes."""

WELL = {
    "length": request(LENGTH, body=BODY),
    "chunked": request(CHUNKED, body=b"5;a=b\r\n" + BODY[:5] + b"\r\n19\r\n" + BODY[5:] + b"\r\n0\r\nX: y\r\n\r\n"),
    "upgrade": request(LENGTH, b"Connection: Upgrade", b"Upgrade: h2c", body=BODY),
    "upgrade, chunked": request(CHUNKED, b"Connection: Upgrade", b"Upgrade: h2c", body=WHOLE),
    "not JSON": request(b"Content-Length: 4", body=b"nope"),
    "no key": request(LENGTH, body=BODY).replace(b"Bearer good", b"Bearer bad"),
    "application": request(LENGTH, body=BODY, line=b"PUT /application HTTP/1.1"),
    "application, chunked": request(CHUNKED, body=WHOLE, line=b"POST /application HTTP/1.1"),
    "no body": request(line=b"GET /application HTTP/1.1"),
    "close": request(LENGTH, b"Connection: close", body=BODY),
    "HTTP/1.0": request(LENGTH, body=BODY, line=b"POST " + HOT + b" HTTP/1.0"),
    **LENIENT,
    **LOOK_ALIKES,
}

wells = st.sampled_from(sorted(data for name, data in WELL.items() if name != "no key"))
"""Without what is refused by its head: whether its connection is kept depends on how much of its body has come."""
any_request = wells | st.sampled_from(sorted(CORPUS.values()))


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def in_bytes(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


fuzzed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@given(st.lists(wells, max_size=3), any_request, st.lists(st.integers(0, 2**16), max_size=12))
@fuzzed
def test_the_cut_does_not_matter(wire: Wire, before: list[bytes], last: bytes, cuts: list[int]) -> None:
    data = b"".join([*before, last])
    whole = wire.say([data])
    assert wire.say(pieces(data, cuts)) == whole
    assert len(whole.answers) <= len(before) + 1 + data.count(SMUGGLED)


@pytest.mark.parametrize("path", [HOT, b"/application"], ids=["inference", "application"])
@pytest.mark.parametrize("name", CORPUS)
def test_byte_by_byte_it_is_refused_as_well(wire: Wire, name: str, path: bytes) -> None:
    outcome = wire.say(in_bytes(CORPUS[name].replace(HOT, path, 1)))
    assert len(outcome.answers) == 1
    assert 400 <= outcome.answers[0][0] < 500
    assert (outcome.forwarded, outcome.bodies) == ((), ())


@pytest.mark.parametrize("name", WELL)
def test_byte_by_byte_it_is_taken_as_well(wire: Wire, name: str) -> None:
    assert wire.say(in_bytes(WELL[name])) == wire.say([WELL[name]])


SPECIAL = [bytes([code]) for code in b"\x00\x01\t\n\x0b\x0c\r \"'(),/0159:;=@[\\]_aAxX{}~\x7f\x80\xa0\xff"] + [
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\r\n ",
    b"0\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Host: b\r\n",
    b"chunked",
    b"HTTP/1.0",
]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Requests in which a few bytes are left out, put in, or others."""
    data = b"".join(draw(st.lists(any_request, min_size=1, max_size=2)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data = (
            data[:at]
            + draw(st.sampled_from([b"", SMUGGLED, *SPECIAL]))
            + data[at + draw(st.sampled_from([0, 0, 1, 2])) :]
        )
    return data


_MORE_THAN_H11 = re.compile(rb"[A-Z]  +/|RTSP/|ICE/")
"""What llhttp takes beyond h11, as `LENIENT` has it."""


def read_by_h11(data: bytes) -> list[tuple[str, str, bytes]]:
    """Method, target and body of each request, up to the first that is none, or not whole."""
    found: list[tuple[str, str, bytes]] = []
    while data := data.lstrip(b"\r\n"):  # llhttp passes over them before a request
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
        reader.receive_data(data)
        head, body = None, b""
        try:
            while not isinstance(event := reader.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                    return found
                if isinstance(event, h11.Request):
                    head = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
        except h11.RemoteProtocolError:
            return found
        assert head is not None
        found.append((head.method.decode(), head.target.decode("latin-1"), body))
        data, _ = reader.trailing_data
    return found


def agrees(outcome: Outcome, theirs: list[tuple[str, str, bytes]]) -> None:
    """What the gateway took for requests, h11 took for the same ones."""
    taken = [code for _, code in outcome.answers if code not in (*REFUSED, *BY_THE_HEAD)]
    assert len(taken) <= len(theirs)
    hot = [body for method, target, body in theirs if method == "POST" and _path(target) in ENDPOINTS]
    rest = iter(hot)
    for _, sent in outcome.forwarded:
        members = {**json.loads(sent), "model": None}
        assert any(_members(body) == members for body in rest), f"{sent!r} is no request of {hot!r}"


def _path(target: str) -> str:
    return re.sub(r"\A[a-z]+://[^/]*", "", target).partition("?")[0]


def _members(body: bytes) -> object:
    try:
        members = json.loads(body)
    except ValueError:
        return None
    return {**members, "model": None} if isinstance(members, dict) else None


noise = st.binary(max_size=300) | st.lists(st.sampled_from(SPECIAL), max_size=40).map(b"".join)


@given(spoiled() | noise)
@example(request(LENGTH, CHUNKED, body=WHOLE))
@example(request(b"Transfer-Encoding: chunked\x0b", body=WHOLE))
@fuzzed
def test_what_h11_refuses_is_refused(wire: Wire, data: bytes) -> None:
    assume(not _MORE_THAN_H11.search(data))
    agrees(wire.say([data]), read_by_h11(data))
