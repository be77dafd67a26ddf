"""A PEFT directory as the body of an upload, with content of its own."""

import json
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loramux_bench.errors import ScenarioError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_CHUNK_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 100_000_000
"""As in the safetensors library."""
_STAMP = "loramux_bench"


@dataclass(frozen=True, slots=True)
class Artifact:
    """The two files of a PEFT adapter. Its copies have the same tensors and different digests."""

    config: bytes
    weights: Path
    header: dict[str, object]
    tensors_at: int
    """Where the tensors begin in `weights`, in bytes."""

    @classmethod
    def read(cls, directory: Path) -> "Artifact":
        """Raises `ScenarioError` where the directory holds no such adapter."""
        weights = directory / WEIGHTS
        try:
            config = (directory / CONFIG).read_bytes()
            with weights.open("rb") as file:
                length = struct.unpack("<Q", file.read(8))[0]
                if length > _MAX_HEADER_BYTES:
                    raise ValueError("its header is too long")
                header = json.loads(file.read(length))
            if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
                raise ValueError("its header is not that of a safetensors file")
        except OSError as error:
            raise ScenarioError(
                f"The adapter {directory} can not be read: it needs {CONFIG} and {WEIGHTS} ({error.strerror})."
            ) from error
        except (ValueError, struct.error) as error:
            raise ScenarioError(f"{weights} is no safetensors file: {error}.") from error
        return cls(config, weights, header, 8 + length)

    def archive(self, stamp: str) -> Iterator[bytes]:
        """A .tar.gz of the adapter, chunk by chunk, its weights' metadata holding `stamp`. Not compressed: trained
        weights do not shrink, and the attempt would hold up the load that runs beside it."""
        packed = zlib.compressobj(0, wbits=31)
        for chunk in self._tar(stamp):
            if out := packed.compress(chunk):
                yield out
        yield packed.flush()

    def _tar(self, stamp: str) -> Iterator[bytes]:
        yield _member(CONFIG, len(self.config))
        yield self.config
        yield _padding(len(self.config))
        head = self._stamped(stamp)
        tensors_bytes = self.weights.stat().st_size - self.tensors_at
        yield _member(WEIGHTS, len(head) + tensors_bytes)
        yield head
        with self.weights.open("rb") as file:
            file.seek(self.tensors_at)
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
        yield _padding(len(head) + tensors_bytes)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _stamped(self, stamp: str) -> bytes:
        """Length and header; the tensors' offsets count from the header's end, so they stay right."""
        metadata = self.header.get("__metadata__", {})
        assert isinstance(metadata, dict)
        text = json.dumps({**self.header, "__metadata__": {**metadata, _STAMP: stamp}}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text


def _member(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    info.mode = 0o600
    return info.tobuf(tarfile.USTAR_FORMAT)


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)
