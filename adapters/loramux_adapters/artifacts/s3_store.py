"""What speaks to an S3 store, and what its errors mean: for adapters, and for bases."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import boto3
from boto3.exceptions import Boto3Error
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

from loramux_adapters.errors import LoramuxError, RequestInvalid, SourceForbidden, SourceNotFound, SourceUnavailable
from loramux_adapters.names import shown

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MAX_KEY_BYTES = 1024
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    ProfileNotFound,
    NoRegionError,
)


def open_client(endpoint_url: str | None, *, timeout_s: float) -> "S3Client":
    """As `S3Source` says. Not to be called by two threads at a time; the client may be shared. Raises
    `SourceUnavailable` where the address is none."""
    config = Config(
        connect_timeout=min(timeout_s, 10.0),
        read_timeout=timeout_s,
        retries={"mode": "standard", "total_max_attempts": 3},
    )
    try:
        return boto3.session.Session().client("s3", endpoint_url=endpoint_url or None, config=config)
    except ValueError as error:
        raise SourceUnavailable("The S3 store can not be reached: the address of its endpoint is wrong.") from error


def bucket_and_key(source: str) -> tuple[str, str]:
    """Bucket and key. Not by `urlsplit`: `?` and `#` are letters like others in a key. Raises `RequestInvalid`."""
    bucket, _, key = source.partition("://")[2].partition("/")
    if not source.startswith("s3://") or not _BUCKET.fullmatch(bucket) or not 0 < len(key.encode()) <= _MAX_KEY_BYTES:
        raise RequestInvalid(f"The source {shown(source)} must read s3://bucket/key.")
    return bucket, key


@contextmanager
def s3_errors(source: str) -> Iterator[None]:
    """Translate what boto3 raises within to `SourceNotFound`, `SourceForbidden` or `SourceUnavailable`."""
    name = shown(source)
    try:
        yield
    except ClientError as error:
        raise _refusal(name, error) from error
    except _NO_CREDENTIALS as error:
        raise SourceForbidden(
            f"The gateway has no credentials for {name}; give it some by AWS's usual means: environment, profile, role."
        ) from error
    except (BotoCoreError, Boto3Error) as error:
        raise SourceUnavailable(
            f"The store of {name} did not answer as it should ({type(error).__name__}); try again."
        ) from error


def _refusal(name: str, error: ClientError) -> LoramuxError:
    code, status = str(error.response.get("Error", {}).get("Code", "")), status_of(error)
    if status == 404 or code in ("NoSuchKey", "NoSuchBucket"):
        return SourceNotFound(f"The source {name} does not exist ({code}).")
    if status >= 500 or status in (408, 409, 412, 429) or code in ("SlowDown", "RequestTimeout"):
        return SourceUnavailable(f"The store of {name} can not answer now ({code}); try again.")
    return SourceForbidden(f"The store refused {name} ({code}); check the gateway's credentials and their rights.")


def status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
