"""What is kept of each kind of resource: the `body` of a `Resource`, in a shape of its own."""

from typing import TypeVar

import msgspec

from loramux_adapters.model import Resource
from loramux_serving.sagemaker.shapes.basics import Shape, VpcConfig
from loramux_serving.sagemaker.shapes.components import (
    InferenceComponentDeploymentConfig,
    InferenceComponentSpecification,
)
from loramux_serving.sagemaker.shapes.endpoint_configs import MetricsConfig, ProductionVariant
from loramux_serving.sagemaker.shapes.models import ContainerDefinition, InferenceExecutionConfig


class ModelRecord(Shape, frozen=True):
    primary_container: ContainerDefinition | None = None
    containers: list[ContainerDefinition] | None = None
    inference_execution_config: InferenceExecutionConfig | None = None
    execution_role_arn: str | None = None
    vpc_config: VpcConfig | None = None
    enable_network_isolation: bool | None = None

    @property
    def container(self) -> ContainerDefinition:
        """The one that it has."""
        if self.primary_container is not None:
            return self.primary_container
        assert self.containers
        return self.containers[0]


class EndpointConfigRecord(Shape, frozen=True):
    production_variants: list[ProductionVariant]
    kms_key_id: str | None = None
    execution_role_arn: str | None = None
    vpc_config: VpcConfig | None = None
    enable_network_isolation: bool | None = None
    metrics_config: MetricsConfig | None = None


class Fleet(Shape, frozen=True):
    """What a resource has to do with the replicas. `copies` are those that it wants; `copies_before` were wanted when
    it came, and are again when it has gone. While it is not settled, it counts as failed from `patience_until` (Unix
    seconds) on, `patience_s` after it was asked for, or after the gateway's start."""

    copies: int
    copies_before: int
    patience_s: float
    patience_until: float


class EndpointRecord(Shape, frozen=True):
    """`fleet` is there where the endpoint itself has a model, instead of inference components. Variants are kept here
    too: the configuration may be deleted before the endpoint."""

    endpoint_config_name: str
    production_variants: list[ProductionVariant]
    image: str | None = None
    fleet: Fleet | None = None

    @property
    def hosts_components(self) -> bool:
        return self.fleet is None


class BaseRecord(Shape, frozen=True):
    """A base inference component. `image` is that of its model or container."""

    endpoint_name: str
    variant_name: str
    specification: InferenceComponentSpecification
    fleet: Fleet
    image: str | None = None
    last_deployment_config: InferenceComponentDeploymentConfig | None = None


class AdapterRecord(Shape, frozen=True):
    """What an adapter component has beyond the adapter. `made_here`: the adapter came as a component, and goes with its
    base; others are components for as long as there is a base."""

    endpoint_name: str
    variant_name: str
    specification: InferenceComponentSpecification | None = None
    last_deployment_config: InferenceComponentDeploymentConfig | None = None
    made_here: bool = False


_Record = TypeVar("_Record", bound=Shape)


def body_of(record: Shape) -> dict[str, object]:
    found: dict[str, object] = msgspec.to_builtins(record)
    return found


def record_of(resource: Resource, kind: type[_Record]) -> _Record:
    return msgspec.convert(resource.body, kind)
