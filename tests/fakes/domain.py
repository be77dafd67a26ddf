"""The whole domain wired together: the real registry, disk tier and local sources, and engines in memory."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from loramux_adapters.artifacts.disk import DiskStore
from loramux_adapters.artifacts.limits import ArchiveLimits
from loramux_adapters.artifacts.local import LocalSource
from loramux_adapters.artifacts.sources import Sources
from loramux_adapters.artifacts.upload import UploadSource
from loramux_adapters.errors import SourceNotFound, StorageFailed
from loramux_adapters.events import EventLog
from loramux_adapters.library import Library
from loramux_adapters.lifecycle import Lifecycle
from loramux_adapters.manager import AdapterManager
from loramux_adapters.model import Capabilities, Operation, Target, Tier
from loramux_adapters.pointers import Pointers
from loramux_adapters.ports import Progress, RegistryStore
from loramux_adapters.progress import ProgressBoard
from loramux_adapters.registry import Registry
from loramux_adapters.snapshot import target_of
from loramux_adapters.store.database import Database
from loramux_adapters.store.registry import SqlRegistryStore
from tests.fakes.adapter_files import tiny_base, write_adapter
from tests.fakes.clock import FakeClock
from tests.fakes.lora_engine import FakeEngine
from tests.fakes.tier_observer import FakeObserver

BASE = tiny_base()
LIMITS = ArchiveLimits(max_archive_bytes=2**24, max_unpacked_bytes=2**24, max_files=16, max_ratio=100.0)
_READS = frozenset({"state", "operation", "unfinished_operations", "rollback_target"})


class CrashingStore:
    """A `ports.RegistryStore` that fails at the write number `crash_at`, before it is done or after, and, unless it
    `recovers`, does not answer from then on. `crashed` is set, from whatever thread, when it does."""

    def __init__(self, store: RegistryStore, crash_at: int | None, *, after: bool, recovers: bool = False) -> None:
        self._store = store
        self._recovers = recovers
        self._crash_at = crash_at
        self._after = after
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._dead = False
        self.crashed = asyncio.Event()
        self.writes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                if self._dead:
                    raise StorageFailed("crashed")
                if name in _READS:
                    return method(*args, **kwargs)
                last = len(self.writes) + 1 == self._crash_at
                if not (last and not self._after):
                    result = method(*args, **kwargs)
                self.writes.append(name)
                if last:
                    self._dead = not self._recovers
                    self._loop.call_soon_threadsafe(self.crashed.set)
                    raise StorageFailed("crashed")
                return result

        return call


class Bucket:
    """A `ports.ArtifactSource` of s3://bucket/name: the directories below `root`."""

    def __init__(self, root: Path) -> None:
        self._local = LocalSource([root], LIMITS)
        self._root = root

    def check(self, source: str) -> None:
        """Anything may be there."""

    def fetch(self, source: str, into: Path, progress: Progress) -> None:
        name = source.rpartition("/")[2]
        if not (self._root / name).exists():
            raise SourceNotFound(f"There is nothing at {source}.")
        self._local.fetch(str(self._root / name), into, progress)

    def forget(self, source: str) -> None: ...


