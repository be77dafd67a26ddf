"""Endpoints."""

from typing import Annotated, Literal

from msgspec import Meta

from loramux_serving.sagemaker.shapes.basics import (
    AutoRollbackConfig,
    ChangingListInput,
    DeployedImage,
    EndpointConfigName,
    EndpointName,
    Input,
    Output,
    Shape,
    TagList,
)
from loramux_serving.sagemaker.shapes.endpoint_configs import (
    Foreign,
    ProductionVariantManagedInstanceScaling,
    ProductionVariantRoutingConfig,
)

EndpointStatus = Literal[
    "OutOfService",
    "Creating",
    "Updating",
    "SystemUpdating",
    "RollingBack",
    "InService",
    "Deleting",
    "Failed",
    "UpdateRollbackFailed",
]


class DeploymentConfig(Shape, frozen=True):
    """How a change is rolled out, which is always in the same way here."""

    blue_green_update_policy: Foreign | None = None
    rolling_update_policy: Foreign | None = None
    auto_rollback_configuration: AutoRollbackConfig | None = None


class CreateEndpointInput(Input, frozen=True):
    endpoint_name: EndpointName
    endpoint_config_name: EndpointConfigName
    deployment_config: DeploymentConfig | None = None
    tags: TagList | None = None


class CreateEndpointOutput(Output, frozen=True):
    endpoint_arn: str


class UpdateEndpointInput(Input, frozen=True):
    endpoint_name: EndpointName
    endpoint_config_name: EndpointConfigName
    retain_all_variant_properties: bool | None = None
    exclude_retained_variant_properties: Annotated[list[Foreign], Meta(max_length=3)] | None = None
    deployment_config: DeploymentConfig | None = None
    retain_deployment_config: bool | None = None


class UpdateEndpointOutput(Output, frozen=True):
    endpoint_arn: str


class DescribeEndpointInput(Input, frozen=True):
    endpoint_name: EndpointName


class ProductionVariantSummary(Shape, frozen=True):
    variant_name: str
    deployed_images: list[DeployedImage] | None = None
    current_weight: float | None = None
    desired_weight: float | None = None
    current_instance_count: int | None = None
    desired_instance_count: int | None = None
    managed_instance_scaling: ProductionVariantManagedInstanceScaling | None = None
    routing_config: ProductionVariantRoutingConfig | None = None


class DescribeEndpointOutput(Output, frozen=True):
    endpoint_name: str
    endpoint_arn: str
    endpoint_status: EndpointStatus
    creation_time: float
    last_modified_time: float
    endpoint_config_name: str | None = None
    production_variants: list[ProductionVariantSummary] | None = None
    failure_reason: str | None = None


class ListEndpointsInput(ChangingListInput, frozen=True):
    sort_by: Literal["Name", "CreationTime", "Status"] | None = None
    status_equals: EndpointStatus | None = None


class EndpointSummary(Shape, frozen=True):
    endpoint_name: str
    endpoint_arn: str
    creation_time: float
    last_modified_time: float
    endpoint_status: EndpointStatus


class ListEndpointsOutput(Output, frozen=True):
    endpoints: list[EndpointSummary]
    next_token: str | None = None


class DeleteEndpointInput(Input, frozen=True):
    endpoint_name: EndpointName
