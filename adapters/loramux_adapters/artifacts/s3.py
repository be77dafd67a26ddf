"""Adapters in S3, or any store that speaks its protocol."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from loramux_adapters.adapter_config import CONFIG_FILE
from loramux_adapters.artifacts.archive import extract
from loramux_adapters.artifacts.filesystem import CHUNK_BYTES, storage_errors, write_chunks
from loramux_adapters.artifacts.limits import ArchiveLimits, Meter
from loramux_adapters.artifacts.members import is_telling, is_wanted
from loramux_adapters.artifacts.s3_store import bucket_and_key, open_client, s3_errors, status_of
from loramux_adapters.errors import SourceNotFound, SourceTooLarge
from loramux_adapters.names import shown
from loramux_adapters.ports import Progress

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

_DOWNLOAD = ".download"
_MAX_LISTED = 10_000
"""Keys of a prefix that are looked at."""


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
        bucket_and_key(source)

    def fetch(self, source: str, into: Path, progress: Progress) -> None:
        """As in the port; raises `SourceNotFound`, `SourceForbidden`, `SourceUnavailable`, `SourceTooLarge`, and what
        unpacking raises."""
        bucket, key = bucket_and_key(source)
        with s3_errors(source):
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
                self._made = open_client(self._endpoint_url, timeout_s=self._timeout_s)
            return self._made


def _head(client: "S3Client", bucket: str, key: str) -> "HeadObjectOutputTypeDef | None":
    """What is known of an object, None where there is none."""
    try:
        return client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if status_of(error) == 404:
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
