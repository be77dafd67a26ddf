"""Endpoint configurations."""

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from loramux_serving.sagemaker.shapes.basics import (
    EndpointConfigName,
    Input,
    ListInput,
    ModelName,
    Output,
    RoleArn,
    Shape,
    StartupTimeout,
    TagList,
    VariantName,
    VpcConfig,
)

Foreign = dict[str, Any]
"""A structure of the model that is refused, and so not read."""

InstanceType = str
"""Whatever it is: machines are the operator's. The model's list grows every month."""


class ProductionVariantManagedInstanceScaling(Shape, frozen=True):
    status: Literal["ENABLED", "DISABLED"] | None = None
    min_instance_count: Annotated[int, Meta(ge=0)] | None = None
    max_instance_count: Annotated[int, Meta(ge=1)] | None = None


class ProductionVariantRoutingConfig(Shape, frozen=True):
    routing_strategy: Literal["LEAST_OUTSTANDING_REQUESTS", "RANDOM", "PREFIX_AWARE", "KV_AWARE"]


class ProductionVariant(Shape, frozen=True):
    variant_name: VariantName
    model_name: ModelName | None = None
    initial_instance_count: Annotated[int, Meta(ge=1)] | None = None
    instance_type: InstanceType | None = None
    instance_pools: list[Foreign] | None = None
    variant_instance_provision_timeout_in_seconds: Annotated[int, Meta(ge=300, le=3600)] | None = None
    initial_variant_weight: Annotated[float, Meta(ge=0)] | None = None
    serverless_config: Foreign | None = None
    volume_size_in_gb: Annotated[int, Meta(ge=1, le=512)] | None = field(default=None, name="VolumeSizeInGB")
    model_data_download_timeout_in_seconds: StartupTimeout | None = None
    container_startup_health_check_timeout_in_seconds: StartupTimeout | None = None
    enable_ssm_access: bool | None = field(default=None, name="EnableSSMAccess")
    managed_instance_scaling: ProductionVariantManagedInstanceScaling | None = None
    routing_config: ProductionVariantRoutingConfig | None = None
    inference_ami_version: str | None = None


VariantList = Annotated[list[ProductionVariant], Meta(min_length=1, max_length=10)]
KmsKeyId = Annotated[str, Meta(max_length=2048, pattern=r"^[a-zA-Z0-9:/_-]*\Z")]


class MetricsConfig(Shape, frozen=True):
    enable_enhanced_metrics: bool | None = None
    enable_detailed_observability: bool | None = None
    metric_publish_frequency_in_seconds: int | None = None


class CreateEndpointConfigInput(Input, frozen=True):
    endpoint_config_name: EndpointConfigName
    production_variants: VariantList
    data_capture_config: Foreign | None = None
    tags: TagList | None = None
    kms_key_id: KmsKeyId | None = None
    async_inference_config: Foreign | None = None
    explainer_config: Foreign | None = None
    shadow_production_variants: list[Foreign] | None = None
    execution_role_arn: RoleArn | None = None
    vpc_config: VpcConfig | None = None
    enable_network_isolation: bool | None = None
    metrics_config: MetricsConfig | None = None
    cross_region_traffic_config: Foreign | None = None


class CreateEndpointConfigOutput(Output, frozen=True):
    endpoint_config_arn: str


class DescribeEndpointConfigInput(Input, frozen=True):
    endpoint_config_name: EndpointConfigName


class DescribeEndpointConfigOutput(Output, frozen=True):
    endpoint_config_name: str
    endpoint_config_arn: str
    production_variants: list[ProductionVariant]
    creation_time: float
    kms_key_id: str | None = None
    execution_role_arn: str | None = None
    vpc_config: VpcConfig | None = None
    enable_network_isolation: bool | None = None
    metrics_config: MetricsConfig | None = None


class ListEndpointConfigsInput(ListInput, frozen=True):
    sort_by: Literal["Name", "CreationTime"] | None = None


class EndpointConfigSummary(Shape, frozen=True):
    endpoint_config_name: str
    endpoint_config_arn: str
    creation_time: float


class ListEndpointConfigsOutput(Output, frozen=True):
    endpoint_configs: list[EndpointConfigSummary]
    next_token: str | None = None


class DeleteEndpointConfigInput(Input, frozen=True):
    endpoint_config_name: EndpointConfigName
