"""Unpacks an adapter's archive into a directory, safely.

Nothing of an archive is trusted: its format is told by its first bytes, every name is checked before it is used, and
every limit counts bytes that really come out. Only an adapter's files reach the disk, as regular files that this
module creates; of pickles only the name does.
"""

import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO

from loramux_adapters.artifacts.filesystem import storage_errors, write_chunks
from loramux_adapters.artifacts.limits import ArchiveLimits, Meter
from loramux_adapters.artifacts.members import (
    Seen,
    adapter_folder,
    check_not_archive,
    is_clutter,
    is_telling,
    is_wanted,
    member_path,
)
from loramux_adapters.artifacts.tar import Member, tar_members
from loramux_adapters.artifacts.zip import zip_members
from loramux_adapters.errors import ArchiveCorrupt

_UNPACKED = ".unpacked"
_TAR_MAGIC_AT = 257
_HEAD_BYTES = 512


def extract(archive: Path, into: Path, limits: ArchiveLimits) -> None:
    """Unpack the `.tar`, `.tar.gz` or `.zip` at `archive` into the directory `into`.

    Afterwards the adapter's files lie at the top of `into`, wherever in the archive the one folder that holds them
    was. Raises `SourceTooLarge`, `ArchiveUnsafe`, `ArchiveTooLarge`, `ArchiveCorrupt`, `ConfigInvalid` (two adapters)
    or `StorageError`; `into` may then hold a part.
    """
    staging = into / _UNPACKED
    with storage_errors("unpacking an adapter"):
        staging.mkdir()
        with archive.open("rb") as file:
            kept = _unpack(file, staging, limits)
        folder = adapter_folder(kept)
        for path in kept:
            if path.parent == folder:
                (staging / path).rename(into / path.name)
        shutil.rmtree(staging)


def _unpack(file: IO[bytes], staging: Path, limits: ArchiveLimits) -> list[PurePosixPath]:
    """Write what is wanted below `staging`; returns its paths there."""
    size = file.seek(0, 2)
    limits.check_archive(size)
    meter = Meter(limits, size)
    seen = Seen()
    kept: list[PurePosixPath] = []
    for name, content in _members(file, meter):
        meter.file()
        path = member_path(name)
        if name.endswith("/") or path == PurePosixPath():
            continue
        seen.add(path)
        if is_clutter(path):
            _drain(content)
            continue
        first = next(content, b"")
        check_not_archive(path, first)
        target = staging / path
        if is_wanted(path.name):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_chunks(target, chain((first,), content))
            kept.append(path)
        else:
            _drain(content)
            if is_telling(path.name):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
                kept.append(path)
    return kept


def _members(file: IO[bytes], meter: Meter) -> Iterator[Member]:
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return tar_members(file, gzipped=True, count=meter.unpacked)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return zip_members(file, meter)
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return tar_members(file, gzipped=False, count=meter.unpacked)
    raise ArchiveCorrupt("The file is no archive that is read here; send a .tar.gz, .tar or .zip.")


def _drain(content: Iterator[bytes]) -> None:
    for _ in content:
        pass
