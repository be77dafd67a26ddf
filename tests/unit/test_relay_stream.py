import json
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.errors import EngineFailed
from loramux_serving.relay import stream
from loramux_serving.relay.renaming import IncrementalRenaming, Renaming
from loramux_serving.relay.stream import FrameScanner
from loramux_serving.relay.token_usage import is_usage_only, usage_of

ENGINE = "shop@0123456789ab"
NAME = b'"model":"%b"' % ENGINE.encode()
TOKEN = b'data: {"id":"1",%b,"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n' % NAME
USAGE = b'data: {"id":"1",%b,"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n' % NAME
DONE = b"data: [DONE]\n\n"


def scanner(caller: str = "shop", *, drop: bool = True) -> FrameScanner:
    return FrameScanner(Renaming(ENGINE, caller), drop_usage=drop)


def scan(pieces: Sequence[bytes], *, caller: str = "shop", drop: bool = True) -> tuple[bytes, FrameScanner]:
    scan = scanner(caller, drop=drop)
    return b"".join([*(scan.feed(piece) for piece in pieces), scan.finish()]), scan


def test_names_usage_and_tokens() -> None:
    out, scan_ = scan([TOKEN, TOKEN, USAGE, DONE])
    assert out == TOKEN.replace(ENGINE.encode(), b"shop") * 2 + DONE
    assert scan_.usage is not None
    assert (scan_.usage.prompt, scan_.usage.completion) == (3, 4)
    assert scan_.tokens_seen
    assert not scan_.failed


def test_usage_stays_where_it_was_asked_for() -> None:
    out, scan_ = scan([TOKEN, USAGE, DONE], drop=False)
    assert out == (TOKEN + USAGE + DONE).replace(ENGINE.encode(), b"shop")
    assert scan_.usage is not None


def test_a_whole_frame_leaves_at_once() -> None:
    scan_ = scanner()
    assert scan_.feed(TOKEN[:20]) == b""
    assert scan_.feed(TOKEN[20:] + TOKEN[:7]) == TOKEN.replace(ENGINE.encode(), b"shop")
    assert scan_.feed(TOKEN[7:-1]) == b""
    assert scan_.feed(TOKEN[-1:]) == TOKEN.replace(ENGINE.encode(), b"shop")


def test_text_that_looks_like_the_pattern_stays() -> None:
    text = json.dumps(f'"model":"{ENGINE}" "usage":{{"choices":[]}} data: {{"error"')
    frame = b'data: {"choices":[{"delta":{"content":%b}}]}\n\n' % text.encode()
    out, scan_ = scan([frame])
    assert out == frame
    assert scan_.usage is None
    assert not scan_.failed


def test_frames_with_choices_and_usage_stay() -> None:
    frame = TOKEN.replace(b'"choices":[{', b'"usage":{"prompt_tokens":1,"completion_tokens":1},"choices":[{')
    out, scan_ = scan([frame, DONE])
    assert out == (frame + DONE).replace(ENGINE.encode(), b"shop")
    assert scan_.usage is not None
    assert scan_.usage.completion == 1


def test_usage_of_responses() -> None:
    frame = (
        b'event: response.completed\ndata: {"type":"x","response":{%b,"usage":{"input_tokens":5,"output_tokens":6}}}'
    )
    out, scan_ = scan([frame % NAME + b"\n\n"])
    assert b'"model":"shop"' in out
    assert scan_.usage is not None
    assert (scan_.usage.prompt, scan_.usage.completion) == (5, 6)


def test_an_error_of_the_engine_is_noticed() -> None:
    assert scan([TOKEN, b'data: {"error": {"message":"x"}}\n\n', DONE])[1].failed


def test_a_frame_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_FRAME_BYTES", 1000)
    scan_ = scanner()
    for _ in range(10):
        assert scan_.feed(b"y" * 100) == b""
    with pytest.raises(EngineFailed):
        scan_.feed(b"y")


frames = st.sampled_from(
    [
        TOKEN,
        USAGE,
        DONE,
        TOKEN.replace(b":", b": "),
        USAGE.replace(b'":', b'": '),
        TOKEN.replace(b"\n\n", b"\r\n\r\n"),
        USAGE.replace(b"\n\n", b"\r\n\r\n"),
        b": ping\n\n",
        b"\n",
        b"\r\n",
        b"event: x\ndata: {}\n\n",
        b'data: {"error":{}}\n\n',
        b'data: {"usage":null,"choices":[]}\n\n',
        b"data: " + NAME,
        NAME[:9],
    ]
)


