"""A base model's checkpoint from S3: once per cache and content, whole or not at all.

<cache>/bases/s3/<name>-<digest of the address>/<digest of the content>/            the checkpoint
<cache>/bases/s3/<name>-<digest of the address>/.<digest of the content>.partial/   the same while it comes
<cache>/bases/s3/.<name>-<digest of the address>.lock                               held by whoever fetches it

The content is told by the names, sizes and ETags of its files, so another checkpoint at the same address is another
directory, and engines that run on the former one keep their files.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from loramux_adapters.artifacts.filesystem import storage_errors, sync
from loramux_adapters.artifacts.s3_store import bucket_and_key, open_client, s3_errors
from loramux_adapters.errors import (
    EngineConfigInvalid,
    RequestInvalid,
    SourceForbidden,
    SourceNotFound,
    SourceUnavailable,
    StorageFull,
)
from loramux_serving.base.lock import Progress, locked

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""Files of a checkpoint that vLLM reads; weights in any other form could run code."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")
_MAX_LISTED = 10_000
_CONFIG = "config.json"
_UNDER_WAY = ".download"


@dataclass(frozen=True, slots=True)
class _Object:
    size_bytes: int
    etag: str


def fetch_base(
    source: str,
    cache: Path,
    progress: Progress | None = None,
    *,
    endpoint_url: str = "",
    timeout_s: float = 60.0,
) -> Path:
    """The directory of the checkpoint that is at `s3://bucket/prefix`, fetched now unless it is there already.

    Files directly below the prefix that a checkpoint needs; everything else there is left. A fetch that fails or is
    killed leaves no checkpoint; the next one keeps the files that had come whole, and begins the others anew. Callers
    in other threads and processes wait for the one that is at work. `progress` hears fractions from 0 to 1 that do not
    fall. Credentials, region and address come as for adapters (`S3Source`).

    Raises EngineConfigInvalid (no such checkpoint, or none that may be read), SourceUnavailable, StorageError.
    """
    tell = progress or (lambda _phase, _fraction: None)
    try:
        bucket, key = bucket_and_key(source)
        with s3_errors(source):
            client = open_client(endpoint_url, timeout_s=timeout_s)
            try:
                return _fetch(client, bucket, key.rstrip("/") + "/", source, cache, tell)
            finally:
                client.close()
    except (RequestInvalid, SourceNotFound, SourceForbidden) as error:
        raise EngineConfigInvalid(f"engine.model: {error.message}") from error


def _fetch(client: "S3Client", bucket: str, prefix: str, source: str, cache: Path, tell: Progress) -> Path:
    tell("looking at the store", 0.0)
    wanted = _listed(client, bucket, prefix)
    _require_checkpoint(wanted, source)
    name = f"{_readable(prefix)}-{sha256(f'{bucket}/{prefix}'.encode()).hexdigest()[:12]}"
    shelf = cache / "bases" / "s3" / name
    target = shelf / _digest(wanted)
    if not _is_whole(target, wanted):
        with storage_errors("fetching the base"):
            shelf.mkdir(parents=True, exist_ok=True)
            with locked(shelf.with_name(f".{name}.lock"), tell):
                # Another caller may have fetched it while this one waited.
                if not _is_whole(target, wanted):
                    _fill(client, bucket, prefix, wanted, target, tell)
    tell("ready", 1.0)
    return target


def _listed(client: "S3Client", bucket: str, prefix: str) -> dict[str, _Object]:
    """By name, what is directly below the prefix and may be part of a checkpoint."""
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix, Delimiter="/", PaginationConfig={"MaxItems": _MAX_LISTED}
    )
    found = {}
    for page in pages:
        for entry in page.get("Contents", []):
            name = entry["Key"].removeprefix(prefix)
            if _NAME.fullmatch(name) and any(fnmatchcase(name, pattern) for pattern in WANTED):
                found[name] = _Object(entry["Size"], entry["ETag"])
    return found


def _require_checkpoint(found: Mapping[str, _Object], source: str) -> None:
    missing = [] if _CONFIG in found else [_CONFIG]
    if not any(name.endswith(".safetensors") for name in found):
        missing.append("*.safetensors")
    if missing:
        raise SourceNotFound(f"There is no checkpoint at {source}/: it has no {' and no '.join(missing)}.")


def _fill(
    client: "S3Client", bucket: str, prefix: str, wanted: Mapping[str, _Object], target: Path, tell: Progress
) -> None:
    partial = target.with_name(f".{target.name}.partial")
    _sweep(partial)
    partial.mkdir(exist_ok=True)
    missing = {name: about for name, about in wanted.items() if not _has(partial / name, about)}
    total = sum(about.size_bytes for about in wanted.values())
    left = sum(about.size_bytes for about in missing.values())
    _require_space(partial, left)
    meter = _Meter(total, total - left, tell)
    for name, about in sorted(missing.items()):
        under_way = partial / f"{name}{_UNDER_WAY}"
        client.download_file(bucket, prefix + name, str(under_way), Callback=meter.count)
        if not _has(under_way, about):
            raise _changed(bucket, prefix)
        sync(under_way)
        under_way.rename(partial / name)
    if _listed(client, bucket, prefix) != wanted:
        # Files of two checkpoints may have come.
        shutil.rmtree(partial)
        raise _changed(bucket, prefix)
    sync(partial)
    if target.exists():  # and is not whole: os.replace wants it gone
        shutil.rmtree(target)
    os.replace(partial, target)
    sync(target.parent)


def _sweep(partial: Path) -> None:
    """What was begun of other contents, and files that had not come whole."""
    for other in partial.parent.glob(".*.partial"):
        if other != partial:
            shutil.rmtree(other)
    for begun in partial.glob(f"*{_UNDER_WAY}*"):
        begun.unlink()


def _require_space(partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial).free
    if free < needed:
        raise StorageFull(
            f"The base needs {needed} more bytes in {partial.parent}, where {free} are free.",
            details={"needed_bytes": needed, "free_bytes": free},
        )


def _changed(bucket: str, prefix: str) -> SourceUnavailable:
    return SourceUnavailable(f"What is at s3://{bucket}/{prefix} changed while it was fetched; try again.")


def _is_whole(checkpoint: Path, wanted: Mapping[str, _Object]) -> bool:
    return all(_has(checkpoint / name, about) for name, about in wanted.items())


def _has(path: Path, about: _Object) -> bool:
    return path.is_file() and path.stat().st_size == about.size_bytes


def _digest(wanted: Mapping[str, _Object]) -> str:
    lines = (f"{name}\0{about.size_bytes}\0{about.etag}\n" for name, about in sorted(wanted.items()))
    return sha256("".join(lines).encode()).hexdigest()[:16]


def _readable(prefix: str) -> str:
    """The last part of the prefix, as far as it is good for a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", prefix.rstrip("/").rpartition("/")[2]).strip(".-")[:80] or "base"


class _Meter:
    """Bytes as they come, on several threads of boto3's."""

    def __init__(self, total: int, done: int, tell: Progress) -> None:
        self._total = total
        self._done = done
        self._tell = tell
        self._lock = Lock()

    def count(self, size_bytes: int) -> None:
        """boto3 takes bytes back where it asks for a part again; the fraction stays until they came."""
        with self._lock:
            self._done += size_bytes
            if size_bytes > 0:
                self._tell("fetching the base", min(1.0, self._done / max(1, self._total)))
