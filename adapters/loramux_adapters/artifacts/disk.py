"""The disk tier: adapters by the digest of their content, bounded in bytes.

    <root>/<first 2 of digest>/<digest>/    adapter_config.json, adapter_model.safetensors, artifact.json (their sizes)
    <root>/.work/<session>/<workdir>/       what is being fetched, or thrown away; `.lock` is held while the store lives
    <root>/.lock                            held while the store changes

All state is on disk, so that several gateway processes may share one root. A directory comes to its final name by one
rename, after everything in it has reached the disk; its modification time says when it was last used.
"""

import fcntl
import json
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from loramux_adapters.adapter_config import CONFIG_FILE
from loramux_adapters.artifacts.content import digest_of
from loramux_adapters.artifacts.eviction import plan_eviction
from loramux_adapters.artifacts.filesystem import storage_errors, sync
from loramux_adapters.clock import SystemClock
from loramux_adapters.errors import ConfigInvalid, StorageFull, WeightsMissing
from loramux_adapters.model import Artifact
from loramux_adapters.ports import Clock
from loramux_adapters.validate import WEIGHTS_FILE

MANIFEST_FILE = "artifact.json"
_FILES = (CONFIG_FILE, WEIGHTS_FILE)
_WORK = ".work"
_LOCK = ".lock"
_DIGEST_CHARACTERS = frozenset("0123456789abcdef")


