"""Endpoint configurations."""

from loramux_adapters.errors import RequestInvalid
from loramux_adapters.model import Resource, ResourceKind
from loramux_adapters.ports import Clock
from loramux_serving.sagemaker.arns import Place
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.listing import Row, page
from loramux_serving.sagemaker.models import Models
from loramux_serving.sagemaker.records import EndpointConfigRecord, body_of, record_of
from loramux_serving.sagemaker.replies import taken, unsupported
from loramux_serving.sagemaker.shapes import endpoint_configs as shapes
from loramux_serving.sagemaker.tags import tags_of

_KIND = ResourceKind.ENDPOINT_CONFIG


class EndpointConfigs:
    def __init__(self, inventory: Inventory, models: Models, clock: Clock) -> None:
        self._inventory = inventory
        self._models = models
        self._clock = clock

    async def create(self, place: Place, asked: shapes.CreateEndpointConfigInput) -> shapes.CreateEndpointConfigOutput:
        name = asked.endpoint_config_name
        if self._inventory.get(_KIND, name) is not None:
            raise taken(place, _KIND, name)
        _refuse_unsupported(asked)
        self._check_variants(place, asked.production_variants)
        record = EndpointConfigRecord(
            production_variants=asked.production_variants,
            kms_key_id=asked.kms_key_id,
            execution_role_arn=asked.execution_role_arn,
            vpc_config=asked.vpc_config,
            enable_network_isolation=asked.enable_network_isolation,
            metrics_config=asked.metrics_config,
        )
        now = self._clock.now()
        tags = tags_of(asked.tags)
        await self._inventory.create(Resource(_KIND, name, body_of(record), now, now, tags=tags))
        return shapes.CreateEndpointConfigOutput(endpoint_config_arn=place.arn(_KIND, name))

    async def describe(
        self, place: Place, asked: shapes.DescribeEndpointConfigInput
    ) -> shapes.DescribeEndpointConfigOutput:
        resource, record = self.get(place, asked.endpoint_config_name)
        return shapes.DescribeEndpointConfigOutput(
            endpoint_config_name=resource.name,
            endpoint_config_arn=place.arn(_KIND, resource.name),
            production_variants=record.production_variants,
            creation_time=resource.created_at,
            kms_key_id=record.kms_key_id,
            execution_role_arn=record.execution_role_arn,
            vpc_config=record.vpc_config,
            enable_network_isolation=record.enable_network_isolation or False,
            metrics_config=record.metrics_config,
        )

    async def list_some(self, place: Place, asked: shapes.ListEndpointConfigsInput) -> shapes.ListEndpointConfigsOutput:
        rows = (Row(each.name, each.created_at, each.updated_at) for each in self._inventory.of(_KIND))
        found, token = page(rows, asked)
        summaries = [
            shapes.EndpointConfigSummary(row.name, place.arn(_KIND, row.name), row.created_at) for row in found
        ]
        return shapes.ListEndpointConfigsOutput(endpoint_configs=summaries, next_token=token)

    async def delete(self, place: Place, asked: shapes.DeleteEndpointConfigInput) -> None:
        """Also of an endpoint that is there, as the service does, and as its SDK does before it deletes that."""
        self.get(place, asked.endpoint_config_name)
        await self._inventory.delete(_KIND, asked.endpoint_config_name)

    def get(self, place: Place, name: str) -> tuple[Resource, EndpointConfigRecord]:
        """Raises `ResourceNotFound`."""
        resource = self._inventory.require(place, _KIND, name)
        return resource, record_of(resource, EndpointConfigRecord)

    def _check_variants(self, place: Place, variants: list[shapes.ProductionVariant]) -> None:
        names = [variant.variant_name for variant in variants]
        if len(set(names)) < len(names):
            raise RequestInvalid("Two ProductionVariants have the same VariantName.")
        with_model = [variant for variant in variants if variant.model_name is not None]
        if with_model and len(variants) > 1:
            raise unsupported(
                "An endpoint with a model and several variants",
                "Versions of an adapter are split by a canary: see the admin interface.",
            )
        for variant in variants:
            if variant.serverless_config is not None:
                raise unsupported("ServerlessConfig")
            if variant.instance_pools is not None:
                raise unsupported("InstancePools")
            if variant.model_name is not None:
                self._models.get(place, variant.model_name)


def _refuse_unsupported(asked: shapes.CreateEndpointConfigInput) -> None:
    if asked.data_capture_config is not None and asked.data_capture_config.get("EnableCapture") is not False:
        raise unsupported("DataCaptureConfig")
    for name, value in (
        ("AsyncInferenceConfig", asked.async_inference_config),
        ("ExplainerConfig", asked.explainer_config),
        ("ShadowProductionVariants", asked.shadow_production_variants),
        ("CrossRegionTrafficConfig", asked.cross_region_traffic_config),
    ):
        if value:
            raise unsupported(name)
