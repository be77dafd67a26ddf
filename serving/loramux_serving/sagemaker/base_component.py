"""The base inference component: the base that this gateway runs, in so many copies."""

from dataclasses import replace

import msgspec

from loramux_adapters.errors import RequestInvalid
from loramux_adapters.model import Resource, ResourceKind, ResourceState
from loramux_adapters.ports import Clock
from loramux_serving.sagemaker.arns import Place
from loramux_serving.sagemaker.endpoints import Endpoints, deployed
from loramux_serving.sagemaker.fleet_desk import FleetDesk
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.models import Models, environment_of, with_model
from loramux_serving.sagemaker.records import BaseRecord, body_of, record_of
from loramux_serving.sagemaker.shapes import components as shapes
from loramux_serving.sagemaker.tags import tags_of

_KIND = ResourceKind.COMPONENT


class BaseComponent:
    """There is one at most."""

    def __init__(
        self, inventory: Inventory, endpoints: Endpoints, models: Models, fleet: FleetDesk, clock: Clock
    ) -> None:
        self._inventory = inventory
        self._endpoints = endpoints
        self._models = models
        self._fleet = fleet
        self._clock = clock

    def get(self) -> tuple[Resource, BaseRecord] | None:
        for resource in self._inventory.of(_KIND):
            if not resource.of_adapter:
                return resource, record_of(resource, BaseRecord)
        return None

    async def create(
        self,
        place: Place,
        asked: shapes.CreateInferenceComponentInput,
        specification: shapes.InferenceComponentSpecification,
    ) -> None:
        """Starts what is missing of the fleet. Raises `RequestInvalid` where the model is another one than runs here,
        and `LimitExceeded` beyond what can run."""
        variant = self._variant(place, asked.endpoint_name, asked.variant_name)
        self._fleet.check_free(place)
        image, environment = self._container(place, specification)
        copies = 1 if asked.runtime_config is None else asked.runtime_config.copy_count
        self._fleet.check(environment, copies)
        record = BaseRecord(
            endpoint_name=asked.endpoint_name,
            variant_name=variant,
            specification=specification,
            fleet=self._fleet.claim(copies, _patience_s(specification)),
            image=image,
        )
        now = self._clock.now()
        name, tags = asked.inference_component_name, tags_of(asked.tags)
        resource = Resource(_KIND, name, body_of(record), now, now, state=ResourceState.CREATING, tags=tags)
        await self._inventory.create(resource)
        await self._fleet.start(record.fleet)

    async def update(
        self,
        place: Place,
        resource: Resource,
        *,
        specification: shapes.InferenceComponentSpecification | None = None,
        copies: int | None = None,
        deployment: shapes.InferenceComponentDeploymentConfig | None = None,
    ) -> None:
        """Raises what `create` raises, and `RequestInvalid` while it is being deleted."""
        before = record_of(resource, BaseRecord)
        if resource.state is ResourceState.DELETING:
            raise RequestInvalid(f'Inference component "{place.arn(_KIND, resource.name)}" is being deleted.')
        wanted = before.fleet.copies if copies is None else copies
        asked, image = before.specification, before.image
        if specification is not None:
            asked = _merged(asked, specification)
            image, environment = self._container(place, asked)
            self._fleet.check(environment, wanted)
        self._fleet.check_copies(wanted)
        record = BaseRecord(
            endpoint_name=before.endpoint_name,
            variant_name=before.variant_name,
            specification=asked,
            fleet=self._fleet.claim(wanted, _patience_s(asked), before.fleet),
            image=image,
            last_deployment_config=deployment or before.last_deployment_config,
        )
        state = ResourceState.CREATING if resource.state is ResourceState.CREATING else ResourceState.UPDATING
        now = self._clock.now()
        await self._inventory.save(replace(resource, body=body_of(record), state=state, updated_at=now))
        await self._fleet.start(record.fleet)

    async def begin_delete(self, resource: Resource) -> None:
        """`Tending` does the rest."""
        now = self._clock.now()
        await self._inventory.save(replace(resource, state=ResourceState.DELETING, updated_at=now))

    def describe(self, place: Place, resource: Resource) -> shapes.DescribeInferenceComponentOutput:
        record = record_of(resource, BaseRecord)
        status, reason = self._fleet.status(resource, record.fleet)
        return shapes.DescribeInferenceComponentOutput(
            inference_component_name=resource.name,
            inference_component_arn=place.arn(_KIND, resource.name),
            endpoint_name=record.endpoint_name,
            endpoint_arn=place.arn(ResourceKind.ENDPOINT, record.endpoint_name),
            creation_time=resource.created_at,
            last_modified_time=resource.updated_at,
            variant_name=record.variant_name,
            failure_reason=reason,
            specification=_summary(record, resource),
            runtime_config=self.copies(record),
            inference_component_status=status,
            last_deployment_config=record.last_deployment_config,
        )

    def copies(self, record: BaseRecord, ready: int | None = None) -> shapes.InferenceComponentRuntimeConfigSummary:
        """`ready` is how many of them there are, if not as many as replicas."""
        return shapes.InferenceComponentRuntimeConfigSummary(
            desired_copy_count=record.fleet.copies,
            current_copy_count=self._fleet.ready if ready is None else ready,
        )

    def _variant(self, place: Place, endpoint_name: str, variant_name: str | None) -> str:
        """Raises `ResourceNotFound`, `RequestInvalid`."""
        endpoint, record = self._endpoints.get(place, endpoint_name)
        arn = place.arn(ResourceKind.ENDPOINT, endpoint_name)
        if endpoint.state is ResourceState.DELETING:
            raise RequestInvalid(f'Endpoint "{arn}" is being deleted.')
        if not record.hosts_components:
            raise RequestInvalid(
                f'Endpoint "{arn}" has a model of its own: inference components need an endpoint whose configuration '
                "names none."
            )
        names = [variant.variant_name for variant in record.production_variants]
        if variant_name is not None and variant_name not in names:
            raise RequestInvalid(f'Could not find variant "{variant_name}" of endpoint "{arn}".')
        return variant_name or names[0]

    def _container(
        self, place: Place, specification: shapes.InferenceComponentSpecification
    ) -> tuple[str | None, dict[str, str]]:
        """Its image and environment."""
        container = specification.container
        if (specification.model_name is None) is (container is None):
            raise RequestInvalid("The Specification must have one of ModelName and Container.")
        if container is not None:
            return container.image, with_model(container.environment or {}, container.artifact_url)
        assert specification.model_name is not None
        _, model = self._models.get(place, specification.model_name)
        return model.container.image, environment_of(model.container)


