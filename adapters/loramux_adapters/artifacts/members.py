"""What the names in an archive, directory or repository mean: which are refused, ignored, kept. Pure."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from loramux_adapters.adapter_config import CONFIG_FILE
from loramux_adapters.errors import ArchiveTooLarge, ArchiveUnsafe, ConfigInvalid
from loramux_adapters.names import shown
from loramux_adapters.validate import PICKLE_SUFFIXES, WEIGHTS_FILE

_MAX_NAME = 1024
_MAX_PART_BYTES = 255
_MAX_DEPTH = 8
_DRIVE = re.compile(r"[A-Za-z]:")
_ARCHIVE_SUFFIXES = frozenset(
    {".zip", ".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar", ".lz4", ".whl", ".jar"}
)
_ARCHIVE_MAGICS = (
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!",
    b"\x28\xb5\x2f\xfd",
)


def member_path(name: str) -> PurePosixPath:
    """The relative path that a member's name stands for.

    Raises `ArchiveUnsafe` for whatever could leave the directory or mean different things on different systems:
    absolute paths, `..`, backslashes, drive letters, control and undecodable characters, endless names.
    """
    reason = _fault(name)
    if reason:
        raise ArchiveUnsafe(f"The archive holds {shown(name)}, {reason}; pack the adapter's files by plain names.")
    return PurePosixPath(name)


def _fault(name: str) -> str | None:
    parts = name.split("/")
    if not name or len(name) > _MAX_NAME or len(parts) > _MAX_DEPTH:
        return "a name that is empty, too long or too deep"
    if not name.isprintable() or any("\ud800" <= character <= "\udfff" for character in name):
        return "a name with characters that can not be printed"
    if name.startswith("/"):
        return "an absolute path"
    if "\\" in name:
        return "a path with a backslash"
    if _DRIVE.match(name):
        return "a path with a drive letter"
    if ".." in parts:
        return "a path that leaves the archive"
    if any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        return "a name that is empty, too long or too deep"
    return None


class Seen:
    """Refuses a second file of the same path, also where only case tells them apart, and a file as a folder."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, path: PurePosixPath) -> None:
        """Raises `ArchiveUnsafe`."""
        key = str(path).casefold()
        folders = {str(parent).casefold() for parent in path.parents}
        if key in self._files or key in self._folders or folders & self._files:
            raise ArchiveUnsafe(f"The archive holds {shown(str(path))} twice.")
        self._files.add(key)
        self._folders |= folders


def is_clutter(path: PurePosixPath) -> bool:
    """What macOS and Windows add to archives on their own."""
    return "__MACOSX" in path.parts or path.name.startswith("._") or path.name in (".DS_Store", "Thumbs.db")


def is_wanted(name: str) -> bool:
    """The two files that an adapter is."""
    return name in (CONFIG_FILE, WEIGHTS_FILE)


def is_telling(name: str) -> bool:
    """Files that an adapter must not be: only their names are kept, as empty files, so that validation can say what
    is wrong. Pickles, weights under another name, new embeddings."""
    return is_pickle(name) or (name.endswith(".safetensors") and not is_wanted(name))


def is_pickle(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES


def check_not_archive(path: PurePosixPath, first_bytes: bytes) -> None:
    """Raises `ArchiveTooLarge` for an archive within an archive. PyTorch's pickles are zip files, and are let pass
    as what they are."""
    if is_pickle(path.name):
        return
    if path.suffix.lower() in _ARCHIVE_SUFFIXES or first_bytes.startswith(_ARCHIVE_MAGICS):
        raise ArchiveTooLarge(f"The archive holds another archive, {shown(str(path))}; unpack it before packing.")


def adapter_folder(paths: Iterable[PurePosixPath]) -> PurePosixPath:
    """The folder of the adapter among the files kept: the top if a config is there, else the one folder that has one.
    With no config at all, the one folder that all files share, or the top. Raises `ConfigInvalid` where two folders
    hold an adapter."""
    paths = list(paths)
    folders = sorted({path.parent for path in paths if path.name == CONFIG_FILE})
    top = PurePosixPath()
    if top in folders:
        return top
    if len(folders) > 1:
        raise ConfigInvalid(f"The archive holds more than one {CONFIG_FILE}; send one adapter at a time.")
    if folders:
        return folders[0]
    parents = {path.parent for path in paths}
    return parents.pop() if len(parents) == 1 else top
