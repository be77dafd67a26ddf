"""The resources of SageMaker's interface, in memory and in the database: what is in memory was committed."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import ParamSpec

from loramux_adapters.errors import NameTaken, StorageError
from loramux_adapters.model import Adapter, Operation, Resource, ResourceKind, Version
from loramux_adapters.ports import ResourceStore
from loramux_adapters.registry import Registry
from loramux_adapters.snapshot import Snapshot
from loramux_serving.sagemaker.arns import Place
from loramux_serving.sagemaker.replies import not_found

_P = ParamSpec("_P")
_Key = tuple[ResourceKind, str]


class Inventory:
    """Call `open` before anything else. One event loop. Callers change one thing at a time, and are not cancelled:
    that would part what is in memory from what was committed."""

    def __init__(self, store: ResourceStore, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._resources: Mapping[_Key, Resource] = {}
        self._changed: list[Callable[[], None]] = []
        self.doubtful = False
        """The database failed within a change, and nobody knows whether that was done: `refresh`."""

    async def open(self) -> None:
        """Raises `StorageError`."""
        await self.refresh()
        self._registry.on_publish(self._follow)

    async def refresh(self) -> None:
        """Read all of it. Raises `StorageError`."""
        found = await asyncio.to_thread(self._store.resources)
        self._swap({(resource.kind, resource.name): resource for resource in found})
        self.doubtful = False

    def on_change(self, listener: Callable[[], None]) -> None:
        """`listener` hears of every change, in the event loop, before it is acknowledged."""
        self._changed.append(listener)

    def get(self, kind: ResourceKind, name: str) -> Resource | None:
        return self._resources.get((kind, name))

    def require(self, place: Place, kind: ResourceKind, name: str) -> Resource:
        """Raises `ResourceNotFound`."""
        resource = self.get(kind, name)
        if resource is None:
            raise not_found(place, kind, name)
        return resource

    def of(self, kind: ResourceKind) -> list[Resource]:
        """Oldest first."""
        return [resource for resource in self._resources.values() if resource.kind is kind]

    async def create(self, resource: Resource) -> None:
        """Raises `NameTaken`, `StorageError`."""
        await self._commit(self._store.create_resource, resource)
        self._put(resource)

    async def save(self, resource: Resource) -> None:
        keep = self._store.keep_adapter if resource.of_adapter else self._store.save_resource
        await self._commit(keep, resource)
        self._put(resource)

    async def delete(self, kind: ResourceKind, name: str) -> None:
        await self._commit(self._store.delete_resource, kind, name)
        self._swap({key: known for key, known in self._resources.items() if key != (kind, name)})

    async def add_adapter(self, resource: Resource, source: str) -> tuple[Adapter, Version, Operation]:
        """The resource, and an adapter that is made with it and ends with it. Raises what `Registry.add` raises."""
        if self.get(resource.kind, resource.name) is not None:
            raise NameTaken(f"There is a component {resource.name!r}.")
        create = partial(self._store.create_adapter, resource)
        with self._doubting():
            added = await self._registry.add(resource.name, source, base=None, promote=True, pin=None, create=create)
        self._put(resource)
        return added

    async def _commit(self, method: Callable[_P, None], /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        with self._doubting():
            await asyncio.to_thread(method, *args, **kwargs)

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        try:
            yield
        except StorageError:
            self.doubtful = True
            raise

    def _put(self, resource: Resource) -> None:
        if resource.of_adapter and resource.name not in self._registry.snapshot.state.adapters:
            return  # it has ended meanwhile
        self._swap({**self._resources, (resource.kind, resource.name): resource})

    def _follow(self, snapshot: Snapshot) -> None:
        """Adapters that have gone took their resources with them."""
        gone = {
            key
            for key, resource in self._resources.items()
            if resource.of_adapter and resource.name not in snapshot.state.adapters
        }
        if gone:
            self._swap({key: known for key, known in self._resources.items() if key not in gone})

    def _swap(self, resources: Mapping[_Key, Resource]) -> None:
        self._resources = resources
        for listener in self._changed:
            listener()
