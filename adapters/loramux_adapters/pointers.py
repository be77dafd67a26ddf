"""Moves what names lead to: staged first, then moved, then what no name leads to is freed. What was live before stays
for a while, so that going back to it waits for nothing; it makes room like anything else that is not pinned."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from loramux_adapters.canary import check_rule
from loramux_adapters.errors import AdapterNotFound, RequestInvalid, VersionNotReady
from loramux_adapters.events import EventLog
from loramux_adapters.library import Library
from loramux_adapters.manager import AdapterManager
from loramux_adapters.model import Adapter, Alias, CanaryEnd, CanaryRule, Sticky, Target, Tier, VersionState
from loramux_adapters.ports import Clock
from loramux_adapters.registry import Registry
from loramux_adapters.snapshot import Snapshot, target_of


class Pointers:
    """Live versions, canaries, aliases and pins. Owns the tasks that free replaced versions; `close` ends them."""

    def __init__(
        self,
        registry: Registry,
        manager: AdapterManager,
        library: Library,
        events: EventLog,
        clock: Clock,
        *,
        keep_previous_s: float,
    ) -> None:
        """`keep_previous_s` is how long what was live before is kept, after the live pointer has moved."""
        self._registry = registry
        self._manager = manager
        self._library = library
        self._events = events
        self._clock = clock
        self._keep_previous_s = keep_previous_s
        self._gave_way_at = 0.0
        """What the live pointer left before then is not kept, in Unix seconds."""
        self._kept_seen: frozenset[Target] = frozenset()
        self._pinning = asyncio.Lock()
        """Held from the look at how many are pinned until the pin is in the registry."""
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

    async def set_canary(
        self,
        name: str,
        number: int | None,
        weight: float,
        sticky: Sticky = Sticky.REQUEST,
        rule: CanaryRule | None = None,
    ) -> Adapter:
        """As `promote`, for a share of the requests. `number` None ends the canary. Raises `RequestInvalid` for a
        weight that is no share, or a rule that can not be."""
        if number is not None and not 0.0 < weight < 1.0:
            raise RequestInvalid("The weight of a canary is a share between 0 and 1; promote a version for all of it.")
        if rule is not None:
            if number is None:
                raise RequestInvalid("What ends has no rule; give a version, or no rule.")
            check_rule(rule)
        async with self._staged(name, number):
            return await self._registry.set_canary(name, number, weight, sticky, rule)

    async def end_canary(self, name: str, since: float, end: CanaryEnd) -> Adapter | None:
        """As a rule says: the canary that began at `since` becomes live, or ends. None, and no effect, where somebody
        else was faster. Raises what `promote` raises."""
        async with self._staged(name, end.version if end.promoted else None):
            return await self._registry.end_canary(name, since, end)

    async def set_alias(self, name: str, adapter: str, version: int | None) -> Alias:
        """Make or move an alias; a version that it names is staged first, as by `promote`. Raises what that raises,
        and `NameInvalid`, `NameTaken`."""
        async with self._staged(adapter, version):
            return await self._registry.set_alias(name, adapter, version)

    async def delete_alias(self, name: str) -> None:
        """Raises `AliasNotFound`."""
        await self._registry.delete_alias(name)

    async def pin(self, name: str, tier: Tier | None) -> Adapter:
        """Forbid demotion of the live version below `tier`, and move it up to there; None forbids nothing. Raises what
        `prefetch` raises, and `RequestInvalid` where no more can be pinned in slots. Where the engines fail after that,
        the pin stays."""
        async with self._pinning:
            self.check_pin(name, tier)
            adapter = await self._registry.set_pin(name, tier)
        await self._manager.repin()
        if tier is not None and adapter.live is not None:
            await self._move_up(self._live(name), tier, self._manager.pin)
        return adapter

    def check_pin(self, name: str, tier: Tier | None) -> None:
        """Raises `RequestInvalid` where every slot but one is pinned to others. One slot of each replica stays free for
        all that is not pinned, else requests for it could never run."""
        most = self._manager.most_gpu_pins()
        if tier is not Tier.GPU or most is None:
            return
        adapters = self._registry.snapshot.state.adapters.values()
        others = sorted(adapter.name for adapter in adapters if adapter.pin is Tier.GPU and adapter.name != name)
        if len(others) >= most:
            raise RequestInvalid(
                f"{len(others)} adapters are pinned in GPU slots, and one slot must stay free for the others: at most "
                f"{most} can be pinned. Unpin one, pin to cpu, or raise engine.max_loras.",
                details={"pinned": others, "most": most},
            )

    async def prefetch(self, name: str, tier: Tier) -> None:
        """Move the live version up to `tier`, on every replica. Raises `AdapterNotFound`, `VersionNotReady`,
        `EngineError`, `StorageError`, `ArtifactError`, and `QueueTimeout` where there was no room in time."""
        await self._move_up(self._live(name), tier, self._manager.prefetch)

    async def _move_up(self, target: Target, tier: Tier, move: Callable[[Target, Tier], Awaitable[None]]) -> None:
        if tier in (Tier.GPU, Tier.CPU):
            await move(target, tier)
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
        async with self._manager.hold(target, at_once=True):
            yield

    def _published(self, snapshot: Snapshot) -> None:
        """Free what was needed before and is not now. Versions that are being deleted are drained by their
        operation."""
        before, self._seen = self._seen, snapshot
        kept_before, self._kept_seen = self._kept_seen, self._kept(snapshot)
        if before is None:
            return
        was = {**before.wanted, **{target.engine_name: target for target in kept_before}}
        for engine_name in was.keys() - self.needed():
            target = was[engine_name]
            version = snapshot.state.versions.get((target.adapter, target.version or 0))
            if version is not None and version.state is VersionState.READY:
                self.release(target.engine_name, "replaced")

    def _kept(self, snapshot: Snapshot) -> frozenset[Target]:
        return snapshot.kept(max(self._clock.now() - self._keep_previous_s, self._gave_way_at))

    def needed(self) -> frozenset[str]:
        """Engine names that are not to be freed for being idle: those that names lead to, and what is kept for a
        rollback."""
        snapshot = self._registry.snapshot
        return frozenset(snapshot.wanted.keys() | {target.engine_name for target in self._kept(snapshot)})

    def kept_digests(self) -> frozenset[str]:
        """Artifacts that stay on disk for a rollback."""
        return frozenset(target.digest for target in self._kept(self._registry.snapshot) if target.digest)

    async def give_way(self) -> bool:
        """The disk is full: give up what is only kept for a rollback, and free whatever is idle and no name leads to.
        False where nothing is kept."""
        if not self._kept(self._registry.snapshot):
            return False
        self._gave_way_at = self._clock.now()
        await self._manager.sweep(self.needed, 0.0)
        return True

    def release(self, engine_name: str, reason: str) -> None:
        """Free the weights in the background as soon as no request is on them, unless they are needed again."""
        if self._closing or engine_name in self._retiring or self._is_needed(engine_name):
            return
        task = asyncio.create_task(self._retire(engine_name, reason), name=f"retire {engine_name}")
        self._retiring[engine_name] = task
        # For a task that was ended before it began.
        task.add_done_callback(lambda _: self._retiring.get(engine_name) is task and self._retiring.pop(engine_name))

    async def _retire(self, engine_name: str, reason: str) -> None:
        try:
            freed = await self._manager.retire(engine_name, reason, lambda: self._is_needed(engine_name))
        finally:
            # At once, not by a callback of the task: between the two the name may be replaced again.
            self._retiring.pop(engine_name, None)
        if freed:
            self._events.publish("engine.freed", engine_name=engine_name, reason=reason)

    def _is_needed(self, engine_name: str) -> bool:
        snapshot = self._registry.snapshot
        kept = self._kept(snapshot)
        return engine_name in snapshot.wanted or any(target.engine_name == engine_name for target in kept)

    async def close(self) -> None:
        """End the waits; what was not freed is freed when the next process reconciles the engines."""
        self._closing = True
        tasks = list(self._retiring.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
