"""The header of a safetensors file, read strictly and without touching the tensors.

Format (https://huggingface.co/docs/safetensors, "Format"): 8 bytes, the header's length N as an unsigned
little-endian integer; N bytes of JSON, an object from tensor name to `{dtype, shape, data_offsets}`, offsets counted
from the header's end; then the data, which the tensors cover exactly.
"""

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loramux_adapters.errors import WeightsCorrupt
from loramux_adapters.names import shown

MAX_HEADER_BYTES = 100_000_000
"""As in the safetensors library."""
_MAX_DIMENSIONS = 16
_PREFIX_BYTES = 8
_BITS = MappingProxyType(
    {
        **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
        **dict.fromkeys(("F32", "I32", "U32"), 32),
        **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
        **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ"), 8),
        **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
        "F4": 4,
    }
)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: `start` and `end` are byte offsets in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorSpec]:
    """The tensors of the file at `path`, by name, in the order of their data. Reads the header only.

    Raises `WeightsCorrupt` for anything that is not a whole safetensors file, and `OSError`.
    """
    with path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        prefix = file.read(_PREFIX_BYTES)
        length = header_length(prefix, file_bytes)
        return parse_header(file.read(length), file_bytes)


def header_length(prefix: bytes, file_bytes: int) -> int:
    """N from the first 8 bytes of a file of `file_bytes`. Raises `WeightsCorrupt` where that can not be."""
    if len(prefix) < _PREFIX_BYTES:
        raise WeightsCorrupt(f"The weights are truncated: the file has {file_bytes} bytes, fewer than any safetensors.")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_HEADER_BYTES:
        raise WeightsCorrupt(
            f"The weights are no safetensors: their header claims {length} bytes, over the {MAX_HEADER_BYTES} allowed."
        )
    if _PREFIX_BYTES + length > file_bytes:
        raise WeightsCorrupt(
            f"The weights are truncated: their header claims {length} bytes in a file of {file_bytes}."
        )
    return int(length)


def parse_header(text: bytes, file_bytes: int) -> dict[str, TensorSpec]:
    """The tensors that the JSON `text` describes, in the order of their data, in a file of `file_bytes` in all.

    Guarantees: names are unique; dtypes are known; each tensor has the bytes that its dtype and shape need; together
    they cover the data exactly, without overlap. Raises `WeightsCorrupt`.
    """
    if not text.startswith(b"{"):
        raise WeightsCorrupt("The weights are no safetensors: their header is not a JSON object.")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise WeightsCorrupt(f"The weights' header is not valid JSON: {_first_line(error)}.") from error
    data_start = _PREFIX_BYTES + len(text)
    _check_metadata(header.pop("__metadata__", None))
    specs = [_spec(name, value, data_start) for name, value in header.items()]
    specs.sort(key=lambda spec: (spec.start, spec.end))
    _check_coverage(specs, data_start, file_bytes)
    return {spec.name: spec for spec in specs}


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {shown(key)} occurs twice")
        result[key] = value
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _first_line(error: BaseException) -> str:
    """A decoder's own words may quote the header; keep them short and printable."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return ascii(str(error))[1:-1][:160]


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsCorrupt("The weights' header has a __metadata__ that is not an object of strings.")


def _spec(name: str, value: Any, data_start: int) -> TensorSpec:
    if not isinstance(value, Mapping) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise WeightsCorrupt(f"The tensor {shown(name)} is not described by dtype, shape and data_offsets alone.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise WeightsCorrupt(f"The tensor {shown(name)} has a dtype that safetensors does not know.")
    if not _is_sizes(shape) or len(shape) > _MAX_DIMENSIONS:
        raise WeightsCorrupt(f"The tensor {shown(name)} has a shape that is not a list of sizes.")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise WeightsCorrupt(f"The tensor {shown(name)} has data_offsets that are not a start and an end.")
    start, end = offsets
    bits = math.prod(shape) * _BITS[dtype]
    if bits % 8 or bits // 8 != end - start:
        raise WeightsCorrupt(
            f"The tensor {shown(name)} lies about its size: its dtype and shape need {bits // 8} bytes, "
            f"its data_offsets span {end - start}."
        )
    return TensorSpec(name, dtype, tuple(shape), data_start + start, data_start + end)


def _is_sizes(value: Any) -> bool:
    """A list of integers from 0 up to what any file system can hold; JSON's booleans are no integers here."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_coverage(specs: list[TensorSpec], data_start: int, file_bytes: int) -> None:
    position = data_start
    for spec in specs:
        if spec.start != position:
            raise WeightsCorrupt(
                f"The tensor {shown(spec.name)} lies about its place: its data starts at byte {spec.start}, "
                f"where {position} follows from the tensors before it."
            )
        position = spec.end
    if position > file_bytes:
        raise WeightsCorrupt(
            f"The weights are truncated: their header describes {position} bytes, the file has {file_bytes}."
        )
    if position < file_bytes:
        raise WeightsCorrupt(
            f"The weights hold {file_bytes - position} bytes after their last tensor that no header describes."
        )