class Domain:
    """One gateway's domain over the state in `home`, which outlives it. `close` stops it as a shutdown does."""

    def __init__(
        self,
        home: Path,
        engines: Sequence[FakeEngine],
        *,
        crash_at: int | None = None,
        crash_after: bool = False,
        recovers: bool = False,
        keep_previous_s: float = 0.0,
        disk_bytes: int = 2**26,
        engines_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        for name in ("sources", "uploads"):
            (home / name).mkdir(parents=True, exist_ok=True)
        self.home = home
        self.engines = engines
        self.clock = FakeClock()
        self.events = EventLog(self.clock)
        self.observer = FakeObserver()
        self.database = Database(f"sqlite:///{home}/registry.db")
        self.store: Any = CrashingStore(SqlRegistryStore(self.database), crash_at, after=crash_after, recovers=recovers)
        source = Sources(
            {
                "file": LocalSource([home / "sources"], LIMITS),
                "upload": UploadSource(home / "uploads", LIMITS),
                "s3": Bucket(home / "sources"),
            }
        )
        self.disk = DiskStore(home / "artifacts", capacity_bytes=disk_bytes)
        self.registry = Registry(self.store, source, self.clock, self.events, base_name=BASE.name)
        self.library = Library(
            source,
            self.disk,
            BASE,
            protected=lambda: (
                self.registry.snapshot.protected_digests | self.manager.in_engines() | self.pointers.kept_digests()
            ),
            source_of=self.registry.source_of,
            give_way=lambda: self.pointers.give_way(),
            check_finite=True,
            workers=2,
            refetched=partial(self.observer.adapter_loaded, Tier.REMOTE, Tier.DISK),
        )
        self.manager = AdapterManager(
            self.library.locate,
            lambda: self.registry.snapshot.pins,
            self.clock,
            self.observer,
            room_timeout_s=5.0,
            drain_timeout_s=5.0,
            engines_wanted=engines_wanted,
        )
        self.pointers = Pointers(
            self.registry,
            self.manager,
            self.library,
            self.events,
            self.clock,
            keep_previous_s=keep_previous_s,
        )
        self.lifecycle = Lifecycle(
            self.registry,
            self.manager,
            self.library,
            self.pointers,
            ProgressBoard(),
            self.events,
            self.clock,
            self.observer,
        )

    async def start(self) -> None:
        await self.registry.open()
        for engine in self.engines:
            await self.attach(engine)
        await self.lifecycle.resume()

    async def attach(self, engine: FakeEngine) -> None:
        await self.manager.attach(
            engine,
            known=self._known,
            first=lambda: tuple(self.registry.snapshot.wanted.values()),
        )

    def _known(self) -> Mapping[str, Target]:
        """Every version that can answer, as the gateway tells it."""
        snapshot = self.registry.snapshot
        ready = (target_of(version) for version in snapshot.state.versions.values())
        return {target.engine_name: target for target in ready if target is not None} | dict(snapshot.wanted)

    async def close(self) -> None:
        await self.lifecycle.close()
        await self.pointers.close()
        await self.manager.close()
        self.disk.close()
        self.database.close()

    # --- what a client does ---

    def source(self, name: str, *, seed: int = 0, **options: Any) -> str:
        """A directory of an adapter's files; other seeds are other contents."""
        return str(write_adapter(self.home / "sources" / name, BASE, seed=seed, **options))

    def upload(self, name: str, *, seed: int = 0) -> str:
        write_adapter(self.home / "uploads" / name, BASE, seed=seed)
        return f"upload:{name}"

    async def add(self, name: str, source: str, *, promote: bool | float = True, pin: Tier | None = None) -> Operation:
        _, _, operation = await self.registry.add(name, source, base=None, promote=promote, pin=pin)
        return await self.finish(operation)

    async def update(self, name: str, source: str, *, promote: bool | float = True) -> Operation:
        _, operation = await self.registry.update(name, source, promote=promote)
        return await self.finish(operation)

    async def delete(self, name: str) -> Operation:
        return await self.finish(await self.registry.begin_delete(name))

    async def delete_version(self, name: str, number: int) -> Operation:
        return await self.finish(await self.registry.begin_delete_version(name, number))

    async def finish(self, operation: Operation) -> Operation:
        self.lifecycle.begin(operation)
        return await self.lifecycle.wait(operation.id)

    # --- what must be true ---

    def check(self) -> None:
        """Raises `AssertionError` unless everything has come to an end, and names lead only to what answers."""
        self.manager.check_integrity()
        snapshot = self.registry.snapshot
        assert not self.store.unfinished_operations()
        assert not [version for version in snapshot.state.versions.values() if version.state.arriving]
        for adapter in snapshot.state.adapters.values():
            assert adapter.state == "active", adapter
            assert adapter.live is None or adapter.name in snapshot.names
        for name, target in snapshot.wanted.items():
            assert self.manager.leases(name) == 0
            assert self.manager.staged_on(name) == self.manager.replicas, name
            assert target.digest is not None
            assert self.disk.get(target.digest) is not None, name
        for engine in self.engines:
            assert snapshot.wanted.keys() <= engine.held.keys(), (snapshot.wanted, engine.held)


def engines(*names: str, places: int = 8) -> list[FakeEngine]:
    able = Capabilities(dynamic_lora=True, max_loras=2, max_cpu_loras=places, max_lora_rank=32, evict=True)
    return [FakeEngine(name, able) for name in names]
