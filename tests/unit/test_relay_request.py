import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.errors import RequestInvalid
from loramux_serving.relay.framing import Framing, check_head
from loramux_serving.relay.headers import caller_headers, engine_head, engine_lines, valid_request_id
from loramux_serving.relay.refusal import Refusal
from loramux_serving.relay.request import CHAT, COMPLETIONS, EMBEDDINGS, ENDPOINTS, RESPONSES, decode

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_what_is_read() -> None:
    request = decode(CHAT, b'{"model":"a","stream":true,"stream_options":{"include_usage":true}}')
    assert (request.model, request.stream, request.usage_asked, request.injects_usage) == ("a", True, True, False)
    assert decode(CHAT, b'{"model":"\\u0061","stream":null,"stream_options":null}').model == "a"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"null", None),
        (b"[]", None),
        (b'"model"', None),
        (b'{"model":"a"', None),
        (b'{"model":"a"} {}', None),
        (b'{"model":"a",}', None),
        (b"{'model':'a'}", None),
        (b'\xef\xbb\xbf{"model":"a"}', None),
        ('{"model":"a"}'.encode("utf-16"), None),
        (b'{"\xff":1,"model":"a"}', None),
        (b'{"model":"a","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", None),
        (b"{}", "model"),
        (b'{"model":""}', "model"),
        (b'{"model":null}', "model"),
        (b'{"model":["a"]}', "model"),
        (b'{"model":"\xff"}', "model"),
        (b'{"model":"a","model":1}', "model"),
        (b'{"model":"a","stream":1}', "stream"),
        (b'{"model":"a","stream":"true"}', "stream"),
        (b'{"model":"a","stream_options":true}', "stream_options"),
        (b'{"model":"a","stream_options":{"include_usage":"no"}}', "include_usage"),
    ],
)
def test_what_is_refused(body: bytes, param: str | None) -> None:
    with pytest.raises(RequestInvalid) as caught:
        decode(CHAT, body)
    assert caught.value.details.get("param") == param


def test_of_a_key_that_comes_twice_only_the_last_is_sent() -> None:
    request = decode(CHAT, b'{"model":"a","n":1,"model":"b","n":2}')
    assert request.model == "b"
    assert request.body("b") == b'{"model":"b","n":2}'


def test_values_keep_their_bytes() -> None:
    body = b'{"model":"a","seed":123456789012345678901234567890,"x": [1.0, 2e0 ,"\\u00e9"] ,"y":-0}'
    sent = decode(COMPLETIONS, body).body("a@0")
    assert sent == b'{"model":"a@0","seed":123456789012345678901234567890,"x":[1.0, 2e0 ,"\\u00e9"],"y":-0}'


