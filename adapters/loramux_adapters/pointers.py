"""Moves what names lead to: staged first, then moved, then what no name leads to is freed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from loramux_adapters.errors import AdapterNotFound, RequestInvalid, VersionNotReady
from loramux_adapters.events import EventLog
from loramux_adapters.library import Library
from loramux_adapters.manager import AdapterManager
from loramux_adapters.model import Adapter, Alias, Target, Tier, VersionState
from loramux_adapters.registry import Registry
from loramux_adapters.snapshot import Snapshot, target_of


class Pointers:
    """Live versions, canaries, aliases and pins. Owns the tasks that free replaced versions; `close` ends them."""

    def __init__(self, registry: Registry, manager: AdapterManager, library: Library, events: EventLog) -> None:
        self._registry = registry
        self._manager = manager
        self._library = library
        self._events = events
        self._retiring: dict[str, asyncio.Task[None]] = {}
        self._closing = False
        self._seen: Snapshot | None = None
        registry.on_publish(self._published)

    async def promote(self, name: str, number: int) -> Adapter:
        """Stage the version on every replica, then make it live. Raises `AdapterNotFound`, `VersionNotFound`,
        `VersionNotReady`, `EngineError`, `StorageError`, `ArtifactError`."""
        async with self._staged(name, number):
            return await self._registry.promote(name, number)

    async def rollback(self, name: str) -> Adapter:
        """As `promote`, to the version that was live before. Raises `NoPreviousVersion`."""
        number = await asyncio.to_thread(self._registry.store.rollback_target, name)
        async with self._staged(name, number):
            return await self._registry.rollback(name)

    async def set_canary(self, name: str, number: int | None, weight: float) -> Adapter:
        """As `promote`, for a share of the requests. `number` None ends the canary. Raises `RequestInvalid` for a
        weight that is no share."""
        if number is not None and not 0.0 < weight < 1.0:
            raise RequestInvalid("The weight of a canary is a share between 0 and 1; promote a version for all of it.")
        async with self._staged(name, number):
            return await self._registry.set_canary(name, number, weight)

    async def set_alias(self, name: str, adapter: str, version: int | None) -> Alias:
        """Make or move an alias; a version that it names is staged first, as by `promote`. Raises what that raises,
        and `NameInvalid`, `NameTaken`."""
        async with self._staged(adapter, version):
            return await self._registry.set_alias(name, adapter, version)

    async def delete_alias(self, name: str) -> None:
        """Raises `AliasNotFound`."""
        await self._registry.delete_alias(name)

    async def pin(self, name: str, tier: Tier | None) -> Adapter:
        """Forbid demotion of the live version below `tier`, and move it up to there; None forbids nothing."""
        adapter = await self._registry.set_pin(name, tier)
        if tier is not None and adapter.live is not None:
            await self.prefetch(name, tier)
        return adapter

    async def prefetch(self, name: str, tier: Tier) -> None:
        """Move the live version up to `tier`, on every replica. Raises `AdapterNotFound`, `VersionNotReady`,
        `EngineError`, `StorageError`, `ArtifactError`."""
        target = self._live(name)
        if tier in (Tier.GPU, Tier.CPU):
            await self._manager.stage_everywhere(target)
        elif tier is Tier.DISK:
            await self._library.locate(target)

    def _live(self, name: str) -> Target:
        adapter = self._registry.snapshot.state.adapters.get(name)
        if adapter is None:
            raise AdapterNotFound(f"There is no adapter {name!r}.")
        split = self._registry.snapshot.names.get(name)
        if split is None:
            raise VersionNotReady(f"Adapter {name!r} has no live version.")
        return split.live

    @asynccontextmanager
    async def _staged(self, name: str, number: int | None) -> AsyncIterator[None]:
        """A version that can answer is staged on every replica for the length of the block. Of any other the
        registry says what is wrong."""
        target = None
        if number is not None:
            target = target_of(self._registry.snapshot.state.versions.get((name, number)))
        if target is None:
            yield
            return
        async with self._manager.hold(target):
            yield

    def _published(self, snapshot: Snapshot) -> None:
        """Free what names led to before and do not now. Versions that are being deleted are drained by their
        operation."""
        before, self._seen = self._seen, snapshot
        if before is None:
            return
        for engine_name, target in before.wanted.items():
            version = snapshot.state.versions.get((target.adapter, target.version or 0))
            if engine_name not in snapshot.wanted and version is not None and version.state is VersionState.READY:
                self.release(engine_name, "replaced")

    def release(self, engine_name: str, reason: str) -> None:
        """Free the weights in the background as soon as no request is on them, unless a name leads there again."""
        if self._closing or engine_name in self._retiring or self._wanted(engine_name):
            return
        task = asyncio.create_task(self._retire(engine_name, reason), name=f"retire {engine_name}")
        self._retiring[engine_name] = task
        # For a task that was ended before it began.
        task.add_done_callback(lambda _: self._retiring.get(engine_name) is task and self._retiring.pop(engine_name))

    async def _retire(self, engine_name: str, reason: str) -> None:
        try:
            freed = await self._manager.retire(engine_name, reason, lambda: self._wanted(engine_name))
        finally:
            # At once, not by a callback of the task: between the two the name may be replaced again.
            self._retiring.pop(engine_name, None)
        if freed:
            self._events.publish("engine.freed", engine_name=engine_name, reason=reason)

    def _wanted(self, engine_name: str) -> bool:
        return engine_name in self._registry.snapshot.wanted

    async def close(self) -> None:
        """End the waits; what was not freed is freed when the next process reconciles the engines."""
        self._closing = True
        tasks = list(self._retiring.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
