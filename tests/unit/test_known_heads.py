"""Messages with heads that came before: they mean what they meant, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_serving.relay.known_heads import MAX_BYTES, MOST, KnownHeads, cut

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-B: c\r\n\r\n"
PLAIN = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\nX-B: c\r\n\r\n"


@given(st.binary(max_size=300))
def test_a_whole_message_is_cut_where_its_body_begins(body: bytes) -> None:
    head = HEAD % len(body)
    assert cut(head + body) == (PLAIN, len(body), len(head))


@given(st.binary(max_size=100), st.integers(0, 400))
def test_a_part_of_a_message_or_more_than_one_is_not_cut(body: bytes, length: int) -> None:
    data = HEAD % len(body) + body
    assert cut(data[:length]) is None or length >= len(data)
    assert cut(data + b"x") is None


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 007",
        b"Content-Length: +7",
        b"Content-Length: 7 ",
        b"Content-Length:7",
        b"Content-Length : 7",
        b"Content-Length: 7, 7",
        b"Content-Length: 1" + b"0" * 15,
        b"X: Content-Length: 7",
        b"Transfer-Encoding: chunked",
        b"X: y",
    ],
)
def test_a_length_that_is_written_in_another_way_is_left_to_the_parser(lines: bytes) -> None:
    assert cut(b"POST / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\n1234567") is None


def test_what_comes_before_the_head_is_left_to_the_parser() -> None:
    assert cut(b"\r\n\r\n" + HEAD % 0) is None


def test_a_long_head_is_not_kept() -> None:
    head = b"POST / HTTP/1.1\r\nX: %b\r\nContent-Length: 0\r\n\r\n"
    assert cut(head % b"") is not None
    assert cut(head % (b"x" * MAX_BYTES)) is None


@given(st.lists(st.integers(0, 3 * MOST), max_size=4 * MOST))
def test_those_kept_last_are_found_and_no_more(names: list[int]) -> None:
    heads: KnownHeads[int] = KnownHeads()
    for name in names:
        heads.keep(b"%d" % name, name)
        assert heads.get(b"%d" % name) == name
    found = [name for name in set(names) if heads.get(b"%d" % name) is not None]
    assert len(found) == min(MOST, len(set(names)))
