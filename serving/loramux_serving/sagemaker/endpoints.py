"""Endpoints: names behind which inference components are, or one model. The gateway is the machine of all of them."""

from dataclasses import replace

from loramux_adapters.errors import RequestInvalid
from loramux_adapters.model import Resource, ResourceKind, ResourceState
from loramux_adapters.ports import Clock
from loramux_serving.sagemaker.arns import Place
from loramux_serving.sagemaker.endpoint_configs import EndpointConfigs
from loramux_serving.sagemaker.fleet_desk import FleetDesk, Status
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.listing import Row, page
from loramux_serving.sagemaker.models import Models, environment_of
from loramux_serving.sagemaker.records import BaseRecord, EndpointRecord, Fleet, body_of, record_of
from loramux_serving.sagemaker.replies import taken
from loramux_serving.sagemaker.shapes import endpoints as shapes
from loramux_serving.sagemaker.shapes.basics import DeployedImage
from loramux_serving.sagemaker.shapes.endpoint_configs import ProductionVariant
from loramux_serving.sagemaker.tags import tags_of

_KIND = ResourceKind.ENDPOINT


class Endpoints:
    def __init__(
        self, inventory: Inventory, configs: EndpointConfigs, models: Models, fleet: FleetDesk, clock: Clock
    ) -> None:
        self._inventory = inventory
        self._configs = configs
        self._models = models
        self._fleet = fleet
        self._clock = clock

    async def create(self, place: Place, asked: shapes.CreateEndpointInput) -> shapes.CreateEndpointOutput:
        name = asked.endpoint_name
        if self._inventory.get(_KIND, name) is not None:
            raise taken(place, _KIND, name)
        tags = tags_of(asked.tags)
        record = self._record(place, asked.endpoint_config_name, None)
        now = self._clock.now()
        resource = Resource(_KIND, name, body_of(record), now, now, tags=tags)
        if record.fleet is not None:
            resource = replace(resource, state=ResourceState.CREATING)
        await self._inventory.create(resource)
        if record.fleet is not None:
            await self._fleet.start(record.fleet)
        return shapes.CreateEndpointOutput(endpoint_arn=place.arn(_KIND, name))

    async def update(self, place: Place, asked: shapes.UpdateEndpointInput) -> shapes.UpdateEndpointOutput:
        """To another configuration. Raises `RequestInvalid` where components would lose their variant."""
        resource, before = self.get(place, asked.endpoint_name)
        if resource.state is not ResourceState.SETTLED:
            raise RequestInvalid(f'Cannot update in-progress endpoint "{place.arn(_KIND, resource.name)}".')
        record = self._record(place, asked.endpoint_config_name, before.fleet)
        if record.hosts_components is not before.hosts_components:
            raise RequestInvalid(
                "An endpoint of inference components stays one, and so does an endpoint with a model: delete it, and "
                "create another."
            )
        lost = self._variants_in_use(resource.name) - {variant.variant_name for variant in record.production_variants}
        if lost:
            raise RequestInvalid(f"Inference components are on the variants {', '.join(sorted(lost))}: keep them.")
        state = ResourceState.SETTLED if record.fleet is None else ResourceState.UPDATING
        await self._inventory.save(replace(resource, body=body_of(record), state=state, updated_at=self._clock.now()))
        if record.fleet is not None:
            await self._fleet.start(record.fleet)
        return shapes.UpdateEndpointOutput(endpoint_arn=place.arn(_KIND, resource.name))

    async def describe(self, place: Place, asked: shapes.DescribeEndpointInput) -> shapes.DescribeEndpointOutput:
        resource, record = self.get(place, asked.endpoint_name)
        status, reason = self.status(resource, record.fleet)
        return shapes.DescribeEndpointOutput(
            endpoint_name=resource.name,
            endpoint_arn=place.arn(_KIND, resource.name),
            endpoint_status=status,
            creation_time=resource.created_at,
            last_modified_time=resource.updated_at,
            endpoint_config_name=record.endpoint_config_name,
            production_variants=[self._variant(resource, record, variant) for variant in record.production_variants],
            failure_reason=reason,
        )

    async def list_some(self, place: Place, asked: shapes.ListEndpointsInput) -> shapes.ListEndpointsOutput:
        statuses: dict[str, Status] = {}
        rows = []
        for each in self._inventory.of(_KIND):
            statuses[each.name], _ = self.status(each, record_of(each, EndpointRecord).fleet)
            rows.append(Row(each.name, each.created_at, each.updated_at, statuses[each.name]))
        found, token = page(rows, asked)
        summaries = [
            shapes.EndpointSummary(
                endpoint_name=row.name,
                endpoint_arn=place.arn(_KIND, row.name),
                creation_time=row.created_at,
                last_modified_time=row.modified_at,
                endpoint_status=statuses[row.name],
            )
            for row in found
        ]
        return shapes.ListEndpointsOutput(endpoints=summaries, next_token=token)

    async def delete(self, place: Place, asked: shapes.DeleteEndpointInput) -> None:
        """Raises `RequestInvalid` while it has components."""
        resource, record = self.get(place, asked.endpoint_name)
        components = self._components(resource.name)
        if components:
            raise RequestInvalid(
                f'Cannot delete endpoint "{place.arn(_KIND, resource.name)}" while it has inference components: '
                f"{', '.join(components[:10])}. Delete them first."
            )
        if record.fleet is None:
            await self._inventory.delete(_KIND, resource.name)
            return
        now = self._clock.now()
        await self._inventory.save(replace(resource, state=ResourceState.DELETING, updated_at=now))

    def get(self, place: Place, name: str) -> tuple[Resource, EndpointRecord]:
        """Raises `ResourceNotFound`."""
        resource = self._inventory.require(place, _KIND, name)
        return resource, record_of(resource, EndpointRecord)

    def status(self, resource: Resource, fleet: Fleet | None) -> tuple[Status, str | None]:
        return ("InService", None) if fleet is None else self._fleet.status(resource, fleet)

    def _record(self, place: Place, config_name: str, before: Fleet | None) -> EndpointRecord:
        _, config = self._configs.get(place, config_name)
        record = EndpointRecord(endpoint_config_name=config_name, production_variants=config.production_variants)
        variant = config.production_variants[0]
        if variant.model_name is None:
            return record
        if before is None:
            self._fleet.check_free(place)
        _, model = self._models.get(place, variant.model_name)
        copies = variant.initial_instance_count or 1
        self._fleet.check(environment_of(model.container), copies)
        patience_s = variant.container_startup_health_check_timeout_in_seconds
        return EndpointRecord(
            endpoint_config_name=config_name,
            production_variants=config.production_variants,
            image=model.container.image,
            fleet=self._fleet.claim(copies, patience_s, before),
        )

    def _variant(
        self, resource: Resource, record: EndpointRecord, variant: ProductionVariant
    ) -> shapes.ProductionVariantSummary:
        weight = 1.0 if variant.initial_variant_weight is None else variant.initial_variant_weight
        fleet = record.fleet
        return shapes.ProductionVariantSummary(
            variant_name=variant.variant_name,
            deployed_images=None if record.image is None else [deployed(record.image, resource.created_at)],
            current_weight=weight,
            desired_weight=weight,
            current_instance_count=self._fleet.ready if fleet else variant.initial_instance_count,
            desired_instance_count=fleet.copies if fleet else variant.initial_instance_count,
            managed_instance_scaling=variant.managed_instance_scaling,
            routing_config=variant.routing_config,
        )

    def _components(self, endpoint: str) -> list[str]:
        """Those that were created here. The base's are there as long as it is."""
        found = self._inventory.of(ResourceKind.COMPONENT)
        return [each.name for each in found if each.body.get("EndpointName") == endpoint]

    def _variants_in_use(self, endpoint: str) -> set[str]:
        bases = [each for each in self._inventory.of(ResourceKind.COMPONENT) if not each.of_adapter]
        records = [record_of(each, BaseRecord) for each in bases]
        return {record.variant_name for record in records if record.endpoint_name == endpoint}


def deployed(image: str, at: float) -> DeployedImage:
    """The image is named, and never pulled: the gateway runs what it runs."""
    return DeployedImage(specified_image=image, resolved_image=image, resolution_time=at)
