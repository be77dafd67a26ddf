"""What goes on after a call was acknowledged: fleets that come up, and base components and endpoints that go."""

import asyncio
from dataclasses import replace

import structlog

from loramux_adapters.errors import AdapterNotFound, LoramuxError
from loramux_adapters.lifecycle import Lifecycle
from loramux_adapters.model import OperationState, Resource, ResourceKind, ResourceState
from loramux_adapters.ports import Clock
from loramux_adapters.registry import Registry
from loramux_adapters.wakeup import Wakeup
from loramux_serving.sagemaker.fleet_desk import FleetDesk, fleet_of, with_fleet
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.records import AdapterRecord, Fleet, record_of

_log = structlog.get_logger(__name__)

_LOOK_S = 0.1
"""Pause between two looks at a fleet that is coming up."""
_AGAIN_S = 1.0
"""Pause after a failure of the database."""


class Tending:
    """Each step can be done again: after a crash the next process goes on where this one was."""

    def __init__(
        self,
        inventory: Inventory,
        fleet: FleetDesk,
        registry: Registry,
        lifecycle: Lifecycle,
        clock: Clock,
        turn: asyncio.Lock,
    ) -> None:
        """`turn` is had by whoever changes resources."""
        self._inventory = inventory
        self._fleet = fleet
        self._registry = registry
        self._lifecycle = lifecycle
        self._clock = clock
        self._turn = turn
        self._changed = Wakeup()

    async def open(self) -> None:
        """Before replicas are started: as many are wanted as the owner of the fleet has said. Raises `StorageError`."""
        self._inventory.on_change(self._changed.wake)
        owner = self._fleet.owner()
        if owner is None:
            return
        resource, fleet = owner
        if resource.state is ResourceState.DELETING:
            await self._fleet.leave(fleet)
            return
        if resource.state is not ResourceState.SETTLED:
            await self._inventory.save(with_fleet(resource, self._fleet.claim(fleet.copies, fleet.patience_s, fleet)))
        await self._fleet.start(fleet)

    async def run(self) -> None:
        """Until it is cancelled."""
        started: Resource | None = None
        while True:
            owner = self._fleet.owner()
            if owner is None or owner[0].state is ResourceState.SETTLED:
                await self._changed.wait()
                continue
            resource, fleet = owner
            try:
                if resource.state is ResourceState.DELETING:
                    await self._remove(resource, fleet)
                    continue
                if resource is not started:  # once: whoever asked may have left before it was done
                    await self._fleet.start(fleet)
                    started = resource
                if self._fleet.settled(fleet):
                    await self._settle(resource)
                    continue
                await self._changed.wait(_LOOK_S)
            except LoramuxError as error:
                _log.warning("sagemaker.tending_failed", resource=resource.name, code=error.code, reason=error.message)
                await asyncio.sleep(_AGAIN_S)

    async def _settle(self, seen: Resource) -> None:
        async with self._turn:
            resource = self._inventory.get(seen.kind, seen.name)
            if resource is not seen:
                return  # it has changed meanwhile
            now = self._clock.now()
            await self._inventory.save(replace(resource, state=ResourceState.SETTLED, updated_at=now))

    async def _remove(self, resource: Resource, fleet: Fleet) -> None:
        if resource.kind is ResourceKind.COMPONENT:
            await self._remove_adapters(since=resource.updated_at)
        async with self._turn:
            assert fleet_of(resource) is not None
            await self._fleet.leave(fleet)
            await self._inventory.delete(resource.kind, resource.name)
        _log.info("sagemaker.deleted", kind=resource.kind, name=resource.name)

    async def _remove_adapters(self, since: float) -> None:
        """Those that came as components of the base."""
        while True:
            components = self._inventory.of(ResourceKind.COMPONENT)
            leaving = [
                each.name
                for each in components
                if each.of_adapter and each.created_at <= since and record_of(each, AdapterRecord).made_here
            ]
            if not leaving:
                return
            failed = [name for name in leaving if not await self._remove_adapter(name)]
            if failed:
                await asyncio.sleep(_AGAIN_S)

    async def _remove_adapter(self, name: str) -> bool:
        try:
            operation = await self._registry.begin_delete(name)
        except AdapterNotFound:
            return True
        self._lifecycle.begin(operation)
        return (await self._lifecycle.wait(operation.id)).state is OperationState.SUCCEEDED
