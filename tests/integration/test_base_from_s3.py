"""A base from `s3://`, against a server of the S3 protocol over HTTP (moto)."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import httpx
import pytest

from loramux_adapters.errors import EngineConfigInvalid, SourceUnavailable, StorageFull
from loramux_serving.base.location import locate_base
from loramux_serving.base.s3 import fetch_base
from loramux_serving.settings import ArtifactSettings, EngineSettings, Settings

# moto and botocore, not this code, use what their own dependencies have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(moto|botocore|werkzeug).*")

SOURCE = "s3://bases/models/tiny"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "model-00001-of-00002.safetensors": b"one" * 100_000,
    "model-00002-of-00002.safetensors": b"two" * 50_000,
}
OTHERS = {
    "pytorch_model.bin": b"pickle",
    "original/consolidated.safetensors": b"elsewhere",
    "../config.json": b"outside",
    ".hidden.json": b"{}",
    "modeling_tiny.py": b"import os",
    "": b"",
}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of nobody, and none from the machine."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def bucket(s3_url: str, credentials: None) -> Iterator[Any]:
    httpx.post(f"{s3_url}/moto-api/reset")
    made = boto3.session.Session().resource("s3", endpoint_url=s3_url).create_bucket(Bucket="bases")
    put(made, FILES | OTHERS)
    yield made
    made.meta.client.close()


def put(bucket: Any, files: dict[str, bytes], prefix: str = "models/tiny/") -> None:
    for name, content in files.items():
        bucket.put_object(Key=prefix + name, Body=content)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_what_a_checkpoint_needs_is_fetched_once(bucket: Any, s3_url: str, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    made = fetch_base(SOURCE, tmp_path, lambda phase, share: seen.append((phase, share)), endpoint_url=s3_url)

    assert contents(made) == FILES
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert (shares[0], seen[-1]) == (0.0, ("ready", 1.0))
    before = made.stat().st_mtime_ns
    assert fetch_base(SOURCE + "/", tmp_path, endpoint_url=s3_url) == made
    assert made.stat().st_mtime_ns == before
    assert not list(made.parent.glob(".*"))


def test_another_checkpoint_at_the_address_is_another_directory(bucket: Any, s3_url: str, tmp_path: Path) -> None:
    first = fetch_base(SOURCE, tmp_path, endpoint_url=s3_url)
    put(bucket, {"config.json": b"[]"})
    second = fetch_base(SOURCE, tmp_path, endpoint_url=s3_url)

    assert second != first
    assert contents(first) == FILES
    assert contents(second) == FILES | {"config.json": b"[]"}


def test_what_came_whole_is_kept_and_the_rest_begins_anew(
    bucket: Any, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of the second file of weights: at its rename, with half of it there."""
    broken = "model-00002-of-00002.safetensors"
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if target.name == broken:
            self.write_bytes(FILES[broken][:10])
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch_base(SOURCE, tmp_path, endpoint_url=s3_url)
    (partial,) = tmp_path.rglob(".*.partial")
    assert broken not in contents(partial)
    kept = partial / "model-00001-of-00002.safetensors"
    inode = kept.stat().st_ino

    shares: list[float] = []
    made = fetch_base(SOURCE, tmp_path, lambda _, share: shares.append(share), endpoint_url=s3_url)
    assert contents(made) == FILES
    assert (made / kept.name).stat().st_ino == inode
    assert min(share for share in shares if share) > 0.6, "the kept file counts from the start"


def test_a_file_that_lost_bytes_is_fetched_again(bucket: Any, s3_url: str, tmp_path: Path) -> None:
    made = fetch_base(SOURCE, tmp_path, endpoint_url=s3_url)
    (made / "model-00001-of-00002.safetensors").write_bytes(b"one")

    assert fetch_base(SOURCE, tmp_path, endpoint_url=s3_url) == made
    assert contents(made) == FILES


def test_a_checkpoint_that_changes_meanwhile_is_not_mixed(bucket: Any, s3_url: str, tmp_path: Path) -> None:
    def change(phase: str, _: float) -> None:
        if phase == "fetching the base":
            put(bucket, {"config.json": b'{"changed": true}'})

    with pytest.raises(SourceUnavailable, match="changed while it was fetched"):
        fetch_base(SOURCE, tmp_path, change, endpoint_url=s3_url)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock")] == []
    assert contents(fetch_base(SOURCE, tmp_path, endpoint_url=s3_url))["config.json"] == b'{"changed": true}'


def test_many_at_once_get_the_same(bucket: Any, s3_url: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(fetch_base, SOURCE, tmp_path, endpoint_url=s3_url) for _ in range(4)]
        (made,) = {call.result() for call in calls}
    assert contents(made) == FILES


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "s3://bases/models/none",
            "engine.model: There is no checkpoint at s3://bases/models/none/: it has no",
        ),
        ("s3://bases/models/pickled", "and no *.safetensors"),
        ("s3://nowhere/models", "engine.model: The source 's3://nowhere/models' does not exist (NoSuchBucket)"),
        ("s3://bases", "must read s3://bucket/key"),
        ("s3://../x", "must read s3://bucket/key"),
    ],
)
def test_what_is_no_checkpoint_is_said(bucket: Any, s3_url: str, tmp_path: Path, source: str, words: str) -> None:
    put(bucket, {"pytorch_model.bin": b"pickle"}, "models/pickled/")
    with pytest.raises(EngineConfigInvalid) as refused:
        fetch_base(source, tmp_path, endpoint_url=s3_url)
    assert words in refused.value.message


def test_a_store_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        fetch_base(SOURCE, tmp_path, endpoint_url="http://127.0.0.1:9", timeout_s=1.0)


def test_a_disk_without_room_is_said_first(
    bucket: Any, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StorageFull, match="where 1000 are free"):
        fetch_base(SOURCE, tmp_path, endpoint_url=s3_url)


def test_settings_lead_there(bucket: Any, s3_url: str, tmp_path: Path) -> None:
    settings = Settings(
        cache=tmp_path, engine=EngineSettings(model=SOURCE), artifacts=ArtifactSettings(s3_endpoint_url=s3_url)
    )
    directory, name = locate_base(settings)

    assert (contents(directory), name) == (FILES, "tiny")
    assert directory.is_relative_to(tmp_path)
