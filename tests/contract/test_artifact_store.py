"""What every `ports.ArtifactStore` promises. A new store, or a fake, is added to `OPENERS`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loramux_adapters.artifacts.disk import DiskStore
from loramux_adapters.errors import StorageFull
from loramux_adapters.model import Artifact
from loramux_adapters.ports import ArtifactStore
from tests.fakes.adapter_files import CONFIG, WEIGHTS, write_adapter, write_files
from tests.fakes.adapter_files import tiny_base as base_of

Opener = Callable[[Path, int], ArtifactStore]
"""Opens the store at a root with a capacity; called again, it is a restart."""

BASE = base_of()


def disk(root: Path, capacity_bytes: int) -> ArtifactStore:
    return DiskStore(root, capacity_bytes=capacity_bytes, reserve_bytes=0)


OPENERS: list[Opener] = [disk]


@pytest.fixture(params=OPENERS, ids=lambda opener: opener.__name__)
def opener(request: pytest.FixtureRequest) -> Opener:
    chosen: Opener = request.param
    return chosen


@pytest.fixture
def store(opener: Opener, tmp_path: Path) -> ArtifactStore:
    return opener(tmp_path / "store", 1 << 20)


def put(store: ArtifactStore, seed: int, keep: tuple[str, ...] = ()) -> Artifact:
    workdir = store.workdir()
    write_adapter(workdir, BASE, seed=seed)
    return store.commit(workdir, keep)


def digests(store: ArtifactStore) -> list[str]:
    return [artifact.digest for artifact in store.entries()]


def test_an_empty_store_is_empty(store: ArtifactStore) -> None:
    assert store.get("0" * 64) is None
    assert list(store.entries()) == []
    assert store.size_bytes() == 0


@pytest.mark.parametrize("digest", ["", "..", "../../etc", "0" * 63, "Z" * 64, "0" * 65])
def test_what_is_no_digest_is_not_there(store: ArtifactStore, digest: str) -> None:
    assert store.get(digest) is None
    store.remove(digest)


def test_what_is_committed_is_there(store: ArtifactStore, tmp_path: Path) -> None:
    sent = write_adapter(tmp_path / "sent", BASE, seed=1)
    artifact = put(store, 1)
    assert store.get(artifact.digest) == artifact
    assert list(store.entries()) == [artifact]
    for name in (CONFIG, WEIGHTS):
        assert (artifact.path / name).read_bytes() == (sent / name).read_bytes()
    assert artifact.size_bytes == sum((sent / name).stat().st_size for name in (CONFIG, WEIGHTS))
    assert store.size_bytes() == artifact.size_bytes


def test_a_workdir_is_empty_and_new(store: ArtifactStore) -> None:
    first, second = store.workdir(), store.workdir()
    assert first != second
    assert list(first.iterdir()) == list(second.iterdir()) == []


def test_a_discarded_workdir_is_gone(store: ArtifactStore) -> None:
    workdir = store.workdir()
    (workdir / "part").write_bytes(b"x")
    store.discard(workdir)
    store.discard(workdir)
    assert not workdir.exists()
    assert list(store.entries()) == []


def test_a_committed_workdir_is_gone(store: ArtifactStore) -> None:
    workdir = store.workdir()
    write_adapter(workdir, BASE)
    store.commit(workdir, ())
    assert not workdir.exists()
    store.discard(workdir)


def test_only_the_adapter_s_files_are_kept(store: ArtifactStore) -> None:
    workdir = store.workdir()
    write_adapter(workdir, BASE)
    write_files(workdir, {"adapter_model.bin": b"", "README.md": b"x", "sub/deep/file": b"x"})
    (workdir / "link").symlink_to("/etc")
    kept = {path.name for path in store.commit(workdir, ()).path.iterdir()}
    assert kept - {"artifact.json"} == {CONFIG, WEIGHTS}


def test_known_content_is_shared(store: ArtifactStore) -> None:
    assert put(store, 1) == put(store, 1)
    assert len(store.entries()) == 1


def test_a_config_that_says_the_same_is_the_same(store: ArtifactStore) -> None:
    first = put(store, 1)
    workdir = store.workdir()
    write_adapter(workdir, BASE, seed=1)
    config = json.loads((workdir / CONFIG).read_bytes())
    (workdir / CONFIG).write_text(json.dumps(dict(reversed(config.items()))))
    assert store.commit(workdir, ()).digest == first.digest


def test_other_weights_or_another_config_are_other_content(store: ArtifactStore) -> None:
    workdir = store.workdir()
    write_adapter(workdir, BASE, seed=1, alpha=99)
    assert len({put(store, 1).digest, put(store, 2).digest, store.commit(workdir, ()).digest}) == 3


def test_the_digest_is_stable(store: ArtifactStore) -> None:
    """Registries hold digests: another release must find the same."""
    workdir = store.workdir()
    write_files(workdir, {CONFIG: b'{"r": 8, "a": [1, "\xc3\xa9"]}', WEIGHTS: b"weights"})
    assert store.commit(workdir, ()).digest == "b20802cfc6b16be10ba4ba957658bcca327d331b4cb9c299a391352f9755b310"


def test_removed_is_removed(store: ArtifactStore) -> None:
    artifact = put(store, 1)
    store.remove(artifact.digest)
    store.remove(artifact.digest)
    assert store.get(artifact.digest) is None
    assert not artifact.path.exists()
    assert put(store, 1) == artifact


def test_a_restart_finds_what_was_committed(opener: Opener, tmp_path: Path) -> None:
    artifacts = [put(opener(tmp_path, 1 << 20), seed) for seed in range(3)]
    again = opener(tmp_path, 1 << 20)
    assert list(again.entries()) == artifacts
    assert [again.get(artifact.digest) for artifact in artifacts] == artifacts


def test_a_restart_keeps_the_order_of_use(opener: Opener, tmp_path: Path) -> None:
    store = opener(tmp_path, 1 << 20)
    first, second, third = (put(store, seed).digest for seed in range(3))
    assert digests(store) == [first, second, third]
    store.get(first)
    assert digests(opener(tmp_path, 1 << 20)) == [second, third, first]


def test_the_least_recently_used_goes_first(opener: Opener, tmp_path: Path) -> None:
    size = put(opener(tmp_path / "probe", 1 << 20), 0).size_bytes
    store = opener(tmp_path / "store", 3 * size)
    first, second, third = (put(store, seed).digest for seed in range(3))
    store.get(first)
    fourth = put(store, 3).digest
    assert digests(store) == [third, first, fourth]
    assert store.get(second) is None


def test_what_is_kept_is_never_evicted(opener: Opener, tmp_path: Path) -> None:
    size = put(opener(tmp_path / "probe", 1 << 20), 0).size_bytes
    store = opener(tmp_path / "store", 2 * size)
    first, second = put(store, 0).digest, put(store, 1).digest
    third = put(store, 2, keep=(first,)).digest
    assert digests(store) == [first, third]
    assert store.get(second) is None


def test_no_room_beside_what_is_kept_is_storage_full_and_nothing_is_lost(opener: Opener, tmp_path: Path) -> None:
    size = put(opener(tmp_path / "probe", 1 << 20), 0).size_bytes
    store = opener(tmp_path / "store", 3 * size - 1)
    first, second = put(store, 0).digest, put(store, 1).digest
    workdir = store.workdir()
    write_adapter(workdir, BASE, seed=2)
    with pytest.raises(StorageFull):
        store.commit(workdir, (first, second))
    assert digests(store) == [first, second]
    assert (workdir / WEIGHTS).exists()
    assert store.commit(workdir, ()).size_bytes == size


def test_what_is_larger_than_the_store_evicts_nothing(opener: Opener, tmp_path: Path) -> None:
    size = put(opener(tmp_path / "probe", 1 << 20), 0).size_bytes
    store = opener(tmp_path / "store", size)
    kept = put(store, 0).digest
    workdir = store.workdir()
    write_adapter(workdir, BASE, rank=16, seed=1)
    with pytest.raises(StorageFull):
        store.commit(workdir, ())
    assert digests(store) == [kept]
