"""Inference components."""

from typing import Annotated, Literal

from msgspec import Meta

from loramux_serving.sagemaker.shapes.basics import (
    AutoRollbackConfig,
    ChangingListInput,
    ContainerImage,
    ContainerMetricsConfig,
    CopyCount,
    DeployedImage,
    EndpointName,
    EnvironmentMap,
    InferenceComponentName,
    Input,
    ModelName,
    Output,
    Shape,
    StartupTimeout,
    TagList,
    Url,
    VariantName,
)
from loramux_serving.sagemaker.shapes.endpoint_configs import Foreign, InstanceType

ComponentStatus = Literal["InService", "Creating", "Updating", "Failed", "Deleting"]
FAILURE_REASON_LENGTH = 1024


class InferenceComponentContainerSpecification(Shape, frozen=True):
    image: ContainerImage | None = None
    artifact_url: Url | None = None
    environment: EnvironmentMap | None = None
    container_metrics_config: ContainerMetricsConfig | None = None


class InferenceComponentStartupParameters(Shape, frozen=True):
    model_data_download_timeout_in_seconds: StartupTimeout | None = None
    container_startup_health_check_timeout_in_seconds: StartupTimeout | None = None


class InferenceComponentComputeResourceRequirements(Shape, frozen=True):
    min_memory_required_in_mb: Annotated[int, Meta(ge=128)]
    max_memory_required_in_mb: Annotated[int, Meta(ge=128)] | None = None
    number_of_cpu_cores_required: Annotated[float, Meta(ge=0.25)] | None = None
    number_of_accelerator_devices_required: Annotated[float, Meta(ge=1)] | None = None


class InferenceComponentDataCacheConfig(Shape, frozen=True):
    enable_caching: bool


class InferenceComponentAvailabilityZoneBalance(Shape, frozen=True):
    enforcement_mode: Literal["PERMISSIVE"]
    max_imbalance: Annotated[int, Meta(ge=0, le=100)] | None = None


class InferenceComponentSchedulingConfig(Shape, frozen=True):
    placement_strategy: Literal["SPREAD", "BINPACK"]
    availability_zone_balance: InferenceComponentAvailabilityZoneBalance | None = None


class InferenceComponentSpecification(Shape, frozen=True):
    instance_type: InstanceType | None = None
    model_name: ModelName | None = None
    container: InferenceComponentContainerSpecification | None = None
    startup_parameters: InferenceComponentStartupParameters | None = None
    compute_resource_requirements: InferenceComponentComputeResourceRequirements | None = None
    base_inference_component_name: InferenceComponentName | None = None
    data_cache_config: InferenceComponentDataCacheConfig | None = None
    scheduling_config: InferenceComponentSchedulingConfig | None = None


class InferenceComponentRuntimeConfig(Shape, frozen=True):
    copy_count: CopyCount


class CreateInferenceComponentInput(Input, frozen=True):
    inference_component_name: InferenceComponentName
    endpoint_name: EndpointName
    variant_name: VariantName | None = None
    specification: InferenceComponentSpecification | None = None
    specifications: Annotated[list[Foreign], Meta(min_length=1, max_length=5)] | None = None
    runtime_config: InferenceComponentRuntimeConfig | None = None
    tags: TagList | None = None


class CreateInferenceComponentOutput(Output, frozen=True):
    inference_component_arn: str


class InferenceComponentCapacitySize(Shape, frozen=True):
    type: Literal["COPY_COUNT", "CAPACITY_PERCENT"]
    value: Annotated[int, Meta(ge=1)]


class InferenceComponentRollingUpdatePolicy(Shape, frozen=True):
    maximum_batch_size: InferenceComponentCapacitySize
    wait_interval_in_seconds: Annotated[int, Meta(ge=0, le=3600)]
    maximum_execution_timeout_in_seconds: Annotated[int, Meta(ge=600, le=28800)] | None = None
    rollback_maximum_batch_size: InferenceComponentCapacitySize | None = None


class InferenceComponentDeploymentConfig(Shape, frozen=True):
    """How an update is rolled out, which is always in the same way here: at once, and whole."""

    rolling_update_policy: InferenceComponentRollingUpdatePolicy
    auto_rollback_configuration: AutoRollbackConfig | None = None


class UpdateInferenceComponentInput(Input, frozen=True):
    inference_component_name: InferenceComponentName
    specification: InferenceComponentSpecification | None = None
    specifications: Annotated[list[Foreign], Meta(min_length=1, max_length=5)] | None = None
    runtime_config: InferenceComponentRuntimeConfig | None = None
    deployment_config: InferenceComponentDeploymentConfig | None = None


class UpdateInferenceComponentOutput(Output, frozen=True):
    inference_component_arn: str


class UpdateInferenceComponentRuntimeConfigInput(Input, frozen=True):
    inference_component_name: InferenceComponentName
    desired_runtime_config: InferenceComponentRuntimeConfig


class UpdateInferenceComponentRuntimeConfigOutput(Output, frozen=True):
    inference_component_arn: str


class DescribeInferenceComponentInput(Input, frozen=True):
    inference_component_name: str
    """Of any form: adapters that came by the admin interface may have other names."""


class DeleteInferenceComponentInput(Input, frozen=True):
    inference_component_name: str


class InferenceComponentContainerSpecificationSummary(Shape, frozen=True):
    deployed_image: DeployedImage | None = None
    artifact_url: str | None = None
    environment: EnvironmentMap | None = None
    container_metrics_config: ContainerMetricsConfig | None = None


class InferenceComponentDataCacheConfigSummary(Shape, frozen=True):
    enable_caching: bool


class InferenceComponentSpecificationSummary(Shape, frozen=True):
    instance_type: InstanceType | None = None
    model_name: str | None = None
    container: InferenceComponentContainerSpecificationSummary | None = None
    startup_parameters: InferenceComponentStartupParameters | None = None
    compute_resource_requirements: InferenceComponentComputeResourceRequirements | None = None
    base_inference_component_name: str | None = None
    data_cache_config: InferenceComponentDataCacheConfigSummary | None = None
    scheduling_config: InferenceComponentSchedulingConfig | None = None


class InferenceComponentRuntimeConfigSummary(Shape, frozen=True):
    desired_copy_count: int | None = None
    current_copy_count: int | None = None


class DescribeInferenceComponentOutput(Output, frozen=True):
    inference_component_name: str
    inference_component_arn: str
    endpoint_name: str
    endpoint_arn: str
    creation_time: float
    last_modified_time: float
    variant_name: str | None = None
    failure_reason: str | None = None
    specification: InferenceComponentSpecificationSummary | None = None
    runtime_config: InferenceComponentRuntimeConfigSummary | None = None
    inference_component_status: ComponentStatus | None = None
    last_deployment_config: InferenceComponentDeploymentConfig | None = None


class ListInferenceComponentsInput(ChangingListInput, frozen=True):
    sort_by: Literal["Name", "CreationTime", "Status"] | None = None
    status_equals: ComponentStatus | None = None
    endpoint_name_equals: EndpointName | None = None
    variant_name_equals: VariantName | None = None


class InferenceComponentSummary(Shape, frozen=True):
    inference_component_name: str
    inference_component_arn: str
    endpoint_name: str
    endpoint_arn: str
    variant_name: str
    creation_time: float
    last_modified_time: float
    inference_component_status: ComponentStatus | None = None


class ListInferenceComponentsOutput(Output, frozen=True):
    inference_components: list[InferenceComponentSummary]
    next_token: str | None = None
