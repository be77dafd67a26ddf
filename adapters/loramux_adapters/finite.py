"""Whether weights are numbers: a scan for NaN and Inf in bounded memory."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from loramux_adapters.errors import WeightsCorrupt, WeightsNotFinite
from loramux_adapters.names import shown
from loramux_adapters.safetensors_header import TensorSpec

_CHUNK_BYTES = 4 << 20
_EXPONENTS: Mapping[str, tuple[np.dtype[np.unsignedinteger], int]] = {
    "F32": (np.dtype("<u4"), 0x7F80_0000),
    "F16": (np.dtype("<u2"), 0x7C00),
    "BF16": (np.dtype("<u2"), 0x7F80),
}
"""IEEE 754: a value is NaN or Inf exactly where all bits of its exponent are set. numpy has no bfloat16, so all are
read as integers."""


def check_finite(path: Path, specs: Iterable[TensorSpec]) -> None:
    """Read the tensors `specs` (F32, F16, BF16) of the safetensors file at `path`, a few MiB at a time.

    Plain reads rather than a memory map: a file that shrinks meanwhile is then an error, not a SIGBUS. Raises
    `WeightsNotFinite` naming the first tensor with NaN or Inf, `WeightsCorrupt` where data is missing, and `OSError`.
    """
    with path.open("rb") as file:
        for spec in specs:
            dtype, exponent = _EXPONENTS[spec.dtype]
            file.seek(spec.start)
            left = spec.end - spec.start
            while left:
                data = file.read(min(left, _CHUNK_BYTES))
                if not data or len(data) % dtype.itemsize:
                    raise WeightsCorrupt(f"The weights end within the tensor {shown(spec.name)}.")
                left -= len(data)
                if np.any((np.frombuffer(data, dtype) & exponent) == exponent):
                    raise WeightsNotFinite(
                        f"The tensor {shown(spec.name)} holds NaN or Inf; the adapter's training has diverged."
                    )
