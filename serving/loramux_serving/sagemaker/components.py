"""Inference components: the base's, and the adapters of the registry, which hang on it."""

import msgspec

from loramux_adapters.errors import RequestInvalid
from loramux_adapters.lifecycle import Lifecycle
from loramux_adapters.model import Resource, ResourceKind, ResourceState
from loramux_adapters.registry import Registry
from loramux_serving.sagemaker.adapter_components import AdapterComponents, no_copies
from loramux_serving.sagemaker.adapters import see, see_all
from loramux_serving.sagemaker.arns import Place
from loramux_serving.sagemaker.base_component import BaseComponent
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.listing import Row, page
from loramux_serving.sagemaker.records import AdapterRecord, BaseRecord, body_of
from loramux_serving.sagemaker.replies import not_found, taken, unsupported
from loramux_serving.sagemaker.shapes import components as shapes

_KIND = ResourceKind.COMPONENT


class Components:
    def __init__(
        self,
        inventory: Inventory,
        base: BaseComponent,
        adapters: AdapterComponents,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._inventory = inventory
        self._base = base
        self._adapters = adapters
        self._registry = registry
        self._lifecycle = lifecycle

    async def create(
        self, place: Place, asked: shapes.CreateInferenceComponentInput
    ) -> shapes.CreateInferenceComponentOutput:
        name, specification = asked.inference_component_name, asked.specification
        if asked.specifications is not None:
            raise unsupported("Specifications for several instance types", "Use Specification.")
        if specification is None:
            raise RequestInvalid("You must provide a Specification.")
        if self._inventory.get(_KIND, name) is not None or name in self._registry.snapshot.state.adapters:
            raise taken(place, _KIND, name)
        if specification.base_inference_component_name is None:
            await self._base.create(place, asked, specification)
        else:
            await self._adapters.create(place, asked, specification)
        return shapes.CreateInferenceComponentOutput(inference_component_arn=place.arn(_KIND, name))

    async def describe(
        self, place: Place, asked: shapes.DescribeInferenceComponentInput
    ) -> shapes.DescribeInferenceComponentOutput:
        name = asked.inference_component_name
        base = self._base.get()
        if base is not None and base[0].name == name:
            return self._base.describe(place, base[0])
        seen = None if base is None else see(self._registry.snapshot.state, name)
        if base is None or seen is None:
            raise not_found(place, _KIND, name)
        return self._adapters.describe(place, seen, *base)

    async def list_some(
        self, place: Place, asked: shapes.ListInferenceComponentsInput
    ) -> shapes.ListInferenceComponentsOutput:
        base = self._base.get()
        if base is None:
            return shapes.ListInferenceComponentsOutput(inference_components=[])
        resource, record = base
        status = self._base.describe(place, resource).inference_component_status or ""
        at = record.endpoint_name, record.variant_name
        rows = {resource.name: Row(resource.name, resource.created_at, resource.updated_at, status, *at)}
        for seen in see_all(self._registry.snapshot.state):
            name = seen.adapter.name
            rows.setdefault(name, Row(name, seen.adapter.created_at, seen.modified_at, seen.status, *at))
        found, token = page(rows.values(), asked)
        return shapes.ListInferenceComponentsOutput(
            inference_components=[_summary(place, row) for row in found], next_token=token
        )

    async def update(
        self, place: Place, asked: shapes.UpdateInferenceComponentInput
    ) -> shapes.UpdateInferenceComponentOutput:
        name, specification = asked.inference_component_name, asked.specification
        copies = None if asked.runtime_config is None else asked.runtime_config.copy_count
        if asked.specifications is not None:
            raise unsupported("Specifications for several instance types", "Use Specification.")
        if specification is None and copies is None:
            raise RequestInvalid("You must provide a Specification or a RuntimeConfig.")
        resource, _ = self._get(place, name)
        if not resource.of_adapter:
            if specification is not None and specification.base_inference_component_name is not None:
                raise RequestInvalid("A base inference component can not become an adapter of another.")
            await self._base.update(
                place, resource, specification=specification, copies=copies, deployment=asked.deployment_config
            )
        else:
            if copies is not None:
                raise no_copies(place, name)
            assert specification is not None
            await self._adapters.update(place, resource, specification, asked.deployment_config)
        return shapes.UpdateInferenceComponentOutput(inference_component_arn=place.arn(_KIND, name))

    async def update_runtime_config(
        self, place: Place, asked: shapes.UpdateInferenceComponentRuntimeConfigInput
    ) -> shapes.UpdateInferenceComponentRuntimeConfigOutput:
        name = asked.inference_component_name
        resource, _ = self._get(place, name)
        if resource.of_adapter:
            raise no_copies(place, name)
        await self._base.update(place, resource, copies=asked.desired_runtime_config.copy_count)
        arn = place.arn(_KIND, name)
        return shapes.UpdateInferenceComponentRuntimeConfigOutput(inference_component_arn=arn)

    async def delete(self, place: Place, asked: shapes.DeleteInferenceComponentInput) -> None:
        """The base takes along the adapters that came as its components. Again while it is under way: no effect."""
        resource, _ = self._get(place, asked.inference_component_name)
        if not resource.of_adapter:
            if resource.state is not ResourceState.DELETING:
                await self._base.begin_delete(resource)
            return
        self._lifecycle.begin(await self._registry.begin_delete(resource.name))

    def resource(self, name: str) -> Resource | None:
        """Of a component: what is kept, or for an adapter of which nothing is kept here, what would be."""
        base = self._base.get()
        if base is None:
            return None
        if base[0].name == name:
            return base[0]
        adapter = self._registry.snapshot.state.adapters.get(name)
        if adapter is None:
            return None
        kept = self._inventory.get(_KIND, name)
        if kept is not None:
            return kept
        record = AdapterRecord(endpoint_name=base[1].endpoint_name, variant_name=base[1].variant_name)
        return Resource(_KIND, name, body_of(record), adapter.created_at, adapter.updated_at, of_adapter=True)

    def _get(self, place: Place, name: str) -> tuple[Resource, BaseRecord]:
        """With the base's record. Raises `ResourceNotFound`."""
        resource, base = self.resource(name), self._base.get()
        if resource is None or base is None:
            raise not_found(place, _KIND, name)
        return resource, base[1]


def _summary(place: Place, row: Row) -> shapes.InferenceComponentSummary:
    return shapes.InferenceComponentSummary(
        inference_component_name=row.name,
        inference_component_arn=place.arn(_KIND, row.name),
        endpoint_name=row.endpoint,
        endpoint_arn=place.arn(ResourceKind.ENDPOINT, row.endpoint),
        variant_name=row.variant,
        creation_time=row.created_at,
        last_modified_time=row.modified_at,
        inference_component_status=_status(row),
    )


def _status(row: Row) -> shapes.ComponentStatus:
    found: shapes.ComponentStatus = msgspec.convert(row.status, shapes.ComponentStatus)
    return found
