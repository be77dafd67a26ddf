"""`s3://` against a server of the S3 protocol over HTTP (moto), and against servers that misbehave."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import httpx
import pytest

from loramux_adapters.artifacts.limits import ArchiveLimits
from loramux_adapters.artifacts.s3 import S3Source
from loramux_adapters.errors import (
    ArchiveCorrupt,
    LoramuxError,
    RequestInvalid,
    SourceForbidden,
    SourceNotFound,
    SourceTooLarge,
    SourceUnavailable,
)
from tests.fakes.adapter_files import CONFIG, WEIGHTS, adapter_files, tar_bytes, tiny_base, zip_bytes

# moto and botocore, not this code, use what their own dependencies have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(moto|botocore|werkzeug).*")

MIB = 1 << 20
LIMITS = ArchiveLimits(max_archive_bytes=MIB, max_unpacked_bytes=MIB, max_files=8, max_ratio=200)
FILES = adapter_files(tiny_base())
Seen = list[tuple[int, int | None]]


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
    made = boto3.session.Session().resource("s3", endpoint_url=s3_url).create_bucket(Bucket="adapters")
    yield made
    made.meta.client.close()


def source_of(endpoint: str, limits: ArchiveLimits = LIMITS, timeout_s: float = 5.0) -> S3Source:
    return S3Source(limits, endpoint_url=endpoint, timeout_s=timeout_s)


def fetch(fetcher: S3Source, source: str, into: Path) -> Seen:
    into.mkdir(exist_ok=True)
    seen: Seen = []
    fetcher.check(source)
    fetcher.fetch(source, into, lambda done, total: seen.append((done, total)))
    return seen


def refused(fetcher: S3Source, source: str, into: Path, error: type[LoramuxError]) -> LoramuxError:
    with pytest.raises(error) as caught:
        fetch(fetcher, source, into)
    assert type(caught.value) is error
    return caught.value


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("key", ["a.tar.gz", "deep/er/a b?c#d+é.bin"])
@pytest.mark.parametrize("pack", [tar_bytes, zip_bytes])
def test_an_archive_is_fetched(s3_url: str, bucket: Any, tmp_path: Path, key: str, pack: Any) -> None:
    content = pack(FILES)
    bucket.put_object(Key=key, Body=content)
    seen = fetch(source_of(s3_url), f"s3://adapters/{key}", tmp_path / "into")
    assert files_of(tmp_path / "into") == FILES
    assert seen[-1] == (len(content), len(content))


@pytest.mark.parametrize("source", ["s3://adapters/team/a", "s3://adapters/team/a/"])
def test_a_prefix_is_fetched(s3_url: str, bucket: Any, tmp_path: Path, source: str) -> None:
    for name, content in (FILES | {"README.md": b"x", "adapter_model.bin": b"p", "sub/x.bin": b"p"}).items():
        bucket.put_object(Key=f"team/a/{name}", Body=content)
    bucket.put_object(Key="team/ab/other.safetensors", Body=b"x")
    seen = fetch(source_of(s3_url), source, tmp_path / "into")
    assert files_of(tmp_path / "into") == FILES | {"adapter_model.bin": b""}
    total = sum(map(len, FILES.values()))
    assert (total, total) in seen


def test_the_endpoint_may_come_from_the_environment(
    s3_url: str, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    bucket.put_object(Key="a", Body=tar_bytes(FILES))
    fetch(S3Source(LIMITS), "s3://adapters/a", tmp_path / "into")
    assert files_of(tmp_path / "into") == FILES


@pytest.mark.parametrize("source", ["s3://adapters/absent.tgz", "s3://adapters/absent/", "s3://no-such-bucket/a.tgz"])
def test_an_s3_object_that_is_missing_is_not_found(s3_url: str, bucket: Any, tmp_path: Path, source: str) -> None:
    assert not refused(source_of(s3_url), source, tmp_path / "into", SourceNotFound).retryable


def test_an_s3_prefix_without_a_config_is_not_found(s3_url: str, bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Key="a/adapter_model.safetensors", Body=b"x")
    refused(source_of(s3_url), "s3://adapters/a", tmp_path / "into", SourceNotFound)


@contextmanager
def authorization(s3_url: str) -> Iterator[None]:
    """moto checks signatures and policies while this is open (docs.getmoto.org, "IAM-like access control")."""
    url = f"{s3_url}/moto-api/reset-auth"
    before = json.loads(httpx.post(url, content=b"0").text)["PREVIOUS_INITIAL_NO_AUTH_ACTION_COUNT"]
    try:
        yield
    finally:
        httpx.post(url, content=before.encode())


@pytest.mark.parametrize("source", ["s3://adapters/a.tgz", "s3://adapters/a/"])
def test_an_s3_object_that_is_forbidden_to_a_user_without_the_right(
    s3_url: str, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    bucket.put_object(Key="a.tgz", Body=tar_bytes(FILES))
    iam = boto3.session.Session().client("iam", endpoint_url=s3_url)
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    iam.close()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    with authorization(s3_url):
        error = refused(source_of(s3_url), source, tmp_path / "into", SourceForbidden)
    assert not error.retryable
    assert "rights" in error.message


def test_unknown_s3_credentials_are_forbidden(s3_url: str, bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Key="a.tgz", Body=tar_bytes(FILES))
    with authorization(s3_url):
        refused(source_of(s3_url), "s3://adapters/a.tgz", tmp_path / "into", SourceForbidden)


def test_without_credentials_it_is_forbidden_and_says_why(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = refused(source_of(s3_url), "s3://adapters/a.tgz", tmp_path / "into", SourceForbidden)
    assert "no credentials" in error.message


def test_an_unknown_profile_is_forbidden(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")
    refused(source_of(s3_url), "s3://adapters/a.tgz", tmp_path / "into", SourceForbidden)


def test_an_s3_object_larger_than_allowed_is_refused(s3_url: str, bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Key="a.tgz", Body=bytes(MIB + 1))
    error = refused(source_of(s3_url), "s3://adapters/a.tgz", tmp_path / "into", SourceTooLarge)
    assert error.details == {"max_bytes": MIB}
    assert files_of(tmp_path / "into") == {}


def test_an_s3_prefix_larger_than_allowed_is_refused(s3_url: str, bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Key=f"a/{CONFIG}", Body=b"{}")
    bucket.put_object(Key=f"a/{WEIGHTS}", Body=bytes(MIB))
    refused(source_of(s3_url), "s3://adapters/a", tmp_path / "into", SourceTooLarge)
    assert files_of(tmp_path / "into") == {}


def test_an_s3_object_that_is_no_archive_is_corrupt(s3_url: str, bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Key="a.tgz", Body=b"rubbish")
    refused(source_of(s3_url), "s3://adapters/a.tgz", tmp_path / "into", ArchiveCorrupt)


def test_a_store_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert refused(source_of(endpoint), "s3://adapters/a", tmp_path / "into", SourceUnavailable).retryable


def test_a_store_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        refused(source_of(endpoint, timeout_s=0.2), "s3://adapters/a", tmp_path / "into", SourceUnavailable)


def test_an_endpoint_that_is_no_address_is_unavailable(tmp_path: Path) -> None:
    refused(source_of("not an address"), "s3://adapters/a", tmp_path / "into", SourceUnavailable)


@contextmanager
def odd_store(status: int = 200, claimed: int = 100, sent: int = 100, promised: int | None = None) -> Iterator[str]:
    """A store of one object that HEAD says has `claimed` bytes, and GET sends `sent` of `promised`."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._head(claimed)

        def do_GET(self) -> None:
            self._head(sent if promised is None else promised)
            self.wfile.write(bytes(sent))

        def _head(self, length: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.send_header("ETag", '"e"')
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join(timeout=10)


def test_a_store_that_sends_more_than_it_said_is_stopped(tmp_path: Path) -> None:
    with odd_store(claimed=100, sent=4 * MIB) as endpoint:
        refused(source_of(endpoint), "s3://adapters/a", tmp_path / "into", SourceTooLarge)
    assert sum(path.stat().st_size for path in (tmp_path / "into").iterdir()) <= 2 * MIB


def test_a_download_that_breaks_off_is_unavailable(tmp_path: Path) -> None:
    with odd_store(claimed=5000, sent=100, promised=5000) as endpoint:
        refused(source_of(endpoint), "s3://adapters/a", tmp_path / "into", SourceUnavailable)


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, SourceUnavailable), (503, SourceUnavailable), (429, SourceUnavailable), (400, SourceForbidden)],
)
def test_a_store_that_refuses_is_told_apart(tmp_path: Path, status: int, error: type[LoramuxError]) -> None:
    with odd_store(status=status, claimed=0) as endpoint:
        refused(source_of(endpoint), "s3://adapters/a", tmp_path / "into", error)


@pytest.mark.parametrize(
    "source",
    ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://B_AD/key", "s3://a/key", "s3:bucket/key", "s3://-a-/key",
     "s3://bucket/" + "x" * 1025],
)  # fmt: skip
def test_a_malformed_source_is_refused(source: str) -> None:
    with pytest.raises(RequestInvalid, match="s3://bucket/key"):
        source_of("http://127.0.0.1:1").check(source)
