"""Models: a container's environment, kept until a base component or an endpoint asks for it."""

from collections.abc import Mapping

from loramux_adapters.errors import RequestInvalid
from loramux_adapters.model import Resource, ResourceKind
from loramux_adapters.ports import Clock
from loramux_serving.sagemaker.arns import Place
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.listing import Row, page
from loramux_serving.sagemaker.records import ModelRecord, body_of, record_of
from loramux_serving.sagemaker.replies import taken, unsupported
from loramux_serving.sagemaker.shapes import models as shapes
from loramux_serving.sagemaker.tags import tags_of

_KIND = ResourceKind.MODEL
_MODEL_IDS = ("HF_MODEL_ID", "OPTION_MODEL_ID")


class Models:
    def __init__(self, inventory: Inventory, clock: Clock) -> None:
        self._inventory = inventory
        self._clock = clock

    async def create(self, place: Place, asked: shapes.CreateModelInput) -> shapes.CreateModelOutput:
        if self._inventory.get(_KIND, asked.model_name) is not None:
            raise taken(place, _KIND, asked.model_name)
        given = [asked.primary_container] if asked.primary_container else (asked.containers or [])
        if not given or (asked.primary_container and asked.containers):
            raise RequestInvalid("You must provide one of PrimaryContainer and Containers.")
        if len(given) > 1:
            raise unsupported("A model of several containers")
        for container in given:
            _check(container)
        record = ModelRecord(
            primary_container=asked.primary_container,
            containers=asked.containers,
            inference_execution_config=asked.inference_execution_config,
            execution_role_arn=asked.execution_role_arn,
            vpc_config=asked.vpc_config,
            enable_network_isolation=asked.enable_network_isolation,
        )
        now = self._clock.now()
        tags = tags_of(asked.tags)
        await self._inventory.create(Resource(_KIND, asked.model_name, body_of(record), now, now, tags=tags))
        return shapes.CreateModelOutput(model_arn=place.arn(_KIND, asked.model_name))

    async def describe(self, place: Place, asked: shapes.DescribeModelInput) -> shapes.DescribeModelOutput:
        resource, record = self.get(place, asked.model_name)
        return shapes.DescribeModelOutput(
            model_name=resource.name,
            model_arn=place.arn(_KIND, resource.name),
            creation_time=resource.created_at,
            primary_container=record.primary_container,
            containers=record.containers,
            inference_execution_config=record.inference_execution_config,
            execution_role_arn=record.execution_role_arn,
            vpc_config=record.vpc_config,
            enable_network_isolation=record.enable_network_isolation or False,
        )

    async def list_some(self, place: Place, asked: shapes.ListModelsInput) -> shapes.ListModelsOutput:
        rows = (Row(each.name, each.created_at, each.updated_at) for each in self._inventory.of(_KIND))
        found, token = page(rows, asked)
        summaries = [shapes.ModelSummary(row.name, place.arn(_KIND, row.name), row.created_at) for row in found]
        return shapes.ListModelsOutput(models=summaries, next_token=token)

    async def delete(self, place: Place, asked: shapes.DeleteModelInput) -> None:
        """Also of one that is in use, as the service does: who uses it has what it needs of it."""
        self.get(place, asked.model_name)
        await self._inventory.delete(_KIND, asked.model_name)

    def get(self, place: Place, name: str) -> tuple[Resource, ModelRecord]:
        """Raises `ResourceNotFound`."""
        resource = self._inventory.require(place, _KIND, name)
        return resource, record_of(resource, ModelRecord)


def _check(container: shapes.ContainerDefinition) -> None:
    if container.model_package_name:
        raise unsupported("A model package", "Name an image and its environment.")
    if container.mode == "MultiModel":
        raise unsupported("A container of several models", "Adapters are inference components here.")
    if container.additional_model_data_sources:
        raise unsupported("AdditionalModelDataSources", "A draft model is a setting of the gateway.")
    if not container.image:
        raise RequestInvalid("The container has no Image.")


def environment_of(container: shapes.ContainerDefinition) -> dict[str, str]:
    """With where the model's files are, if the environment does not say it."""
    source = container.model_data_source.s3_data_source if container.model_data_source else None
    return with_model(container.environment or {}, source.s3_uri if source else container.model_data_url)


def with_model(environment: Mapping[str, str], url: str | None) -> dict[str, str]:
    if url is None or any(name in environment for name in _MODEL_IDS):
        return dict(environment)
    return {**environment, "HF_MODEL_ID": url}
