"""Takes adapters that are sent as a body: streamed to disk, never held in memory.

An upload is a file (an archive) or a directory (the files of a multipart body) named by its id under one directory;
`upload:<id>` is its source. Whoever registers it calls `keep`; otherwise it is removed again.
"""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from loramux_adapters.artifacts.filesystem import storage_errors
from loramux_adapters.errors import RequestInvalid, SourceTooLarge
from loramux_adapters.model import UPLOAD_SCHEME

_FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
_MAX_PART_HEAD_BYTES = 8 * 1024


def source_of(path: Path) -> str:
    return UPLOAD_SCHEME + path.name


class Upload:
    """One adapter that arrived."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = source_of(path)
        self.kept = False

    def keep(self) -> None:
        """It is registered: from now on its operation removes it."""
        self.kept = True


class UploadDesk:
    """The directory of uploads."""

    def __init__(self, directory: Path, *, max_bytes: int, max_files: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_files = max_files

    def open(self, keep: Collection[str]) -> None:
        """Make the directory; remove what a crash left, but not the sources in `keep`."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._directory.iterdir():
            if source_of(path) not in keep:
                _remove(path)

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[Upload]:
        """The body of `request`, durable on disk. Raises `RequestInvalid`, `SourceTooLarge`, `StorageFull`."""
        upload = Upload(self._directory / uuid4().hex)
        try:
            with storage_errors("receiving an upload"):
                kind, options = parse_options_header(request.headers.get("content-type", ""))
                if kind == b"multipart/form-data":
                    await self._receive_files(request, upload.path, options.get(b"boundary", b""))
                else:
                    await self._receive_archive(request, upload.path)
            yield upload
        finally:
            if not upload.kept:
                await asyncio.shield(asyncio.to_thread(_remove, upload.path))

    async def _receive_archive(self, request: Request, path: Path) -> None:
        received = 0
        with await asyncio.to_thread(path.open, "xb") as file:
            async for chunk in self._bounded(request):
                received += await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(_sync, file)
        if not received:
            raise RequestInvalid("The body is empty: send a .tar.gz or .zip archive, or the files as multipart.")

    async def _receive_files(self, request: Request, path: Path, boundary: bytes) -> None:
        if not boundary:
            raise RequestInvalid("The multipart body names no boundary.")
        await asyncio.to_thread(path.mkdir)
        parts = _Parts(path, self._max_files)
        try:
            parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
            async for chunk in self._bounded(request):
                await asyncio.to_thread(parser.write, chunk)
            parser.finalize()
        except FormParserError as error:
            raise RequestInvalid(f"The multipart body is malformed: {error}.") from error
        finally:
            parts.close()
        if not parts.names:
            raise RequestInvalid("The multipart body holds no files.")

    async def _bounded(self, request: Request) -> AsyncIterator[bytes]:
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise self._too_large()
        total = 0
        async for chunk in request.stream():
            total += len(chunk)
            if total > self._max_bytes:
                raise self._too_large()
            if chunk:
                yield chunk

    def _too_large(self) -> SourceTooLarge:
        return SourceTooLarge(f"The upload is larger than the {self._max_bytes} bytes that are allowed.")


class _Parts:
    """Writes each file of a multipart body as it comes; other fields are refused."""

    def __init__(self, directory: Path, max_files: int) -> None:
        self._directory = directory
        self._max_files = max_files
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._fd: int | None = None
        self.names: set[str] = set()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._header_name = self._header_value = self._disposition = b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._bound_head()

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._bound_head()

    def _bound_head(self) -> None:
        if len(self._header_name) + len(self._header_value) > _MAX_PART_HEAD_BYTES:
            raise RequestInvalid("A part of the multipart body has a head that is too large.")

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        raw = options.get(b"filename")
        if raw is None:
            raise RequestInvalid("Every part of the multipart body must be a file, with its file name.")
        name = raw.decode("utf-8", "replace")
        if not _FILE_NAME.match(name):
            raise RequestInvalid(f"The file name {name!r} is not allowed: letters, digits, '.', '_' and '-' only.")
        if name in self.names:
            raise RequestInvalid(f"The file {name!r} was sent twice.")
        if len(self.names) >= self._max_files:
            raise RequestInvalid(f"The upload holds more than {self._max_files} files.")
        self.names.add(name)
        self._fd = os.open(self._directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def _data(self, data: bytes, start: int, end: int) -> None:
        view = memoryview(data)[start:end]
        while view and self._fd is not None:
            view = view[os.write(self._fd, view) :]

    def _end(self) -> None:
        if self._fd is not None:
            os.fsync(self._fd)
        self.close()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