@given(st.lists(frames, max_size=8).map(b"".join), st.data(), st.sampled_from(["shop", ENGINE, 'a"\\ü']), st.booleans())
def test_the_cut_does_not_matter(data: bytes, draw: st.DataObject, caller: str, drop: bool) -> None:
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(data)), max_size=12)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    whole, scan_whole = scan([data], caller=caller, drop=drop)
    for other, scan_other in (
        scan(pieces, caller=caller, drop=drop),
        scan([data[index : index + 1] for index in range(len(data))], caller=caller, drop=drop),
    ):
        assert other == whole
        assert scan_other.usage == scan_whole.usage
        assert (scan_other.tokens_seen, scan_other.failed) == (scan_whole.tokens_seen, scan_whole.failed)
    if caller == ENGINE and not drop:
        assert whole == data


fragments = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"event: x",
        b": ping",
        b"\n",
        b"\n\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        NAME,
        NAME.replace(b":", b": "),
        b'{"choices":[],"usage":{"prompt_tokens":1}}',
        b'{"choices": [ ], "usage": {"prompt_tokens": 2}}',
        b'{"choices":[{"delta":{}}],"usage":{"prompt_tokens":3}}',
        b'"usage":{',
        b'"choices":[]',
        b'{"error":{}}',
        b"[DONE]",
        b"\x00\xff",
    ]
)
noise = st.lists(fragments | st.binary(max_size=3), max_size=16).map(b"".join)


@given(noise, st.lists(st.integers(0, 400), max_size=12), st.sampled_from(["shop", ENGINE]), st.booleans())
def test_the_cut_does_not_matter_to_noise(data: bytes, cuts: list[int], caller: str, drop: bool) -> None:
    ends = sorted({cut for cut in cuts if cut <= len(data)})
    pieces = [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    outputs = []
    for cut in ([data], pieces, [data[index : index + 1] for index in range(len(data))]):
        out, scan_ = scan(cut, caller=caller, drop=drop)
        outputs.append((out, scan_.usage, scan_.tokens_seen, scan_.failed))
    assert outputs[0] == outputs[1] == outputs[2]


@given(noise)
def test_only_usage_frames_are_left_out(data: bytes) -> None:
    """Nothing is lost where they are not dropped; where they are, what is left out is whole frames of that kind."""
    assert scan([data], caller=ENGINE, drop=False)[0] == data
    out = scan([data], caller=ENGINE)[0]
    frames = re.split(rb"(\n\r?\n)", data)
    kept = b""
    for frame, end in zip(frames[::2], [*frames[1::2], b""], strict=True):
        payload = b"\n".join(line[5:].strip() for line in frame.splitlines() if line.startswith(b"data:"))
        usage_only = is_usage_only(payload)
        lead = len(frame) - len(frame.lstrip(b"\r\n"))
        kept += frame[:lead] if usage_only else frame + end
    assert out == kept


@given(st.lists(fragments, max_size=20).map(b"".join))
def test_names_are_replaced_once_and_everywhere(data: bytes) -> None:
    out = scan([data], caller="shop", drop=False)[0]
    assert out == data.replace(NAME, b'"model":"shop"').replace(NAME.replace(b":", b": "), b'"model": "shop"')
    assert ENGINE.encode() not in out


@given(st.lists(st.sampled_from([NAME, NAME[:5], NAME[5:], b'"model": "x"', b"filler "])).map(b"".join), st.data())
def test_a_document_may_be_renamed_in_pieces(data: bytes, draw: st.DataObject) -> None:
    renaming = Renaming(ENGINE, draw.draw(st.sampled_from(["s", "shop", ENGINE, ENGINE + "x", "model"])))
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(data)), max_size=6)))
    incremental = IncrementalRenaming(renaming)
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert b"".join([*map(incremental.feed, pieces), incremental.finish()]) == renaming.apply(data)


def test_usage_of_documents() -> None:
    usage = usage_of(b'{"usage":{"prompt_tokens":1,"completion_tokens":null,"total_tokens":1,"x":{}}}')
    assert usage is not None
    assert (usage.prompt, usage.completion) == (1, 0)
    for document in (b"", b"[DONE]", b"[1]", b'{"usage":null}', b'{"usage":{"prompt_tokens":"x"}}', b"\xff"):
        assert usage_of(document) is None
    assert not is_usage_only(b'{"choices":[],"usage":null}')
    assert not is_usage_only(b'{"usage":{}}')
