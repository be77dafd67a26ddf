"""The local file system: what its errors mean here, durable writes, and copies that are bounded."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loramux_adapters.errors import StorageFailed, StorageFull

CHUNK_BYTES = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Translate `OSError` within to `StorageFull` (no space, quota, file size limit) or `StorageFailed`. `doing`
    completes "The disk failed while …"."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in _FULL:
            raise StorageFull(
                f"The disk is full while {doing}: {reason}; free space or lower the disk tier."
            ) from error
        raise StorageFailed(f"The disk failed while {doing}: {reason}.") from error


def write_chunks(path: Path, chunks: Iterator[bytes]) -> int:
    """Write a new file; returns its bytes. Raises `StorageError` for writing, and what `chunks` raises."""
    written = 0
    doing = "writing an adapter"
    with storage_errors(doing):
        file = path.open("xb")
    try:
        for chunk in chunks:
            with storage_errors(doing):
                file.write(chunk)
            written += len(chunk)
    finally:
        with storage_errors(doing):
            file.close()
    return written


def sync(path: Path) -> None:
    """fsync a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
