"""Adapter components: an adapter of the registry each, made, changed and described as SageMaker's clients do."""

from dataclasses import replace

from loramux_adapters.errors import AdapterBusy, NameTaken, RequestInvalid
from loramux_adapters.lifecycle import Lifecycle
from loramux_adapters.model import AdapterState, Resource, ResourceKind
from loramux_adapters.names import shown
from loramux_adapters.ports import Clock
from loramux_adapters.registry import Registry
from loramux_serving.sagemaker.adapters import Seen
from loramux_serving.sagemaker.arns import Place
from loramux_serving.sagemaker.base_component import BaseComponent
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.records import AdapterRecord, BaseRecord, body_of, record_of
from loramux_serving.sagemaker.replies import not_found, taken
from loramux_serving.sagemaker.shapes import components as shapes
from loramux_serving.sagemaker.tags import tags_of

_KIND = ResourceKind.COMPONENT


class AdapterComponents:
    def __init__(
        self, inventory: Inventory, base: BaseComponent, registry: Registry, lifecycle: Lifecycle, clock: Clock
    ) -> None:
        self._inventory = inventory
        self._base = base
        self._registry = registry
        self._lifecycle = lifecycle
        self._clock = clock

    async def create(
        self,
        place: Place,
        asked: shapes.CreateInferenceComponentInput,
        specification: shapes.InferenceComponentSpecification,
    ) -> None:
        name, base_name = asked.inference_component_name, specification.base_inference_component_name
        base = self._base.get()
        if base is None or base[0].name != base_name:
            raise not_found(place, _KIND, base_name or "")
        resource, record = base
        status = self._base.describe(place, resource).inference_component_status
        if status != "InService" and status != "Updating":
            raise RequestInvalid(
                f'Base inference component "{place.arn(_KIND, resource.name)}" is {status}, and must be InService.'
            )
        if asked.endpoint_name != record.endpoint_name:
            raise RequestInvalid(
                f'Base inference component "{place.arn(_KIND, resource.name)}" is not on endpoint '
                f'"{place.arn(ResourceKind.ENDPOINT, asked.endpoint_name)}".'
            )
        if asked.variant_name not in (None, record.variant_name):
            raise RequestInvalid(f"The base inference component is on variant {record.variant_name}.")
        if asked.runtime_config is not None and asked.runtime_config.copy_count != record.fleet.copies:
            raise no_copies(place, name)
        source = _source(specification)
        kept = AdapterRecord(
            endpoint_name=record.endpoint_name,
            variant_name=record.variant_name,
            specification=specification,
            made_here=True,
        )
        now, tags = self._clock.now(), tags_of(asked.tags)
        beside = Resource(_KIND, name, body_of(kept), now, now, tags=tags, of_adapter=True)
        try:
            _, _, operation = await self._inventory.add_adapter(beside, source)
        except (NameTaken, AdapterBusy) as error:
            raise taken(place, _KIND, name) from error
        self._lifecycle.begin(operation)

    async def update(
        self,
        place: Place,
        resource: Resource,
        specification: shapes.InferenceComponentSpecification,
        deployment: shapes.InferenceComponentDeploymentConfig | None,
    ) -> None:
        """Callers are on the old artifact until the new one is whole everywhere, and then on the new one."""
        known = self._base.get()
        base_name = specification.base_inference_component_name
        if base_name is not None and (known is None or base_name != known[0].name):
            raise RequestInvalid("An adapter stays on its base inference component.")
        adapter = self._registry.snapshot.state.adapters.get(resource.name)
        if adapter is None or adapter.state is AdapterState.DELETING:
            raise RequestInvalid(f'Inference component "{place.arn(_KIND, resource.name)}" is being deleted.')
        source = _source(specification)
        before = record_of(resource, AdapterRecord)
        kept = AdapterRecord(
            endpoint_name=before.endpoint_name,
            variant_name=before.variant_name,
            specification=specification,
            last_deployment_config=deployment or before.last_deployment_config,
            made_here=before.made_here,
        )
        _, operation = await self._registry.update(resource.name, source, promote=True)
        self._lifecycle.begin(operation)
        await self._inventory.save(replace(resource, body=body_of(kept), updated_at=self._clock.now()))

    def describe(
        self, place: Place, seen: Seen, base: Resource, record: BaseRecord
    ) -> shapes.DescribeInferenceComponentOutput:
        name = seen.adapter.name
        resource = self._inventory.get(_KIND, name)
        kept = None if resource is None else record_of(resource, AdapterRecord)
        asked = None if kept is None else kept.specification
        return shapes.DescribeInferenceComponentOutput(
            inference_component_name=name,
            inference_component_arn=place.arn(_KIND, name),
            endpoint_name=record.endpoint_name,
            endpoint_arn=place.arn(ResourceKind.ENDPOINT, record.endpoint_name),
            creation_time=seen.adapter.created_at,
            last_modified_time=seen.modified_at,
            variant_name=record.variant_name,
            failure_reason=seen.reason,
            specification=shapes.InferenceComponentSpecificationSummary(
                base_inference_component_name=base.name,
                container=shapes.InferenceComponentContainerSpecificationSummary(
                    artifact_url=seen.source,
                    environment=asked.container.environment if asked and asked.container else None,
                ),
                startup_parameters=asked.startup_parameters if asked else None,
            ),
            runtime_config=self._base.copies(record, None if seen.adapter.live is not None else 0),
            inference_component_status=seen.status,
            last_deployment_config=None if kept is None else kept.last_deployment_config,
        )


def no_copies(place: Place, name: str) -> RequestInvalid:
    return RequestInvalid(
        f'Inference component "{place.arn(_KIND, name)}" is an adapter: it has as many copies as its base inference '
        "component. Change those."
    )


def _source(specification: shapes.InferenceComponentSpecification) -> str:
    """Raises `RequestInvalid` for what an adapter does not have."""
    container = specification.container
    if container is None or container.artifact_url is None:
        raise RequestInvalid("An adapter must have a Container with an ArtifactUrl.")
    for name, value in (
        ("Container.Image", container.image),
        ("ModelName", specification.model_name),
        ("ComputeResourceRequirements", specification.compute_resource_requirements),
    ):
        if value is not None:
            raise RequestInvalid(f"An adapter has no {name} of its own: it runs on its base inference component.")
    if not container.artifact_url.startswith("s3://"):
        raise RequestInvalid(f"The ArtifactUrl {shown(container.artifact_url)} must begin with s3://.")
    return container.artifact_url
