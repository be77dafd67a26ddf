"""Reads tar archives, plain or gzipped, forward only and with every byte that comes out of them metered."""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from loramux_adapters.artifacts.filesystem import CHUNK_BYTES
from loramux_adapters.errors import ArchiveCorrupt, ArchiveTooLarge, ArchiveUnsafe
from loramux_adapters.names import shown

Member = tuple[str, Iterator[bytes]]
"""A regular file: its name as the archive has it, and its content, to be read before the next member."""
_MAX_HEADER_BYTES = 64 * 1024
"""tarfile reads long names and PAX headers whole; so much of them is enough for any name."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def tar_members(file: IO[bytes], *, gzipped: bool, count: Callable[[int], None]) -> Iterator[Member]:
    """The regular files of the archive in `file`; directories are passed over.

    `count` is called with every number of bytes that is decompressed, before they are used, and may raise. Raises
    `ArchiveUnsafe` for links, devices and whatever else is no file, `ArchiveCorrupt` for what is no whole tar,
    `ArchiveTooLarge` for endless headers.
    """
    stream = _Stream(gzip.GzipFile(fileobj=file, mode="rb") if gzipped else file, count)
    with _corruption(), tarfile.open(fileobj=stream, mode="r:", errorlevel=2) as archive:  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            if member.isdir():
                yield f"{member.name.rstrip('/')}/", iter(())
            elif not member.isreg() or member.issparse():
                raise ArchiveUnsafe(
                    f"The archive holds {shown(member.name)}, which is no regular file; pack files instead of links."
                )
            else:
                yield member.name, _content(stream, member.size)
        stream.finish()


def _content(stream: "_Stream", size: int) -> Iterator[bytes]:
    end = stream.tell() + size
    while (left := end - stream.tell()) > 0:
        with _corruption():
            chunk = stream.take(min(left, CHUNK_BYTES))
        if not chunk:
            raise ArchiveCorrupt("The archive is truncated: it ends within a file.")
        yield chunk


@contextmanager
def _corruption() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError) as error:
        raise ArchiveCorrupt("The archive is corrupt or truncated; pack it again.") from error


class _Stream:
    """What tarfile needs of a seekable file, over one that only goes forward. Its own reads are of headers, and
    bounded; content is read by `take`."""

    def __init__(self, inner: _Readable, count: Callable[[int], None]) -> None:
        self._inner = inner
        self._count = count
        self._position = 0
        self._last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise ArchiveTooLarge(f"The archive has a header of more than {_MAX_HEADER_BYTES} bytes.")
        self._last = self.take(size)
        return self._last

    def take(self, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end."""
        pieces = []
        while size and (piece := self._inner.read(size)):
            self._count(len(piece))
            pieces.append(piece)
            size -= len(piece)
        data = b"".join(pieces)
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._position:
            raise ArchiveCorrupt("The archive's headers point backwards.")
        while self._position < position and self.take(min(position - self._position, CHUNK_BYTES)):
            pass
        return self._position

    def finish(self) -> None:
        """Read to the end, where gzip has its checksum. tarfile takes a broken header for the end; it is not."""
        if self._last.strip(b"\0"):
            raise ArchiveCorrupt("The archive has a broken header; pack it again.")
        while self.take(CHUNK_BYTES):
            pass