@given(st.dictionaries(st.text(), json_values, max_size=6), st.booleans())
def test_only_the_name_changes(fields: dict[str, Any], ascii_only: bool) -> None:
    fields = {**fields, "model": "a", "stream": False}
    body = json.dumps(fields, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert json.loads(decode(CHAT, body).body("a@0")) == {**json.loads(body), "model": "a@0"}


blanks = st.text(" \t\r\n", max_size=2)
numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
strings = st.lists(
    st.sampled_from(
        ["a", "é", "😀", " ", "/", "{", "}", ":", ",", "'", '\\"', "\\\\", "\\/", "\\n", "\\u0000", "\\u00e9"]
    )
    | st.just("\\ud83d\\ude00"),
    max_size=6,
).map(lambda parts: '"' + "".join(parts) + '"')
literals = st.sampled_from(["null", "true", "false"])


@st.composite
def spaced(draw: st.DrawFn, parts: list[str]) -> str:
    return "".join(draw(blanks) + part + draw(blanks) for part in parts)


def composed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Lists and objects as text, with blanks wherever they may be, and keys that may come twice."""
    members = st.tuples(strings, inner).flatmap(lambda pair: spaced([pair[0], ":", pair[1]]))
    return st.lists(inner, max_size=3).map(lambda each: f"[{','.join(each)}]") | st.lists(members, max_size=3).map(
        lambda each: f"{{{','.join(each)}}}"
    )


json_texts = st.recursive(numbers | strings | literals, composed, max_leaves=8)
keys = strings | st.sampled_from(['"model"', '"stream"', '"stream_options"', '"mod\\u0065l"', '"Model"', '"n"'])
documents = st.lists(st.tuples(keys, json_texts | st.sampled_from(['"a"', "true", "null"])), max_size=5).flatmap(
    lambda pairs: st.permutations([('"model"', '"a"'), *pairs])
)


def _fits(read: dict[str, Any]) -> bool:
    """Whether the members that the relay reads are of their kinds."""
    options = read.get("stream_options")
    return (
        isinstance(read["model"], str)
        and read["model"] != ""
        and isinstance(read.get("stream"), bool | None)
        and isinstance(options, dict | None)
        and (options is None or isinstance(options.get("include_usage"), bool | None))
    )


@given(documents, blanks, st.sampled_from(ENDPOINTS))
def test_what_is_not_the_relays_keeps_its_bytes(pairs: list[tuple[str, str]], blank: str, endpoint: str) -> None:
    """Whatever the members are and however they are written: the engine gets the last of each key, byte for byte."""
    body = ("{" + ",".join(f"{blank}{key}{blank}:{blank}{value}{blank}" for key, value in pairs) + "}").encode()
    last = {json.loads(key): value for key, value in pairs}
    read = json.loads(body)
    if not _fits(read):
        with pytest.raises(RequestInvalid):
            decode(endpoint, body)
        return
    request = decode(endpoint, body)
    assert (request.model, request.stream) == (read["model"], bool(read.get("stream")))
    sent = request.body("a@0")
    kept = msgspec.json.decode(sent, type=dict[str, msgspec.Raw])
    assert kept.keys() == last.keys() | ({"stream_options"} if request.injects_usage else set())
    for key, value in last.items():
        if key != "model" and not (key == "stream_options" and request.injects_usage):
            assert bytes(kept[key]) == value.encode()
    assert json.loads(sent)["model"] == "a@0"


@given(
    st.binary(max_size=60)
    | st.text('{}[]",:\\ abmodelstrn0123456789.eE+-\ud800é', max_size=60).map(
        lambda each: each.encode("utf-8", "surrogatepass")
    )
)
def test_noise_is_refused_or_means_to_the_engine_what_it_means_here(noise: bytes) -> None:
    for body in (noise, b'{"model":"a",' + noise + b"}", b'{"model":"a","x":' + noise + b"}"):
        try:
            request = decode(CHAT, body)
        except RequestInvalid:
            continue
        try:
            read = json.loads(body)
        except UnicodeDecodeError:
            continue  # within a value, which is the engine's to refuse
        sent = json.loads(request.body("a@0"))
        assert request.model == read["model"]
        assert sent | {"model": None, "stream_options": None} == read | {"model": None, "stream_options": None}


@pytest.mark.parametrize("text", [r"\ud800", r"\udc00", r"\ud800\ud800", r"\udc00\ud800", r"\ud83dx"])
@pytest.mark.parametrize("body", ['{"model":"a","x":"%s"}', '{"model":"a","%s":1}', '{"model":"%s"}'])
def test_half_a_surrogate_pair_is_no_text(body: str, text: str) -> None:
    with pytest.raises(RequestInvalid):
        decode(CHAT, (body % text).encode())


@pytest.mark.parametrize("depth", [1, 100, 900])
def test_depth_is_kept(depth: int) -> None:
    value = b'{"a":[' * depth + b"1" + b"]}" * depth
    body = b'{"model":"a","x":' + value + b"}"
    if depth < 500:
        assert decode(CHAT, body).body("a") == body
    else:
        with pytest.raises(RequestInvalid):
            decode(CHAT, body)


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("options", ["null", "{}", '{"include_usage":false}', '{"include_usage":null}'])
def test_a_stream_asks_for_usage(endpoint: str, options: str) -> None:
    request = decode(endpoint, f'{{"model":"a","stream":true,"stream_options":{options}}}'.encode())
    assert request.injects_usage
    assert json.loads(request.body("a"))["stream_options"] == {"include_usage": True}


def test_other_stream_options_stay() -> None:
    options = b'{"include_usage":false,"continuous_usage_stats":true,"x": 1}'
    request = decode(CHAT, b'{"model":"a","stream":true,"stream_options":' + options + b"}")
    assert json.loads(request.body("a"))["stream_options"] == {"include_usage": True, "x": 1}
    asked = b'{"include_usage":true,"continuous_usage_stats":true}'
    request = decode(CHAT, b'{"model":"a","stream":true,"stream_options":' + asked + b"}")
    assert asked in request.body("a")


@pytest.mark.parametrize("body", [b'{"model":"a"}', b'{"model":"a","stream":false}'])
def test_nothing_is_added_where_no_usage_frame_can_come(body: bytes) -> None:
    assert decode(CHAT, body).body("a") == body
    streamed = b'{"model":"a","stream":true}'
    for endpoint in (EMBEDDINGS, RESPONSES):
        assert decode(endpoint, streamed).body("a") == streamed


def test_the_head_for_the_engine() -> None:
    headers = [
        (b"host", b"gateway"),
        (b"authorization", b"Bearer x"),
        (b"connection", b"close, X-Hop"),
        (b"x-hop", b"1"),
        (b"content-length", b"99"),
        (b"x-request-id", b"theirs"),
        (b"accept", b"a"),
        (b"accept", b"b"),
    ]
    assert engine_head(CHAT, b"engine:1", "ours", 5, engine_lines(headers)) == (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: engine:1\r\ncontent-length: 5\r\nx-request-id: ours\r\n"
        b"accept: a\r\naccept: b\r\n\r\n"
    )


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\ny", b"a\x00"])
def test_no_header_can_carry_another(value: bytes) -> None:
    with pytest.raises(Refusal):
        engine_lines([(b"x", value)])


def test_headers_for_the_caller() -> None:
    engine = [
        (b"content-type", b"a"),
        (b"connection", b"x-hop"),
        (b"x-hop", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"x-request-id", b"theirs"),
        (b"x-loramux-replica", b"forged"),
    ]
    assert caller_headers(engine, b"x-request-id: ours\r\n") == b"content-type: a\r\nx-request-id: ours\r\n"


@pytest.mark.parametrize(("value", "fit"), [(b"a.B_9-", True), (b"x" * 128, True), (b"x" * 129, False), (b"", False)])
def test_request_ids(value: bytes, fit: bool) -> None:
    assert valid_request_id(value) == (value.decode() if fit else None)


def test_framing() -> None:
    host = (b"host", b"a")
    assert check_head(b"POST", "1.1", [host], 10, 100) == Framing(None, False)
    assert check_head(b"POST", "1.1", [host, (b"content-length", b"7")], 10, 100) == Framing(7, False)
    assert check_head(b"POST", "1.1", [host, (b"transfer-encoding", b" Chunked ")], 10, 100) == Framing(None, True)
    assert check_head(b"POST", "1.0", [], 10, 100) == Framing(None, False)
    with pytest.raises(Refusal) as caught:
        check_head(b"POST", "1.1", [host], 101, 100)
    assert caught.value.status == 431
    for good in (b"", b"a", b"a:80", b"a:", b"127.0.0.1:1", b"[::1]:8", b"a_b.c-d ", b"%61"):
        check_head(b"POST", "1.1", [(b"host", good)], 10, 100)
    for bad in (b"a b", b"a/b", b"a@b", b"a:b", b"::1", b"[a", b"a\xe4", b"a\x00"):
        with pytest.raises(Refusal):
            check_head(b"POST", "1.1", [(b"host", bad)], 10, 100)
    for length in (b"+1", b"1,1", b"", b"1 1", b"0x1", "١".encode(), b"9" * 19):
        with pytest.raises(Refusal):
            check_head(b"POST", "1.1", [host, (b"content-length", length)], 10, 100)
