"""Adapters in S3, or any store that speaks its protocol."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

from loramux_adapters.adapter_config import CONFIG_FILE
from loramux_adapters.artifacts.archive import extract
from loramux_adapters.artifacts.filesystem import CHUNK_BYTES, storage_errors, write_chunks
from loramux_adapters.artifacts.limits import ArchiveLimits, Meter
from loramux_adapters.artifacts.members import is_telling, is_wanted
from loramux_adapters.errors import (
    LoramuxError,
    RequestInvalid,
    SourceForbidden,
    SourceNotFound,
    SourceTooLarge,
    SourceUnavailable,
)
from loramux_adapters.names import shown
from loramux_adapters.ports import Progress

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_DOWNLOAD = ".download"
_MAX_KEY_BYTES = 1024
_MAX_LISTED = 10_000
"""Keys of a prefix that are looked at."""
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    ProfileNotFound,
    NoRegionError,
)


class S3Source:
    """`ports.ArtifactSource` of `s3://bucket/key`: an archive, or a prefix that holds an adapter's files (it ends in
    `/`, or has an `adapter_config.json` below it).

    Credentials and region come by AWS's usual means. `endpoint_url` None: AWS, or `AWS_ENDPOINT_URL_S3`. `timeout_s`
    is the longest silence of the store. Requests that fail for passing reasons are tried three times by botocore.
    """

    def __init__(self, limits: ArchiveLimits, *, endpoint_url: str | None = None, timeout_s: float = 60.0) -> None:
        self._limits = limits
        self._endpoint_url = endpoint_url or None
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._made: S3Client | None = None

    def check(self, source: str) -> None:
        _parse(source)

    def fetch(self, source: str, into: Path, progress: Progress) -> None:
        """As in the port; raises `SourceNotFound`, `SourceForbidden`, `SourceUnavailable`, `SourceTooLarge`, and what
        unpacking raises."""
        bucket, key = _parse(source)
        with _s3_errors(source):
            client = self._client()
            head = None if key.endswith("/") else _head(client, bucket, key)
            if head is not None:
                self._fetch_archive(client, bucket, key, head, into, progress)
            else:
                self._fetch_prefix(client, bucket, key.rstrip("/") + "/", into, progress)

    def forget(self, source: str) -> None:
        """Nothing to do: it is not ours."""

    def _fetch_archive(
        self, client: "S3Client", bucket: str, key: str, head: "HeadObjectOutputTypeDef", into: Path, progress: Progress
    ) -> None:
        size = head["ContentLength"]
        self._limits.check_archive(size)
        archive = into / _DOWNLOAD
        write_chunks(archive, self._counted(_body(client, bucket, key, head["ETag"]), size, progress))
        extract(archive, into, self._limits)
        with storage_errors("unpacking an adapter"):
            archive.unlink()

    def _counted(self, chunks: Iterator[bytes], size: int, progress: Progress) -> Iterator[bytes]:
        done = 0
        for chunk in chunks:
            done += len(chunk)
            self._limits.check_archive(done)
            progress(done, size)
            yield chunk

    def _fetch_prefix(self, client: "S3Client", bucket: str, prefix: str, into: Path, progress: Progress) -> None:
        found: dict[str, int] = {}
        meter = Meter(self._limits)
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=prefix, Delimiter="/", PaginationConfig={"MaxItems": _MAX_LISTED}
        )
        for page in pages:
            for entry in page.get("Contents", []):
                name = entry["Key"].removeprefix(prefix)
                if is_wanted(name) or is_telling(name):
                    meter.file()
                    found[name] = entry["Size"]
        if CONFIG_FILE not in found:
            raise SourceNotFound(f"There is neither an object nor an adapter at {shown(f's3://{bucket}/{prefix}')}.")
        total = sum(size for name, size in found.items() if is_wanted(name))
        if total > self._limits.max_unpacked_bytes:
            raise SourceTooLarge(
                f"The source has {total} bytes, over the {self._limits.max_unpacked_bytes} that are allowed."
            )
        for name in found:
            content = _body(client, bucket, prefix + name, None) if is_wanted(name) else iter(())
            write_chunks(into / name, _metered(content, meter, total, progress))

    def _client(self) -> "S3Client":
        """Made on first use: it reads the machine's configuration, which tests and operators may change until then.
        botocore's clients may be shared by threads; the making of one may not."""
        with self._lock:
            if self._made is None:
                self._made = self._make_client()
            return self._made

    def _make_client(self) -> "S3Client":
        config = Config(
            connect_timeout=min(self._timeout_s, 10.0),
            read_timeout=self._timeout_s,
            retries={"mode": "standard", "total_max_attempts": 3},
        )
        try:
            return boto3.session.Session().client("s3", endpoint_url=self._endpoint_url, config=config)
        except ValueError as error:
            raise SourceUnavailable("The S3 store can not be reached: the address of its endpoint is wrong.") from error


def _parse(source: str) -> tuple[str, str]:
    """Bucket and key. Not by `urlsplit`: `?` and `#` are letters like others in a key. Raises `RequestInvalid`."""
    bucket, _, key = source.partition("://")[2].partition("/")
    if not source.startswith("s3://") or not _BUCKET.fullmatch(bucket) or not 0 < len(key.encode()) <= _MAX_KEY_BYTES:
        raise RequestInvalid(f"The source {shown(source)} must read s3://bucket/key.")
    return bucket, key


def _head(client: "S3Client", bucket: str, key: str) -> "HeadObjectOutputTypeDef | None":
    """What is known of an object, None where there is none."""
    try:
        return client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if _status(error) == 404:
            return None
        raise


def _body(client: "S3Client", bucket: str, key: str, etag: str | None) -> Iterator[bytes]:
    """An object's content; `etag` makes sure that it is the one whose size was looked at."""
    if etag is None:
        answer = client.get_object(Bucket=bucket, Key=key)
    else:
        answer = client.get_object(Bucket=bucket, Key=key, IfMatch=etag)
    with closing(answer["Body"]) as body:
        yield from body.iter_chunks(CHUNK_BYTES)


def _metered(chunks: Iterator[bytes], meter: Meter, total: int, progress: Progress) -> Iterator[bytes]:
    for chunk in chunks:
        meter.unpacked(len(chunk))
        progress(meter.total_bytes, total)
        yield chunk


@contextmanager
def _s3_errors(source: str) -> Iterator[None]:
    name = shown(source)
    try:
        yield
    except ClientError as error:
        raise _refusal(name, error) from error
    except _NO_CREDENTIALS as error:
        raise SourceForbidden(
            f"The gateway has no credentials for {name}; give it some by AWS's usual means: environment, profile, role."
        ) from error
    except BotoCoreError as error:
        raise SourceUnavailable(
            f"The store of {name} did not answer as it should ({type(error).__name__}); try again."
        ) from error


def _refusal(name: str, error: ClientError) -> LoramuxError:
    code, status = str(error.response.get("Error", {}).get("Code", "")), _status(error)
    if status == 404 or code in ("NoSuchKey", "NoSuchBucket"):
        return SourceNotFound(f"The source {name} does not exist ({code}).")
    if status >= 500 or status in (408, 409, 412, 429) or code in ("SlowDown", "RequestTimeout"):
        return SourceUnavailable(f"The store of {name} can not answer now ({code}); try again.")
    return SourceForbidden(f"The store refused {name} ({code}); check the gateway's credentials and their rights.")


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
