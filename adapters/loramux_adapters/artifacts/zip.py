"""Reads zip archives, trusting none of the sizes that they claim."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from loramux_adapters.artifacts.filesystem import CHUNK_BYTES
from loramux_adapters.artifacts.limits import Meter
from loramux_adapters.artifacts.tar import Member
from loramux_adapters.errors import ArchiveCorrupt, ArchiveTooLarge, ArchiveUnsafe
from loramux_adapters.names import shown

_MAX_DIRECTORY_BYTES = 1 << 20
"""zipfile reads the central directory whole, and makes an object of each entry."""
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


def zip_members(file: IO[bytes], meter: Meter) -> Iterator[Member]:
    """The regular files of the archive in `file`; a directory comes as a name that ends in `/`.

    `meter` counts the bytes that really come out. Raises `ArchiveUnsafe` for links, encryption and entries that share
    bytes, `ArchiveCorrupt` for what is no whole zip, `ArchiveTooLarge` where the meter or the directory does.
    """
    with _corruption(), zipfile.ZipFile(_Bounded(file)) as archive:
        entries = archive.infolist()
        for entry in entries:
            _check_entry(entry)
        _check_overlap(file, entries, archive.start_dir)
        for entry in entries:
            if entry.is_dir():
                yield entry.orig_filename, iter(())
            else:
                yield entry.orig_filename, _content(archive, entry, meter)


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, meter: Meter) -> Iterator[bytes]:
    size = 0
    with _corruption(), archive.open(entry) as content:
        while chunk := content.read(CHUNK_BYTES):
            meter.unpacked(len(chunk))
            size += len(chunk)
            yield chunk
    if size != entry.file_size:
        raise ArchiveCorrupt(f"The archive lies about the size of {shown(entry.orig_filename)}.")


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = shown(entry.orig_filename)
    if entry.flag_bits & _ENCRYPTED:
        raise ArchiveUnsafe(f"The archive's {name} is encrypted; pack the adapter without a password.")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > entry.is_dir():
        raise ArchiveUnsafe(f"The archive holds {name}, which is no regular file; pack files instead of links.")
    if entry.compress_type not in _METHODS:
        raise ArchiveCorrupt(f"The archive's {name} is compressed in a way that is not read; use deflate.")


def _check_overlap(file: IO[bytes], entries: list[zipfile.ZipInfo], directory_start: int) -> None:
    """Entries that share bytes are how a small zip unpacks to petabytes (Fifield, "A better zip bomb", 2019)."""
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    starts = [entry.header_offset for entry in ordered[1:]] + [directory_start]
    for entry, following in zip(ordered, starts, strict=False):
        if entry.header_offset < 0:
            raise ArchiveCorrupt("The archive's directory points outside of it.")
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            raise ArchiveCorrupt("The archive is truncated.")
        *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        if entry.header_offset + len(header) + name_bytes + extra_bytes + entry.compress_size > following:
            raise ArchiveUnsafe(f"The archive's {shown(entry.orig_filename)} overlaps with another entry.")


@contextmanager
def _corruption() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
        raise ArchiveCorrupt("The archive is corrupt or truncated; pack it again.") from error
    except (ValueError, OverflowError, NotImplementedError, RuntimeError) as error:
        raise ArchiveCorrupt("The archive is no zip that can be read; pack it again.") from error


class _Bounded:
    """A file that gives at most a mebibyte at a time: more is only asked for by a directory that is a bomb."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        wanted = _MAX_DIRECTORY_BYTES + 1 if size < 0 else size
        if size > _MAX_DIRECTORY_BYTES:
            raise ArchiveTooLarge(f"The archive's directory has more than {_MAX_DIRECTORY_BYTES} bytes.")
        data = self._file.read(wanted)
        if len(data) > _MAX_DIRECTORY_BYTES:
            raise ArchiveTooLarge(f"The archive's directory has more than {_MAX_DIRECTORY_BYTES} bytes.")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
