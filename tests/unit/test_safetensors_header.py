import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from loramux_adapters.errors import WeightsCorrupt
from loramux_adapters.safetensors_header import TensorSpec, header_length, parse_header, read_header
from tests.fakes.adapter_files import raw_safetensors, safetensors_bytes

GOOD = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
}
DATA = bytes(32)


def parse(content: bytes) -> dict[str, TensorSpec]:
    length = header_length(content[:8], len(content))
    return parse_header(content[8 : 8 + length], len(content))


def spoiled(**changes: Any) -> bytes:
    header = json.loads(json.dumps(GOOD))
    header["b"] |= changes
    return raw_safetensors(header, DATA)


def test_a_good_header_is_read() -> None:
    specs = parse(raw_safetensors(GOOD, DATA))
    assert [(s.name, s.dtype, s.shape, s.elements) for s in specs.values()] == [
        ("a", "F32", (2, 3), 6),
        ("b", "F16", (4,), 4),
    ]


def test_the_library_s_own_files_are_read(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {
        "x": np.ones((3, 4), np.float32),
        "y": np.zeros((0,), np.float16),
        "z": np.ones((), np.int64),
    }
    safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    specs = read_header(tmp_path / "a.safetensors")
    assert {name: spec.shape for name, spec in specs.items()} == {"x": (3, 4), "y": (0,), "z": ()}


@pytest.mark.parametrize("size", [0, 1, 7, 8, 20, 100, -1, -31])
def test_truncated_weights_are_corrupt(tmp_path: Path, size: int) -> None:
    content = raw_safetensors(GOOD, DATA)
    path = tmp_path / "a.safetensors"
    path.write_bytes(content[:size])
    with pytest.raises(WeightsCorrupt):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(100), "claims"),
        (raw_safetensors(GOOD, DATA, header_bytes=100_000_001), "allowed"),
        (raw_safetensors(GOOD, DATA, header_bytes=2**64 - 1), "allowed"),
        (raw_safetensors(GOOD, DATA, header_bytes=5000), "truncated"),
        (raw_safetensors(b"[]", b""), "object"),
        (raw_safetensors(b"{", b""), "JSON"),
        (raw_safetensors(b'{"a": NaN}', b""), "JSON"),
        (raw_safetensors(b'{"\xff": 1}', b""), "JSON"),
        (raw_safetensors(b'{"a":' * 100_000, b""), "nested"),
        (raw_safetensors(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' * 2 + b"}", b""), "JSON"),
        (raw_safetensors(json.dumps(GOOD).replace('"b"', '"a"').encode(), DATA), "twice"),
        (raw_safetensors({"__metadata__": {"a": 1}} | GOOD, DATA), "__metadata__"),
        (raw_safetensors({"a": 1}, b""), "described"),
        (raw_safetensors({"a": {"dtype": "F32", "shape": [0]}}, b""), "described"),
    ],
)
def test_a_corrupt_header_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(WeightsCorrupt, match=words):
        parse(content)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_offsets": [24, 40]}, "size"),
        ({"data_offsets": [24, 28]}, "size"),
        ({"data_offsets": [0, 8]}, "place"),
        ({"data_offsets": [16, 24]}, "place"),
        ({"data_offsets": [26, 34]}, "place"),
        ({"data_offsets": [-8, 0]}, "start and an end"),
        ({"data_offsets": [32, 24]}, "start and an end"),
        ({"data_offsets": [24.0, 32.0]}, "start and an end"),
        ({"data_offsets": [24]}, "start and an end"),
        ({"data_offsets": [True, 32]}, "start and an end"),
        ({"shape": [-4]}, "shape"),
        ({"shape": [4.0]}, "shape"),
        ({"shape": 4}, "shape"),
        ({"shape": [2**62, 4, 2]}, "size"),
        ({"shape": [1] * 17}, "shape"),
        ({"dtype": "F33"}, "dtype"),
        ({"dtype": ["F16"]}, "dtype"),
        ({"extra": 1}, "described"),
        ({"shape": [5], "data_offsets": [24, 34]}, "truncated"),
        ({"shape": [3], "data_offsets": [24, 30]}, "no header describes"),
    ],
)
def test_a_header_that_lies_about_offsets_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsCorrupt, match=words):
        parse(spoiled(**changes))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_corruption_never_raises_anything_else_and_never_passes_with_lies(data: st.DataObject) -> None:
    content = bytearray(safetensors_bytes({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    assert_honest(bytes(content))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=40))
def test_random_bytes_never_raise_anything_else(text: bytes, data: bytes) -> None:
    assert_honest(text)
    assert_honest(raw_safetensors(text, data))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F4", "X"]),
        "shape": st.lists(st.integers(-1, 5), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 64), min_size=2, max_size=2) | JSON,
    }
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=4), ENTRY | JSON, max_size=4), st.binary(max_size=64))
def test_made_up_headers_never_raise_anything_else(header: dict[str, Any], data: bytes) -> None:
    assert_honest(raw_safetensors(header, data))


def check_message(message: str) -> None:
    assert message.isprintable()
    assert len(message) < 600


def assert_honest(content: bytes) -> None:
    """Either it is refused by an error of the tree, or it is a whole file in the eyes of the library too."""
    try:
        specs = parse(content)
    except WeightsCorrupt as error:
        check_message(error.message)
        return
    (length,) = struct.unpack("<Q", content[:8])
    position = 8 + length
    for spec in specs.values():
        assert spec.start == position
        assert spec.end >= spec.start
        position = spec.end
    assert position == len(content)
    if all(spec.dtype in ("F32", "F16") for spec in specs.values()):
        assert {k: v.shape for k, v in safetensors.numpy.load(content).items()} == {
            name: spec.shape for name, spec in specs.items()
        }
