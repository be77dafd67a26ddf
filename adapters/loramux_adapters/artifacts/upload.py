"""Adapters that were sent to the gateway: the HTTP layer puts them on disk and names them `upload:<name>`."""

import re
import shutil
from pathlib import Path

from loramux_adapters.artifacts.filesystem import storage_errors
from loramux_adapters.artifacts.limits import ArchiveLimits
from loramux_adapters.artifacts.local import copy_adapter
from loramux_adapters.errors import RequestInvalid
from loramux_adapters.model import UPLOAD_SCHEME
from loramux_adapters.names import shown
from loramux_adapters.ports import Progress

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


class UploadSource:
    """`ports.ArtifactSource` of `upload:<name>`: an archive `<uploads>/<name>`, or a directory of files of that name.
    An upload stays until `forget`."""

    def __init__(self, uploads: Path, limits: ArchiveLimits) -> None:
        self._uploads = uploads.absolute()
        self._limits = limits

    def check(self, source: str) -> None:
        self._locate(source)

    def fetch(self, source: str, into: Path, progress: Progress) -> None:
        """As in the port; raises `SourceNotFound` where the upload is gone."""
        path = self._locate(source)
        copy_adapter(path, into, root=path.resolve(), limits=self._limits, progress=progress)

    def forget(self, source: str) -> None:
        """Remove the upload; no error where it is gone."""
        path = self._locate(source)
        with storage_errors("removing an upload"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _locate(self, source: str) -> Path:
        name = source.removeprefix(UPLOAD_SCHEME)
        if not source.startswith(UPLOAD_SCHEME) or not _NAME.fullmatch(name):
            raise RequestInvalid(f"The source {shown(source)} must read upload:<name>.")
        return self._uploads / name