def _merged(
    before: shapes.InferenceComponentSpecification, asked: shapes.InferenceComponentSpecification
) -> shapes.InferenceComponentSpecification:
    """What an update does not name stays; a model takes the container's place, and a container the model's."""
    given = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not None}
    if given.keys() & {"model_name", "container"}:
        before = msgspec.structs.replace(before, model_name=None, container=None)
    return msgspec.structs.replace(before, **given)


def _patience_s(specification: shapes.InferenceComponentSpecification) -> float | None:
    startup = specification.startup_parameters
    return None if startup is None else startup.container_startup_health_check_timeout_in_seconds


def _summary(record: BaseRecord, resource: Resource) -> shapes.InferenceComponentSpecificationSummary:
    asked, container = record.specification, record.specification.container
    return shapes.InferenceComponentSpecificationSummary(
        instance_type=asked.instance_type,
        model_name=asked.model_name,
        container=None
        if container is None
        else shapes.InferenceComponentContainerSpecificationSummary(
            deployed_image=None if container.image is None else deployed(container.image, resource.created_at),
            artifact_url=container.artifact_url,
            environment=container.environment,
            container_metrics_config=container.container_metrics_config,
        ),
        startup_parameters=asked.startup_parameters,
        compute_resource_requirements=asked.compute_resource_requirements,
        data_cache_config=None
        if asked.data_cache_config is None
        else shapes.InferenceComponentDataCacheConfigSummary(enable_caching=asked.data_cache_config.enable_caching),
        scheduling_config=asked.scheduling_config,
    )
