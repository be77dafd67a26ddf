"""What operators ask for: each use case changes the registry, publishes the new snapshot, and only then answers."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import asdict
from typing import Concatenate, ParamSpec, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential

from loramux_adapters.errors import NameTaken, RequestInvalid, StorageError, VersionNotFound
from loramux_adapters.events import EventLog
from loramux_adapters.model import Adapter, Alias, CanaryEnd, CanaryRule, Operation, Sticky, Target, Tier, Version
from loramux_adapters.names import check_adapter_name
from loramux_adapters.ports import ArtifactSource, Clock, CreateAdapter, RegistryStore
from loramux_adapters.snapshot import Snapshot, build, sticky_draw

_PUBLISH_PATIENCE_S = 30.0
"""How long a change that was committed waits to be read back from a database that does not answer."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Registry:
    """Holds the snapshot. Call `open` before anything else. One event loop."""

    def __init__(
        self, store: RegistryStore, source: ArtifactSource, clock: Clock, events: EventLog, *, base_name: str
    ) -> None:
        self.store = store
        self._source = source
        self._clock = clock
        self._events = events
        self._base_name = base_name
        self._turn = asyncio.Lock()
        self._snapshot: Snapshot | None = None
        self._published: list[Callable[[Snapshot], None]] = []

    async def open(self) -> None:
        """Read the registry. Raises `StorageError`."""
        async with self._turn:
            await self._publish()

    @property
    def snapshot(self) -> Snapshot:
        if self._snapshot is None:
            raise RuntimeError("the registry is not open")
        return self._snapshot

    def on_publish(self, listener: Callable[[Snapshot], None]) -> None:
        """`listener` hears of each new snapshot, in the event loop, before the change is acknowledged."""
        self._published.append(listener)

    def resolve(self, model: str, sticky: str | None = None, key_id: str | None = None) -> Target:
        """`relay.ports.Names`. Raises `ModelNotFound`."""
        snapshot = self._snapshot or self.snapshot
        split = snapshot.names.get(model)
        if split is None:
            return snapshot.resolve(model, 1.0)
        if split.canary is None:
            return split.live
        caller = key_id if sticky is None and split.sticky is Sticky.KEY else sticky
        # By the adapter's name, so that an alias gives the same side.
        draw = random.random() if caller is None else sticky_draw(caller, split.live.adapter)
        return split.pick(draw)

    def lasting(self, model: str) -> bool:
        """Whether `resolve` gives the same for everybody, until the next snapshot."""
        split = self.snapshot.names.get(model)
        return split is None or split.canary is None

    def source_of(self, target: Target) -> str:
        """Where the target's version came from. Raises `VersionNotFound`."""
        version = self.snapshot.state.versions.get((target.adapter, target.version or 0))
        if version is None:
            raise VersionNotFound(f"Adapter {target.adapter!r} has no version {target.version}.")
        return version.source

    async def change(self, method: Callable[Concatenate[_P], _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run one method of the store and publish what came of it. When this returns, every request that begins
        sees it. Raises what the method raises; a `StorageError` may also mean that nobody knows whether it was
        done."""
        async with self._turn:
            # Shielded: a caller who leaves must not part a committed change from its snapshot.
            return await asyncio.shield(self._change(lambda: method(*args, **kwargs)))

    async def _change(self, call: Callable[[], _T]) -> _T:
        result = await asyncio.to_thread(call)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(StorageError),
            wait=wait_exponential(multiplier=0.05, max=2.0),
            stop=stop_after_delay(_PUBLISH_PATIENCE_S),
            reraise=True,
        ):
            with attempt:
                await self._publish()
        return result

    async def _publish(self) -> None:
        before = None if self._snapshot is None else self._snapshot.state
        snapshot = build(await asyncio.to_thread(self.store.state, before), self._base_name)
        if self._snapshot is not None and snapshot.generation < self._snapshot.generation:
            return  # a change whose caller left was overtaken
        self._snapshot = snapshot
        for listener in self._published:
            listener(snapshot)

    # --- arriving ---

    async def add(
        self,
        name: str,
        source: str,
        *,
        base: str | None,
        promote: bool | float,
        pin: Tier | None,
        create: CreateAdapter | None = None,
    ) -> tuple[Adapter, Version, Operation]:
        """Register an adapter; its operation is yet to be run. `create` is used in the place of the store's own
        method. Raises `NameInvalid`, `NameTaken`, `SourceNotAllowed`, `RequestInvalid`, `AdapterBusy`."""
        self.check_new_name(name)
        self._check_base(base)
        await asyncio.to_thread(self._source.check, source)
        adapter, version, operation = await self.change(
            create or self.store.create_adapter,
            name,
            self._base_name,
            source,
            promote=check_promote(promote),
            pin=pin,
            now=self._clock.now(),
        )
        self._events.publish("version.registered", name, version.number, operation=operation.id, source=source)
        return adapter, version, operation

    async def update(self, name: str, source: str, *, promote: bool | float) -> tuple[Version, Operation]:
        """Register a further version. Raises `AdapterNotFound`, `SourceNotAllowed`, `RequestInvalid`,
        `AdapterBusy`."""
        await asyncio.to_thread(self._source.check, source)
        version, operation = await self.change(
            self.store.create_version, name, source, promote=check_promote(promote), now=self._clock.now()
        )
        self._events.publish("version.registered", name, version.number, operation=operation.id, source=source)
        return version, operation

    def check_new_name(self, name: str) -> None:
        """Raises `NameInvalid`, `NameTaken` where it is the base's."""
        check_adapter_name(name)
        if name == self._base_name:
            raise NameTaken(f"{name!r} is the base; choose another name.")

    def _check_base(self, base: str | None) -> None:
        if base is not None and base != self._base_name:
            raise RequestInvalid(f"The base {base!r} is not served here; it is {self._base_name!r}.")

    # --- pointers ---

    async def promote(self, name: str, number: int) -> Adapter:
        adapter = await self.change(self.store.promote, name, number, self._clock.now())
        self._events.publish("version.promoted", name, number)
        return adapter

    async def rollback(self, name: str) -> Adapter:
        adapter = await self.change(self.store.rollback, name, self._clock.now())
        self._events.publish("version.rolled_back", name, adapter.live)
        return adapter

    async def set_canary(
        self, name: str, number: int | None, weight: float, sticky: Sticky, rule: CanaryRule | None
    ) -> Adapter:
        adapter = await self.change(
            self.store.set_canary, name, number, weight, self._clock.now(), sticky=sticky, rule=rule
        )
        self._events.publish("canary.changed", name, number, weight=weight)
        return adapter

    async def end_canary(self, name: str, since: float, end: CanaryEnd) -> Adapter | None:
        """As a canary's rule says. None where that canary, which began at `since`, is none any more."""
        adapter = await self.change(self.store.end_canary, name, since, end, self._clock.now())
        if adapter is not None:
            told = {"reason": end.reason, **(asdict(end.figures) if end.figures else {})}
            if end.promoted:
                self._events.publish("version.promoted", name, end.version)
                self._events.publish("canary.promoted", name, end.version, **told)
            else:
                self._events.publish("canary.rolled_back", name, end.version, **told)
        return adapter

    async def set_pin(self, name: str, pin: Tier | None) -> Adapter:
        if pin is Tier.REMOTE:
            raise RequestInvalid("An adapter can be pinned to gpu, cpu or disk; remote is where it always is.")
        adapter = await self.change(self.store.set_pin, name, pin, self._clock.now())
        self._events.publish("adapter.pinned" if pin else "adapter.unpinned", name, pin=pin)
        return adapter

    # --- aliases ---

    async def set_alias(self, name: str, adapter: str, version: int | None) -> Alias:
        self.check_new_name(name)
        alias = await self.change(self.store.create_alias, name, adapter, version, self._clock.now())
        self._events.publish("alias.set", adapter, version, alias=name)
        return alias

    async def delete_alias(self, name: str) -> None:
        await self.change(self.store.delete_alias, name)
        self._events.publish("alias.deleted", alias=name)

    # --- leaving ---

    async def begin_delete(self, name: str) -> Operation:
        """From here on, callers of `name` get 404."""
        operation = await self.change(self.store.begin_delete_adapter, name, self._clock.now())
        self._events.publish("adapter.deleting", name, operation=operation.id)
        return operation

    async def begin_delete_version(self, name: str, number: int) -> Operation:
        operation = await self.change(self.store.begin_delete_version, name, number, self._clock.now())
        self._events.publish("version.deleting", name, number, operation=operation.id)
        return operation


def check_promote(promote: bool | float) -> bool | float:
    """Raises `RequestInvalid` unless it is a bool or a share between 0 and 1."""
    if isinstance(promote, bool) or 0.0 < promote < 1.0:
        return promote
    raise RequestInvalid("`promote` is true, false, or a share between 0 and 1 for a canary.")
