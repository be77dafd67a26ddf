"""The way of an adapter's files: from its source, through validation, into the disk tier, and back from there."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from loramux_adapters.errors import SourceNotFound, StorageFull, WeightsMismatch
from loramux_adapters.model import UPLOAD_SCHEME, AdapterInfo, Artifact, BaseModel, Target
from loramux_adapters.ports import ArtifactSource, ArtifactStore, LoadOutcome, Progress
from loramux_adapters.validate import validate


class Library:
    """Blocking work runs in worker threads, at most `workers` at a time; the rest waits its turn."""

    def __init__(
        self,
        source: ArtifactSource,
        store: ArtifactStore,
        base: BaseModel,
        protected: Callable[[], frozenset[str]],
        source_of: Callable[[Target], str],
        *,
        give_way: Callable[[], Awaitable[bool]],
        check_finite: bool,
        workers: int,
        refetched: Callable[[LoadOutcome, float], None],
    ) -> None:
        """`protected` gives the digests that may not leave the disk, `source_of` where a version came from. `give_way`
        is asked when that is too much: it takes from what is protected, and says whether there was anything.
        `refetched` hears of each fetch by `locate`, and of its seconds."""
        self.source = source
        self.store = store
        self.base = base
        self._protected = protected
        self._source_of = source_of
        self._give_way = give_way
        self._check_finite = check_finite
        self._refetched = refetched
        self._turn = asyncio.Semaphore(workers)
        self._disk = asyncio.Lock()
        """Held from asking what is protected until the disk tier has evicted, and while a path is looked up: a
        version that somebody is about to stage is either in time to be protected, or found to be gone."""
        self._arriving: Counter[str] = Counter()
        """Digests of what was just acquired, which no registry knows yet."""

    @asynccontextmanager
    async def acquire(
        self, source: str, progress: Progress, validating: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[tuple[Artifact, AdapterInfo]]:
        """Fetch, validate and keep what is at `source`; `validating` runs between the first two. The artifact stays
        on disk for the length of the block at least. `progress` is called from a worker thread. Raises
        `ArtifactError`, `SourceNotAllowed`, `StorageError`; then nothing is left behind."""
        kept: list[str] = []
        try:
            yield await self._acquire(source, progress, validating, kept)
        finally:
            for digest in kept:
                self._arriving[digest] -= 1
            self._arriving += Counter()  # drops what is at zero

    async def _acquire(
        self, source: str, progress: Progress, validating: Callable[[], Awaitable[None]], kept: list[str]
    ) -> tuple[Artifact, AdapterInfo]:
        async with self._turn:
            workdir = await asyncio.to_thread(self.store.workdir)
            try:
                await asyncio.to_thread(self.source.fetch, source, workdir, progress)
                await validating()
                info = await asyncio.to_thread(
                    validate, workdir, self.base, max_rank=None, check_finite=self._check_finite
                )
                try:
                    artifact = await self._commit(workdir, kept)
                except StorageFull:
                    if not await self._give_way():
                        raise
                    artifact = await self._commit(workdir, kept)
                return artifact, info
            finally:
                await asyncio.shield(asyncio.to_thread(self.store.discard, workdir))

    async def _commit(self, workdir: Path, kept: list[str]) -> Artifact:
        async with self._disk:
            keep = self._protected() | self._arriving.keys()
            artifact = await asyncio.to_thread(self.store.commit, workdir, keep)
            self._arriving[artifact.digest] += 1
            kept.append(artifact.digest)
            return artifact

    async def locate(self, target: Target) -> Path:
        """Directory of the target's artifact; fetched again from its source where it left the disk. Raises what
        `acquire` raises, and `WeightsMismatch` where the source holds other content by now."""
        if target.digest is None:
            raise SourceNotFound(f"{target.engine_name} has no artifact.")
        source = self._source_of(target)
        async with self._disk:
            artifact = await asyncio.to_thread(self.store.get, target.digest)
        if artifact is not None:
            return artifact.path
        if source.startswith(UPLOAD_SCHEME):
            raise SourceNotFound(
                f"The files of {target.adapter!r} version {target.version} were uploaded and are gone from the disk; "
                "upload them again."
            )
        loop = asyncio.get_running_loop()
        started = loop.time()
        outcome: LoadOutcome = "failed"
        try:
            async with self.acquire(source, _unwatched, _unheard) as (artifact, _):
                outcome = "ok"  # from here on it is protected by whoever is about to stage it
        finally:
            self._refetched(outcome, loop.time() - started)
        if artifact.digest != target.digest:
            raise WeightsMismatch(
                f"{source} no longer holds the content of {target.adapter!r} version {target.version}; "
                "register it as a new version."
            )
        return artifact.path

    async def forget(self, source: str) -> None:
        """What was sent to us only to be fetched once goes."""
        await asyncio.to_thread(self.source.forget, source)

    async def remove(self, digest: str, shared: Callable[[], bool]) -> None:
        """Delete an artifact from the disk, unless it just arrived again or `shared` says that it is needed."""
        async with self._disk:
            if digest not in self._arriving and not shared():
                await asyncio.to_thread(self.store.remove, digest)

    async def entries(self) -> tuple[Artifact, ...]:
        return tuple(await asyncio.to_thread(self.store.entries))


def _unwatched(_done: int, _total: int | None) -> None:
    """Nobody looks at the progress of files that are fetched again."""


async def _unheard() -> None:
    """Nor at its stages."""
