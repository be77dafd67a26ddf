"""Server-sent events, held against the cases of the WHATWG text."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_bench.apis.lines import LineTooLarge
from loramux_bench.apis.sse import Event, EventStream

CASES = {
    "LF": (b"data: a\n\ndata: b\n\n", [Event(b"a"), Event(b"b")]),
    "CR": (b"data: a\r\rdata: b\r\r", [Event(b"a"), Event(b"b")]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [Event(b"a"), Event(b"b")]),
    "ends mixed": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", [Event(b"a"), Event(b"b"), Event(b"c")]),
    "LF CR is two ends": (b"data: a\n\rdata: b\n\r", [Event(b"a"), Event(b"b")]),
    "lines joined": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event(b"YHOO\n+2\n10")]),
    "comments": (b": test stream\n\ndata: first\n:\ndata:second\n\n:end\n\n", [Event(b"first\nsecond")]),
    "one space only": (
        b"data:test\n\ndata: test\n\ndata:  test\n\n",
        [Event(b"test"), Event(b"test"), Event(b" test")],
    ),
    "no value": (b"data\n\ndata\ndata\n\ndata:", [Event(b""), Event(b"\n")]),
    "type": (b"event: add\ndata: 1\n\ndata: 2\n\n", [Event(b"1", "add"), Event(b"2")]),
    "type without data": (b"event: add\n\ndata: 2\n\n", [Event(b"2")]),
    "other fields": (b"id: 1\nretry: 5\nfoo: x\n data: y\ndata: z\n\n", [Event(b"z")]),
    "names as they are": (b"Data: a\ndata : b\n\n", []),
    "BOM": (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [Event(b"a")]),
    "half a BOM": (b"\xef\xbbdata: a\n\ndata: b\n\n", [Event(b"b")]),
    "colons in the value": (b"data: a:b: c\n\n", [Event(b"a:b: c")]),
    "cut off at the end": (b"data: a\n\ndata: b\n", [Event(b"a")]),
    "not UTF-8": (b"data: \xff\n\n", [Event(b"\xff")]),
    "nothing": (b"\n\r\n\r", []),
}


@pytest.mark.parametrize(("given_bytes", "events"), CASES.values(), ids=CASES)
def test_the_cases_of_the_text(given_bytes: bytes, events: list[Event]) -> None:
    assert EventStream().feed(given_bytes) == events


@pytest.mark.parametrize(("given_bytes", "events"), CASES.values(), ids=CASES)
def test_byte_by_byte(given_bytes: bytes, events: list[Event]) -> None:
    stream = EventStream()
    found = [event for byte in given_bytes for event in stream.feed(bytes([byte]))]
    assert found == events


pieces = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"data", b"data:", b"data: ", b"event: ", b":", b" ", b"x", b"\xef\xbb\xbf"]
)


@given(st.lists(pieces, max_size=40).map(b"".join), st.data())
def test_any_cut_gives_the_same_events(whole: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    stream = EventStream()
    bounds = [0, *cuts, len(whole)]
    found = [e for start, end in itertools.pairwise(bounds) for e in stream.feed(whole[start:end])]
    assert found == EventStream().feed(whole)


@given(
    st.lists(st.text(st.characters(blacklist_characters="\r\n", codec="utf-8")), min_size=1),
    st.sampled_from(["\r", "\n", "\r\n"]),
)
def test_what_is_sent_is_read(lines: list[str], end: str) -> None:
    sent = "".join(f"data: {line}{end}" for line in lines) + end
    assert EventStream().feed(sent.encode()) == [Event("\n".join(lines).encode())]


def test_an_event_that_ends_with_cr_is_there_at_once() -> None:
    stream = EventStream()
    assert stream.feed(b"data: a\r\r") == [Event(b"a")]
    assert stream.feed(b"\ndata: b\n\n") == [Event(b"b")]


@pytest.mark.parametrize("part", [b"data: " + b"x" * 40, b"data: " + b"x" * 8 + b"\n"], ids=["one line", "many lines"])
def test_an_event_too_large_is_refused(part: bytes) -> None:
    stream = EventStream(max_event_bytes=100)

    def endless() -> None:
        for _ in range(100):
            stream.feed(part)

    with pytest.raises(LineTooLarge, match="100 bytes"):
        endless()


def test_many_events_are_not_one_that_is_too_large() -> None:
    stream = EventStream(max_event_bytes=100)
    assert sum(len(stream.feed(b"data: " + b"x" * 50 + b"\n\n")) for _ in range(100)) == 100
