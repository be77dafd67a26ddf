"""Slabs: what one process writes, another reads, and nothing is left of it."""

import gc
import os
from pathlib import Path

import pytest
import torch

from loramux_serving.engine.plugin.slab import Slab, Weights, write


def _maps() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:loramux-adapter")


def test_tensors_come_back_as_they_went_in() -> None:
    a, b = torch.randn(4, 6).bfloat16(), torch.randn(3, 4)
    loras = {
        "layers.0.qkv_proj": Weights(4, [8, None, 8], [a, None, a * 2], [b, None, b * 2]),
        "layers.0.o_proj": Weights(4, 8, a, b.half()),
        "empty": Weights(4, 8, torch.empty(0, 3), torch.empty(3, 0)),
    }
    fd, size = write(4, loras)
    try:
        slab = Slab(f"/proc/{os.getpid()}/fd/{fd}")
    finally:
        os.close(fd)

    assert slab.rank == 4
    assert slab.size_bytes == size
    assert list(slab) == list(loras)
    assert "layers.0.o_proj" in slab
    assert "layers.1.o_proj" not in slab
    packed = slab.weights("layers.0.qkv_proj")
    assert packed.alpha == [8, None, 8]
    assert isinstance(packed.a, list)
    assert isinstance(packed.b, list)
    assert packed.a[1] is packed.b[1] is None
    assert packed.a[2] is not None
    assert torch.equal(packed.a[2], a * 2)
    single = slab.weights("layers.0.o_proj")
    assert isinstance(single.b, torch.Tensor)
    assert single.b.dtype == torch.float16
    assert torch.equal(single.b, b.half())
    assert isinstance(slab.weights("empty").a, torch.Tensor)
    with pytest.raises(KeyError):
        slab.weights("layers.1.o_proj")


def test_a_tensor_that_is_not_contiguous_is_written_right() -> None:
    a = torch.arange(24.0).view(4, 6).t()
    fd, _ = write(4, {"m": Weights(4, 1, a, a)})
    try:
        read = Slab(f"/proc/{os.getpid()}/fd/{fd}").weights("m").a
    finally:
        os.close(fd)
    assert isinstance(read, torch.Tensor)
    assert torch.equal(read, a)


def test_views_keep_the_memory_and_the_last_one_frees_it() -> None:
    before = _maps()
    fd, _ = write(1, {"m": Weights(1, 1, torch.ones(1, 1000), torch.ones(1000, 1))})
    slab = Slab(f"/proc/{os.getpid()}/fd/{fd}")
    os.close(fd)
    weights = slab.weights("m")
    del slab
    gc.collect()
    assert isinstance(weights.a, torch.Tensor)
    assert weights.a.sum() == 1000
    assert _maps() == before + 1

    del weights
    gc.collect()
    assert _maps() == before


def test_a_slab_that_is_gone_or_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Slab(f"/proc/{os.getpid()}/fd/9999")
    (tmp_path / "rubbish").write_bytes(b"\x04\0\0\0\0\0\0\0nope")
    with pytest.raises(ValueError):
        Slab(str(tmp_path / "rubbish"))
