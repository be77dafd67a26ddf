"""What models are that SageMaker's clients ask for: an endpoint, and an inference component behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from loramux_adapters.errors import (
    ComponentNotFound,
    ComponentNotReady,
    EndpointNotFound,
    ModelNotFound,
    RequestInvalid,
)
from loramux_adapters.model import AdapterState, ResourceKind, ResourceState, Target
from loramux_adapters.registry import Registry
from loramux_serving.relay.dialect import Component, ModelName
from loramux_serving.sagemaker.arns import readable
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.records import BaseRecord, EndpointRecord, record_of


@dataclass(frozen=True, slots=True)
class _Doors:
    """`endpoints` says of each that is in service whether inference components are behind it, and None of the others.
    `base` is the base component's name, `endpoint` where it and all adapters are."""

    endpoints: Mapping[str, bool | None] = field(default_factory=dict)
    base: str | None = None
    endpoint: str | None = None


class ComponentNames:
    """`relay.ports.Names` over the registry's. While no endpoint was created here the gateway itself is every
    endpoint, with all that the registry has behind it."""

    def __init__(self, registry: Registry, inventory: Inventory, *, account: str) -> None:
        self._registry = registry
        self._inventory = inventory
        self._account = account
        self._doors = _Doors()
        inventory.on_change(self._look)

    def resolve(self, model: ModelName, sticky: str | None = None, key_id: str | None = None) -> Target:
        """See `relay.ports.Names`. Raises `EndpointNotFound`, `ComponentNotFound`, `ComponentNotReady` too, and
        `RequestInvalid` where a component must be named, or can not be."""
        if isinstance(model, str):
            return self._registry.resolve(model, sticky, key_id)
        doors = self._doors
        if doors.endpoints:
            self._check(doors, model)
        name = model.name or model.adapter
        if name is None or name == doors.base:
            return self._registry.snapshot.base
        try:
            target = self._registry.resolve(name, sticky, key_id)
        except ModelNotFound as error:
            if model.name is None:  # the body says it, and that is the container's to read
                raise ModelNotFound(error.message, details={"aws_code": "ModelError"}) from error
            raise self._missing(name) from error
        if doors.endpoints and model.name is not None and (target.is_base or doors.endpoint != model.endpoint):
            raise self._missing(name)
        return target

    def _check(self, doors: _Doors, model: Component) -> None:
        """Raises where the endpoint is not there, or has no components, or has them and none is named."""
        hosts_components = doors.endpoints.get(model.endpoint)
        if hosts_components is None:
            raise EndpointNotFound(f"Endpoint {readable(model.endpoint)} of account {self._account} not found.")
        if not hosts_components and model.name is not None:
            raise RequestInvalid(
                "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy "
                "inference components. Please remove the Inference Component Name header and try again."
            )
        if hosts_components and model.name is None:
            raise RequestInvalid(
                "Inference Component Name header is required for endpoints to which you plan to deploy inference "
                "components. Please include Inference Component Name header or consider using SageMaker models."
            )
        if model.name is not None and model.name == doors.base and model.endpoint != doors.endpoint:
            raise self._missing(model.name)

    def _missing(self, name: str) -> ModelNotFound:
        adapter = self._registry.snapshot.state.adapters.get(name)
        if adapter is not None and adapter.state is AdapterState.ACTIVE and adapter.live is None:
            return ComponentNotReady(
                f"Inference Component {name} is not in service yet. Wait until DescribeInferenceComponent says that it "
                "is, and try again.",
                details={"aws_code": "ModelNotReadyException"},
            )
        return ComponentNotFound(f"Inference Component Name {readable(name)} of account {self._account} not found.")

    def _look(self) -> None:
        endpoints: dict[str, bool | None] = {}
        for each in self._inventory.of(ResourceKind.ENDPOINT):
            serves = each.state not in (ResourceState.CREATING, ResourceState.DELETING)
            endpoints[each.name] = record_of(each, EndpointRecord).hosts_components if serves else None
        base = endpoint = None
        for each in self._inventory.of(ResourceKind.COMPONENT):
            if not each.of_adapter and each.state is not ResourceState.DELETING:
                base, endpoint = each.name, record_of(each, BaseRecord).endpoint_name
        self._doors = _Doors(endpoints, base, endpoint)