class DiskStore:
    """`ports.ArtifactStore` on a local file system.

    Artifacts never sum to more than `capacity_bytes`; a commit leaves `reserve_bytes` of the file system free.
    Threads, and processes with the same root, may share it. Opening it removes what dead processes left half done.
    Raises `StorageFailed` or `StorageFull` where the root can not be used.
    """

    def __init__(self, root: Path, *, capacity_bytes: int, reserve_bytes: int = 0, clock: Clock | None = None) -> None:
        self._root = root.absolute()
        self._capacity_bytes = capacity_bytes
        self._reserve_bytes = reserve_bytes
        self._clock = clock or SystemClock()
        self._thread_lock = Lock()
        self._stamp_ns = 0
        self._whole: dict[str, Artifact] = {}
        with storage_errors("opening the disk tier"):
            (self._root / _WORK).mkdir(parents=True, exist_ok=True)
            with self._exclusive():
                _sweep(self._root / _WORK)
                self._session, session_lock = _open_session(self._root / _WORK)
                self._drop_broken()
                self._stamp_ns = max((entry.used_ns for entry in self._scan()), default=0)
        self._closing = weakref.finalize(self, os.close, session_lock)

    def close(self) -> None:
        """Give up the session: its workdirs are removed when the root is next opened. Idempotent."""
        self._closing()

    def get(self, digest: str) -> Artifact | None:
        if not _is_digest(digest):
            return None
        with storage_errors("reading the disk tier"):
            entry = _read_entry(self._path(digest))
        if entry is None:
            return None
        self._touch(entry.artifact.path)
        return entry.artifact

    def workdir(self) -> Path:
        with storage_errors("making room for an adapter"):
            return Path(tempfile.mkdtemp(prefix="fetch-", dir=self._session))

    def discard(self, workdir: Path) -> None:
        shutil.rmtree(workdir, ignore_errors=True)

    def commit(self, workdir: Path, keep: Collection[str]) -> Artifact:
        """As in the port. Raises `ConfigInvalid` or `WeightsMissing` for a directory that validation never saw."""
        with storage_errors("keeping an adapter"):
            sizes = {name: _regular_size(workdir / name) for name in _FILES}
            digest = digest_of(workdir / CONFIG_FILE, workdir / WEIGHTS_FILE)
            _drop_others(workdir)
            for name in _FILES:
                sync(workdir / name)
            with self._exclusive():
                known = _read_entry(self._path(digest))
                if known is None:
                    self._make_room(sum(sizes.values()), keep)
                    self._place(workdir, digest, sizes)
                else:
                    shutil.rmtree(workdir)
            self._touch(self._path(digest))
        return Artifact(digest=digest, path=self._path(digest), size_bytes=sum(sizes.values()))

    def remove(self, digest: str) -> None:
        if _is_digest(digest):
            with storage_errors("deleting an adapter"), self._exclusive():
                self._delete(digest)

    def entries(self) -> Sequence[Artifact]:
        """As in the port. What was found whole is not read again, as the content of a digest never changes: listings
        ask often, and `get` looks at the files all the same."""
        with storage_errors("reading the disk tier"):
            found = [entry for path in self._directories() if (entry := self._entry(path)) is not None]
        self._whole = {entry.artifact.digest: entry.artifact for entry in found}
        return [entry.artifact for entry in sorted(found, key=_by_use)]

    def _entry(self, path: Path) -> "_Entry | None":
        artifact = self._whole.get(path.name)
        if artifact is None:
            return _read_entry(path)
        try:
            return _Entry(artifact, path.stat().st_mtime_ns)
        except FileNotFoundError:
            return None

    def size_bytes(self) -> int:
        return sum(artifact.size_bytes for artifact in self.entries())

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One change at a time, among threads and processes."""
        with self._thread_lock, (self._root / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _scan(self) -> list["_Entry"]:
        """Whole artifacts, least recently used first."""
        found = [entry for path in self._directories() if (entry := _read_entry(path)) is not None]
        return sorted(found, key=_by_use)

    def _directories(self) -> list[Path]:
        return [path for path in self._root.glob("[0-9a-f][0-9a-f]/*") if _is_digest(path.name)]

    def _drop_broken(self) -> None:
        for path in self._directories():
            if _read_entry(path) is None:
                self._delete(path.name)

    def _make_room(self, size_bytes: int, keep: Collection[str]) -> None:
        """Evict what must go; raises `StorageFull`, before anything went, where that would not be enough."""
        status = os.statvfs(self._root)
        victims = plan_eviction(
            [entry.artifact for entry in self._scan()],
            keep,
            size_bytes=size_bytes,
            capacity_bytes=self._capacity_bytes,
            missing_free_bytes=self._reserve_bytes - status.f_bavail * status.f_frsize,
        )
        if victims is None:
            raise StorageFull(
                f"The disk tier has no room for {size_bytes} bytes beside the adapters in use; raise "
                "artifacts.disk_bytes, free space, or delete adapters.",
                details={"needed_bytes": size_bytes, "capacity_bytes": self._capacity_bytes},
            )
        for victim in victims:
            self._delete(victim.digest)

    def _place(self, workdir: Path, digest: str, sizes: dict[str, int]) -> None:
        manifest = workdir / MANIFEST_FILE
        manifest.write_text(json.dumps({"files": sizes}))
        sync(manifest)
        sync(workdir)
        target = self._path(digest)
        self._delete(digest)
        target.parent.mkdir(exist_ok=True)
        workdir.rename(target)
        sync(target.parent)
        sync(self._root)

    def _delete(self, digest: str) -> None:
        """Out of sight by one rename, then file by file."""
        trash = self._session / f"trash-{digest}"
        shutil.rmtree(trash, ignore_errors=True)
        with suppress(FileNotFoundError):
            self._path(digest).rename(trash)
            shutil.rmtree(trash)

    def _touch(self, path: Path) -> None:
        """Record a use. Times never repeat within a process, so that order is kept. That it can not be recorded is no
        reason to fail a reader."""
        with self._thread_lock:
            self._stamp_ns = max(int(self._clock.now() * 1e9), self._stamp_ns + 1)
            stamp_ns = self._stamp_ns
        with suppress(OSError):
            os.utime(path, ns=(stamp_ns, stamp_ns))


@dataclass(frozen=True, slots=True)
class _Entry:
    artifact: Artifact
    used_ns: int


def _by_use(entry: _Entry) -> tuple[int, str]:
    return entry.used_ns, entry.artifact.digest


def _is_digest(text: str) -> bool:
    return len(text) == 64 and _DIGEST_CHARACTERS.issuperset(text)


def _read_entry(path: Path) -> _Entry | None:
    """The artifact at `path` if its manifest is there and its files have the sizes that it says."""
    try:
        sizes = json.loads((path / MANIFEST_FILE).read_bytes())["files"]
        if any((path / name).stat().st_size != sizes[name] for name in _FILES):
            return None
        used_ns = path.stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return _Entry(Artifact(digest=path.name, path=path, size_bytes=sum(sizes[name] for name in _FILES)), used_ns)


def _regular_size(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:
        status = None
    if status is not None and stat.S_ISREG(status.st_mode):
        return status.st_size
    error = ConfigInvalid if path.name == CONFIG_FILE else WeightsMissing
    raise error(f"The adapter has no regular file {path.name}.")


def _drop_others(workdir: Path) -> None:
    with os.scandir(workdir) as entries:
        others = [entry for entry in entries if entry.name not in _FILES]
    for entry in others:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def _open_session(work: Path) -> tuple[Path, int]:
    """A directory of this store's own and the descriptor whose lock says that it lives."""
    session = Path(tempfile.mkdtemp(prefix="session-", dir=work))
    descriptor = os.open(session / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return session, descriptor


def _sweep(work: Path) -> None:
    """Remove sessions whose process is gone. Called with the root's lock, so none is just being opened."""
    for session in work.iterdir():
        try:
            descriptor = os.open(session / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            shutil.rmtree(session, ignore_errors=True)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(session)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
