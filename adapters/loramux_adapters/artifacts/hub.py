"""Adapters on a Hugging Face hub."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

# Its HTTP library differs between releases (httpx, httpx2); this is the base of that library's errors.
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from loramux_adapters.artifacts.filesystem import storage_errors, write_chunks
from loramux_adapters.artifacts.limits import ArchiveLimits, Meter
from loramux_adapters.artifacts.members import is_telling, is_wanted
from loramux_adapters.errors import (
    RequestInvalid,
    SourceForbidden,
    SourceNotFound,
    SourceTooLarge,
    SourceUnavailable,
)
from loramux_adapters.names import shown
from loramux_adapters.ports import Progress

_SOURCE = re.compile(r"hf://([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w.-][\w./-]{0,199}))?", re.ASCII)
_LOCAL_CACHE = ".cache"
_MAX_METADATA_WAIT_S = 10.0


class HubSource:
    """`ports.ArtifactSource` of `hf://org/repo@revision`; without a revision, `main`.

    `endpoint` None: `HF_ENDPOINT`, or huggingface.co; `token` None: `HF_TOKEN`, or what `hf auth login` kept. A
    revision is resolved to its commit once, so that all files are of one state. Nothing stays in the user's cache.
    """

    def __init__(
        self, limits: ArchiveLimits, *, endpoint: str | None = None, token: str | None = None, timeout_s: float = 60.0
    ) -> None:
        self._limits = limits
        self._api = HfApi(endpoint=endpoint or None, token=token, library_name="loramux")
        self._timeout_s = timeout_s

    def check(self, source: str) -> None:
        _parse(source)

    def fetch(self, source: str, into: Path, progress: Progress) -> None:
        """As in the port; raises `SourceNotFound`, `SourceForbidden` (gated, or no right), `SourceUnavailable`
        (unreachable, or told to stay offline), `SourceTooLarge`, `ArchiveTooLarge` and `StorageError`."""
        repository, revision = _parse(source)
        with storage_errors("downloading an adapter"), _hub_errors(source):
            found = self._api.model_info(repository, revision=revision, timeout=self._timeout_s, files_metadata=True)
            sizes = {file.rfilename: file.size or 0 for file in found.siblings or []}
            wanted = [name for name in sorted(sizes) if is_wanted(name) and "/" not in name]
            telling = [name for name in sorted(sizes) if is_telling(name) and "/" not in name]
            total = sum(sizes[name] for name in wanted)
            self._check_size(total, len(wanted) + len(telling))
            watch = _watch(lambda done: self._follow(done, total, progress))
            for name in wanted:
                self._download(repository, name, found.sha or revision, into, watch)
            for name in telling:
                write_chunks(into / name, iter(()))
            shutil.rmtree(into / _LOCAL_CACHE, ignore_errors=True)

    def forget(self, source: str) -> None:
        """Nothing to do: it is not ours."""

    def _download(self, repository: str, name: str, commit: str, into: Path, watch: type[tqdm]) -> None:
        self._api.hf_hub_download(
            repository,
            name,
            revision=commit,
            local_dir=into,
            etag_timeout=min(self._timeout_s, _MAX_METADATA_WAIT_S),
            tqdm_class=watch,
        )

    def _follow(self, done_bytes: int, total_bytes: int, progress: Progress) -> None:
        """A hub may send more than it announced."""
        self._check_size(done_bytes, 0)
        progress(done_bytes, total_bytes)

    def _check_size(self, size_bytes: int, files: int) -> None:
        if size_bytes > self._limits.max_unpacked_bytes:
            raise SourceTooLarge(
                f"The source has {size_bytes} bytes, over the {self._limits.max_unpacked_bytes} that are allowed."
            )
        meter = Meter(self._limits)
        for _ in range(files):
            meter.file()


def _watch(report: Callable[[int], None]) -> type[tqdm]:
    """A progress bar, which is how the library lets a download be followed, that shows nothing and calls `report`
    with the bytes of all files so far. `report` may raise to end the download."""
    done = 0

    class Watch(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal done
            done += int(n or 0)
            report(done)
            return None

    return Watch


def _parse(source: str) -> tuple[str, str]:
    """Repository and revision. Raises `RequestInvalid`."""
    match = _SOURCE.fullmatch(source)
    if match is None or ".." in source or "--" in match[1]:
        raise RequestInvalid(
            f"The source {shown(source)} must read hf://org/repository or hf://org/repository@revision."
        )
    return match[1], match[2] or "main"


@contextmanager
def _hub_errors(source: str) -> Iterator[None]:
    """Most of the library's errors are `OSError`s as well: they are told apart here, before a disk is blamed."""
    name = shown(source)
    try:
        yield
    except GatedRepoError as error:
        raise SourceForbidden(f"The source {name} is gated; accept its terms and give the gateway a token.") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise SourceNotFound(
            f"The source {name} does not exist, or is private and the gateway's token has no right to it."
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, FileMetadataError) as error:
        raise SourceUnavailable(f"The hub of {name} can not be reached ({type(error).__name__}); try again.") from error
    except HFValidationError as error:
        raise RequestInvalid(f"The source {name} is no name that a hub can have.") from error
    except EntryNotFoundError as error:
        raise SourceNotFound(f"The source {name} lacks a file that it lists.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise SourceForbidden(f"The hub refused {name} ({status}); check the gateway's token.") from error
        if status == 404:
            raise SourceNotFound(f"The source {name} does not exist.") from error
        raise SourceUnavailable(f"The hub can not answer for {name} now ({status}); try again.") from error
    except HTTPError as error:
        raise SourceUnavailable(f"The hub of {name} can not be reached ({type(error).__name__}); try again.") from error
    except (ValueError, KeyError) as error:
        raise SourceUnavailable(f"The hub of {name} answered with something that is no hub's answer.") from error
    except OSError as error:
        # What is the disk's has a number; what has none is the library's, for a download that fell short.
        if error.errno is not None:
            raise
        raise SourceUnavailable(f"The download of {name} broke off; try again.") from error
