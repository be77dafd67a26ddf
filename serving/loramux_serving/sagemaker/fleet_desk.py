"""What base components and endpoints with a model have to do with the replicas: there is one fleet, and one of them at
most has it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import msgspec

from loramux_adapters.errors import RequestInvalid
from loramux_adapters.model import Resource, ResourceKind, ResourceState
from loramux_adapters.ports import Clock
from loramux_serving.sagemaker.arns import Place
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.ports import Copies, Misfits, Trouble
from loramux_serving.sagemaker.records import BaseRecord, EndpointRecord, Fleet, body_of, record_of
from loramux_serving.sagemaker.replies import fleet_taken, too_many_copies
from loramux_serving.sagemaker.shapes.components import FAILURE_REASON_LENGTH

Status = Literal["InService", "Creating", "Updating", "Failed", "Deleting"]


class FleetDesk:
    def __init__(
        self,
        inventory: Inventory,
        copies: Copies,
        misfits: Misfits,
        trouble: Trouble,
        clock: Clock,
        *,
        start_timeout_s: float,
    ) -> None:
        """`start_timeout_s` is the patience with a fleet for which its owner says none."""
        self._inventory = inventory
        self._copies = copies
        self._misfits = misfits
        self._trouble = trouble
        self._clock = clock
        self._start_timeout_s = start_timeout_s

    @property
    def ready(self) -> int:
        """Copies that take requests now."""
        return self._copies.ready

    def owner(self) -> tuple[Resource, Fleet] | None:
        """Who has the fleet."""
        for resource in self._inventory.of(ResourceKind.COMPONENT) + self._inventory.of(ResourceKind.ENDPOINT):
            fleet = fleet_of(resource)
            if fleet is not None:
                return resource, fleet
        return None

    def check_free(self, place: Place) -> None:
        """Raises `LimitExceeded` where somebody has the fleet."""
        owner = self.owner()
        if owner is not None:
            raise fleet_taken(place.arn(owner[0].kind, owner[0].name))

    def check(self, environment: Mapping[str, str], copies: int) -> None:
        """Raises `RequestInvalid` where another model is asked for than runs here, and `LimitExceeded`."""
        misfits = self._misfits(environment)
        if misfits:
            raise RequestInvalid(
                f"The container does not fit what this gateway runs: {' '.join(misfits)} Change the container's "
                "environment, or the gateway's settings and restart it."
            )
        self.check_copies(copies)

    def check_copies(self, copies: int) -> None:
        """Raises `LimitExceeded`."""
        if copies > self._copies.limit:
            raise too_many_copies(copies, self._copies.limit)

    def claim(self, copies: int, patience_s: float | None, before: Fleet | None = None) -> Fleet:
        """What is kept of a fleet that is asked for; `before` is what was kept of it until now."""
        patience_s = patience_s or self._start_timeout_s
        return Fleet(
            copies=copies,
            copies_before=self._copies.wanted if before is None else before.copies_before,
            patience_s=patience_s,
            patience_until=self._clock.now() + patience_s,
        )

    async def start(self, fleet: Fleet) -> None:
        """Once that is kept."""
        await self._copies.set(min(fleet.copies, self._copies.limit))

    async def leave(self, fleet: Fleet) -> None:
        """The replicas are again as they were."""
        await self._copies.set(min(fleet.copies_before, self._copies.limit))

    def settled(self, fleet: Fleet) -> bool:
        return self._copies.ready >= min(fleet.copies, self._copies.limit)

    def status(self, resource: Resource, fleet: Fleet) -> tuple[Status, str | None]:
        """With why it has failed, or its last change has."""
        match resource.state:
            case ResourceState.DELETING:
                return "Deleting", None
            case ResourceState.SETTLED:
                return "InService", None
        late = self._clock.now() > fleet.patience_until
        creating = resource.state is ResourceState.CREATING
        if not late:
            return ("Creating" if creating else "Updating"), None
        reason = f"{self._copies.ready} of {fleet.copies} copies are ready. {self._trouble()}".strip()
        return ("Failed" if creating else "InService"), reason[:FAILURE_REASON_LENGTH]


def fleet_of(resource: Resource) -> Fleet | None:
    """None of what has no fleet."""
    if resource.kind is ResourceKind.ENDPOINT:
        return record_of(resource, EndpointRecord).fleet
    if resource.kind is ResourceKind.COMPONENT and not resource.of_adapter:
        return record_of(resource, BaseRecord).fleet
    return None


def with_fleet(resource: Resource, fleet: Fleet) -> Resource:
    """Of a resource that has one."""
    record = record_of(resource, EndpointRecord if resource.kind is ResourceKind.ENDPOINT else BaseRecord)
    return replace(resource, body=body_of(msgspec.structs.replace(record, fleet=fleet)))
