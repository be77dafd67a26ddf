"""One adapter's weights as the engine's workers take them: packed, cast and scaled, in one piece of shared memory.

Written by the stager, mapped by every worker of the engine, so that tensor parallel workers share one copy. It is a
`memfd`, which lives as long as somebody maps it and leaves no file behind, whoever dies.

    8 bytes  length of the manifest, little endian
    n bytes  the manifest, JSON: {"rank", "loras": {module: {"rank", "alpha", "a", "b"}}}
    …        tensors, each at a multiple of 64 bytes, as the manifest says: [offset, shape, dtype]; `a` and `b` are
             lists where vLLM packs several projections into one module, with null for those without LoRA

torch is imported, vllm is not.
"""

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

_LENGTH_BYTES = 8
_ALIGN_BYTES = 64
_NAME = "loramux-adapter"
"""As it shows in `/proc/<pid>/maps`: `/memfd:loramux-adapter`."""

Tensors = torch.Tensor | list[torch.Tensor | None]


@dataclass(frozen=True, slots=True)
class Weights:
    """LoRA of one module of the engine: `a` is [rank, in], `b` [out, rank], with the scaling in `b`; lists of them for
    a module that packs several projections."""

    rank: int
    alpha: Any
    a: Tensors
    b: Tensors


def write(rank: int, loras: Mapping[str, Weights]) -> tuple[int, int]:
    """A new slab's file descriptor, which the caller closes, and its size in bytes. Raises `OSError` where there is no
    memory for it."""
    manifest, placed, end = _lay_out(rank, loras)
    head = json.dumps(manifest, separators=(",", ":")).encode()
    begin = _aligned(_LENGTH_BYTES + len(head))
    fd = os.memfd_create(_NAME)
    try:
        os.posix_fallocate(fd, 0, begin + end)
        with mmap.mmap(fd, begin + end) as memory:
            memory[:_LENGTH_BYTES] = len(head).to_bytes(_LENGTH_BYTES, "little")
            memory[_LENGTH_BYTES : _LENGTH_BYTES + len(head)] = head
            whole = torch.frombuffer(memory, dtype=torch.uint8)
            for offset, tensor in placed:
                size = tensor.numel() * tensor.element_size()
                whole[begin + offset : begin + offset + size].copy_(tensor.contiguous().view(-1).view(torch.uint8))
            del whole
    except BaseException:
        os.close(fd)
        raise
    return fd, begin + end


def _lay_out(rank: int, loras: Mapping[str, Weights]) -> tuple[dict[str, Any], list[tuple[int, torch.Tensor]], int]:
    placed: list[tuple[int, torch.Tensor]] = []
    end = 0

    def place(tensors: Tensors | None) -> Any:
        nonlocal end
        if tensors is None:
            return None
        if isinstance(tensors, list):
            return [place(tensor) for tensor in tensors]
        offset = end
        placed.append((offset, tensors))
        end = _aligned(end + tensors.numel() * tensors.element_size())
        return [offset, list(tensors.shape), str(tensors.dtype).removeprefix("torch.")]

    entries = {
        name: {"rank": weights.rank, "alpha": weights.alpha, "a": place(weights.a), "b": place(weights.b)}
        for name, weights in loras.items()
    }
    return {"rank": rank, "loras": entries}, placed, end


class Slab:
    """A slab mapped into this process. Tensors that it gives are views: they keep the memory mapped."""

    def __init__(self, path: str) -> None:
        """`path` is one that another process may open, as `/proc/<pid>/fd/<n>`. Raises `OSError`, `ValueError`."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.size_bytes = os.fstat(fd).st_size
            memory = mmap.mmap(fd, self.size_bytes)
        finally:
            os.close(fd)
        length = int.from_bytes(memory[:_LENGTH_BYTES], "little")
        manifest = json.loads(memory[_LENGTH_BYTES : _LENGTH_BYTES + length])
        self.rank = int(manifest["rank"])
        self._entries: dict[str, Any] = manifest["loras"]
        self._begin = _aligned(_LENGTH_BYTES + length)
        self._memory = torch.frombuffer(memory, dtype=torch.uint8)

    @property
    def memory(self) -> torch.Tensor:
        """All of it, uint8."""
        return self._memory

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def weights(self, name: str) -> Weights:
        """Raises `KeyError`."""
        entry = self._entries[name]
        return Weights(entry["rank"], entry["alpha"], self._tensors(entry["a"]), self._tensors(entry["b"]))

    def _tensors(self, where: list[Any]) -> Tensors:
        if isinstance(where[0], int):
            return self._view(where)
        return [None if one is None else self._view(one) for one in where]

    def _view(self, where: list[Any]) -> torch.Tensor:
        offset, shape, dtype = where
        kind: torch.dtype = getattr(torch, dtype)
        begin = self._begin + offset
        size = kind.itemsize
        for length in shape:
            size *= length
        return self._memory[begin : begin + size].view(kind).view(shape)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN_BYTES) * _ALIGN_BYTES
