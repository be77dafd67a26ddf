"""The disk tier's own promises: crashes, damage, full disks, many processes."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loramux_adapters.artifacts.disk import MANIFEST_FILE, DiskStore
from loramux_adapters.artifacts.filesystem import storage_errors
from loramux_adapters.errors import ConfigInvalid, StorageFailed, StorageFull, WeightsMissing
from loramux_adapters.model import Artifact
from tests.fakes.adapter_files import CONFIG, WEIGHTS, tiny_base, write_adapter, write_files

BASE = tiny_base()


def put(store: DiskStore, seed: int, keep: tuple[str, ...] = ()) -> Artifact:
    return store.commit(write_adapter(store.workdir(), BASE, seed=seed), keep)


def opened(root: Path, capacity_bytes: int = 1 << 24, reserve_bytes: int = 0) -> DiskStore:
    return DiskStore(root, capacity_bytes=capacity_bytes, reserve_bytes=reserve_bytes)


class FrozenClock:
    """A coarse clock that never moves: the order of use must be kept all the same."""

    def now(self) -> float:
        return 1_000_000.0

    def monotonic(self) -> float:
        return 0.0


def test_order_is_kept_though_the_clock_stands(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, capacity_bytes=1 << 24, clock=FrozenClock())
    made = [put(store, seed).digest for seed in range(5)]
    store.get(made[0])
    again = DiskStore(tmp_path, capacity_bytes=1 << 24, clock=FrozenClock())
    again.get(made[1])
    assert [artifact.digest for artifact in again.entries()] == [*made[2:], made[0], made[1]]


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, MANIFEST_FILE])
@pytest.mark.parametrize("damage", ["missing", "short", "long"])
def test_damaged_artifacts_do_not_count_and_go_at_the_next_start(tmp_path: Path, name: str, damage: str) -> None:
    store = opened(tmp_path)
    artifact, other = put(store, 1), put(store, 2)
    path = artifact.path / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:-1] if damage == "short" else content + b"}")
    assert store.get(artifact.digest) is None
    assert list(store.entries()) == [other]
    again = opened(tmp_path)
    assert not artifact.path.exists()
    assert put(again, 1) == artifact


def test_a_damaged_artifact_is_replaced_by_a_commit(tmp_path: Path) -> None:
    store = opened(tmp_path)
    artifact = put(store, 1)
    (artifact.path / WEIGHTS).unlink()
    assert put(store, 1) == artifact
    assert store.get(artifact.digest) == artifact


def test_workdirs_of_a_dead_process_are_swept_and_those_of_a_living_one_are_not(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom loramux_adapters.artifacts.disk import DiskStore\n"
        "store = DiskStore(Path(sys.argv[1]), capacity_bytes=1 << 24)\nwork = store.workdir()\n"
        "(work / 'part').write_bytes(b'x')\nprint(work, flush=True)\nsys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        living = opened(tmp_path)
        ours = living.workdir()
        assert (theirs / "part").exists()
        process.kill()
        process.wait(timeout=30)
    again = opened(tmp_path)
    assert not theirs.exists()
    assert ours.exists()
    assert list(again.entries()) == list(living.entries()) == []


def test_a_closed_store_s_workdirs_are_swept(tmp_path: Path) -> None:
    store = opened(tmp_path)
    workdir = store.workdir()
    store.close()
    store.close()
    kept = opened(tmp_path)
    assert not workdir.exists()
    assert kept.workdir().exists()


def test_a_commit_without_the_files_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    workdir = store.workdir()
    with pytest.raises(ConfigInvalid):
        store.commit(workdir, ())
    write_files(workdir, {CONFIG: b"{"})
    (workdir / WEIGHTS).symlink_to("/etc/passwd")
    with pytest.raises(WeightsMissing):
        store.commit(workdir, ())
    (workdir / WEIGHTS).unlink()
    write_files(workdir, {WEIGHTS: b"x"})
    with pytest.raises(ConfigInvalid):
        store.commit(workdir, ())


def test_threads_share_a_store(tmp_path: Path) -> None:
    size = put(opened(tmp_path / "probe"), 0).size_bytes
    store = opened(tmp_path / "store", capacity_bytes=4 * size)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda seed: put(store, seed % 10), range(40)))
    assert len({artifact.digest for artifact in made}) == 10
    assert store.size_bytes() <= 4 * size
    assert len(store.entries()) == 4


def test_two_stores_of_one_root_see_each_other_s_artifacts(tmp_path: Path) -> None:
    here, there = opened(tmp_path), opened(tmp_path)
    artifact = put(here, 1)
    assert there.get(artifact.digest) == artifact
    there.remove(artifact.digest)
    assert here.get(artifact.digest) is None


# Full disks.


def test_the_reserve_of_the_file_system_is_left_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path, reserve_bytes=1 << 20)
    first, second = put(store, 1), put(store, 2)
    free = (1 << 20) - first.size_bytes // 2

    def statvfs(_path: object) -> os.statvfs_result:
        return os.statvfs_result((1, 1, free * 2, free, free, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    with pytest.raises(StorageFull):
        put(store, 3, keep=(first.digest, second.digest))
    assert list(store.entries()) == [first, second]
    third = put(store, 3, keep=(second.digest,))
    assert list(store.entries()) == [second, third]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system is not permitted here; the limit on file sizes is tested instead")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(path: Path) -> None:
    """Write until the disk takes no byte more."""
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                full = error.errno
    assert full == errno.ENOSPC


def test_a_really_full_disk_is_storage_full_and_nothing_is_lost(small_disk: Path) -> None:
    store = opened(small_disk / "store")
    kept = [put(store, seed) for seed in range(3)]
    fill(small_disk / "filler")
    workdir = None
    with pytest.raises(StorageFull), storage_errors("writing"):  # noqa: PT012
        workdir = store.workdir()
        write_adapter(workdir, BASE, seed=9)
    if workdir is not None:
        store.discard(workdir)
    assert list(opened_again(store, small_disk / "store").entries()) == kept
    (small_disk / "filler").unlink()
    put(store, 9)


def opened_again(store: DiskStore, root: Path) -> DiskStore:
    """Opening writes a lock file, which a full disk may not take: then the store that is open is looked at."""
    try:
        return opened(root)
    except StorageFull:
        return store


def test_a_commit_on_a_really_full_disk_loses_nothing(small_disk: Path) -> None:
    store = opened(small_disk / "store")
    kept = [put(store, seed) for seed in range(3)]
    workdir = write_adapter(store.workdir(), BASE, seed=9)
    fill(small_disk / "filler")
    with pytest.raises(StorageFull):
        store.commit(workdir, [artifact.digest for artifact in kept])
    assert list(store.entries()) == kept
    (small_disk / "filler").unlink()
    assert store.commit(workdir, ()).digest


def test_the_limit_on_file_sizes_is_storage_full(tmp_path: Path) -> None:
    """EFBIG, from the kernel, in a process that may write little: real wherever the tests run."""
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from loramux_adapters.artifacts.filesystem import write_chunks\n"
        "from loramux_adapters.errors import StorageFull\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    write_chunks(Path(sys.argv[1]), iter([bytes(100_000)]))\n"
        "except StorageFull as error:\n    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "file")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "full" in done.stdout


def test_dev_full_is_storage_full() -> None:
    with pytest.raises(StorageFull), storage_errors("writing"), Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageFailed),
        (errno.EROFS, StorageFailed),
    ],
)
def test_what_the_disk_says_is_translated(number: int, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="while testing"), storage_errors("testing"):
        raise OSError(number, os.strerror(number))


def test_a_root_that_can_not_be_used_is_storage_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed):
        opened(tmp_path / "file")
