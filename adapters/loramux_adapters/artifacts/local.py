"""Adapters on local disk: a directory or an archive below one of the operator's roots."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from loramux_adapters.artifacts.archive import extract
from loramux_adapters.artifacts.filesystem import CHUNK_BYTES, write_chunks
from loramux_adapters.artifacts.limits import ArchiveLimits, Meter
from loramux_adapters.artifacts.members import is_telling, is_wanted
from loramux_adapters.errors import (
    RequestInvalid,
    SourceForbidden,
    SourceNotAllowed,
    SourceNotFound,
    SourceUnavailable,
)
from loramux_adapters.names import shown
from loramux_adapters.ports import Progress


class LocalSource:
    """`ports.ArtifactSource` of absolute paths and `file://` addresses. Symbolic links are followed, but only to
    places below a root. With no roots, nothing is allowed."""

    def __init__(self, roots: Sequence[Path], limits: ArchiveLimits) -> None:
        self._roots = tuple(root.expanduser().resolve() for root in roots)
        self._limits = limits

    def check(self, source: str) -> None:
        self._locate(source)

    def fetch(self, source: str, into: Path, progress: Progress) -> None:
        path, root = self._locate(source)
        copy_adapter(path, into, root=root, limits=self._limits, progress=progress)

    def forget(self, source: str) -> None:
        """Nothing to do: it is not ours."""

    def _locate(self, source: str) -> tuple[Path, Path]:
        """The resolved path and the root that it is below. Raises the same for what exists and what does not."""
        given = _path(source)
        if not self._roots:
            raise SourceNotAllowed("Local sources are not allowed: no roots are set (artifacts.roots).")
        if not given.is_absolute():
            raise SourceNotAllowed(f"The source {shown(source)} is not allowed: a local path must be absolute.")
        try:
            resolved = given.resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise SourceNotAllowed(f"The source {shown(source)} is not allowed: its links lead nowhere.") from error
        for root in self._roots:
            if resolved.is_relative_to(root):
                return resolved, root
        raise SourceNotAllowed(f"The source {shown(source)} is not allowed: it is outside the roots that are.")


def _path(source: str) -> Path:
    if not source.lower().startswith("file:"):
        return Path(source)
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise RequestInvalid(f"The source {shown(source)} is no valid address.") from error
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or "\0" in path:
        raise RequestInvalid(f"The source {shown(source)} must read file:///path, without host or query.")
    return Path(path)


def copy_adapter(path: Path, into: Path, *, root: Path, limits: ArchiveLimits, progress: Progress) -> None:
    """Unpack the archive at `path`, or copy the adapter's files of the directory there, into `into`.

    `path` is resolved and below `root`; no link of a directory may lead outside of `root`. Raises `SourceNotFound`,
    `SourceForbidden`, `SourceNotAllowed` (a link that leads outside), `SourceUnavailable` (the disk of the source),
    and what `extract` raises.
    """
    with _source_errors(path):
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            # Only opened here to tell a source that may not be read from a disk that fails.
            path.open("rb").close()
    if stat.S_ISDIR(status.st_mode):
        _copy_directory(path, into, root, limits, progress)
    elif stat.S_ISREG(status.st_mode):
        extract(path, into, limits)
        progress(status.st_size, status.st_size)
    else:
        raise SourceNotFound(f"The source {shown(str(path))} is neither a file nor a directory.")


def _copy_directory(directory: Path, into: Path, root: Path, limits: ArchiveLimits, progress: Progress) -> None:
    meter = Meter(limits)
    with _source_errors(directory):
        names = sorted(entry.name for entry in os.scandir(directory) if not entry.is_dir())
    for name in names:
        if is_wanted(name):
            meter.file()
            write_chunks(into / name, _read(directory / name, root, meter))
            progress(meter.total_bytes, None)
        elif is_telling(name):
            meter.file()
            write_chunks(into / name, iter(()))


def _read(path: Path, root: Path, meter: Meter) -> Iterator[bytes]:
    with _source_errors(path):
        resolved = path.resolve(strict=True)
        if not resolved.is_relative_to(root):
            raise SourceNotAllowed(f"The source's {shown(path.name)} is a link that leads outside the allowed roots.")
        # Not blocking, lest a pipe hangs; not following, lest a link was put there meanwhile.
        descriptor = os.open(resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SourceNotFound(f"The source's {shown(path.name)} is no regular file.")
            while chunk := file.read(CHUNK_BYTES):
                meter.unpacked(len(chunk))
                yield chunk


@contextmanager
def _source_errors(path: Path) -> Iterator[None]:
    name = shown(str(path))
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(f"The source {name} does not exist.") from error
    except PermissionError as error:
        raise SourceForbidden(f"The source {name} may not be read by the gateway's user.") from error
    except OSError as error:
        raise SourceUnavailable(f"The source {name} can not be read: {error.strerror}.") from error
