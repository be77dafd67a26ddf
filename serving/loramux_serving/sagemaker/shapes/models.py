"""Models."""

from typing import Annotated, Literal

from msgspec import Meta

from loramux_serving.sagemaker.shapes.basics import (
    ContainerImage,
    ContainerMetricsConfig,
    EnvironmentMap,
    Input,
    ListInput,
    ModelName,
    Output,
    RoleArn,
    Shape,
    TagList,
    Url,
    VpcConfig,
)

_HOST = r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}\Z"
_PACKAGE = (
    r"^(arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:[a-z\-]*\/)?"
    r"([a-zA-Z0-9]([a-zA-Z0-9-]){0,62})(?<!-)(\/[0-9]{1,9})?\Z"
)


class RepositoryAuthConfig(Shape, frozen=True):
    repository_credentials_provider_arn: Annotated[str, Meta(min_length=1, max_length=2048, pattern=r"^.*\Z")]


class ImageConfig(Shape, frozen=True):
    repository_access_mode: Literal["Platform", "Vpc"]
    repository_auth_config: RepositoryAuthConfig | None = None


class ModelAccessConfig(Shape, frozen=True):
    accept_eula: bool


class S3ModelDataSource(Shape, frozen=True):
    s3_uri: Url
    s3_data_type: Literal["S3Prefix", "S3Object"]
    compression_type: Literal["None", "Gzip"]
    model_access_config: ModelAccessConfig | None = None


class ModelDataSource(Shape, frozen=True):
    s3_data_source: S3ModelDataSource | None = None


class AdditionalModelDataSource(Shape, frozen=True):
    channel_name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9\.\-_]+\Z")]
    s3_data_source: S3ModelDataSource


class MultiModelConfig(Shape, frozen=True):
    model_cache_setting: Literal["Enabled", "Disabled"] | None = None


class ContainerDefinition(Shape, frozen=True):
    container_hostname: Annotated[str, Meta(max_length=63, pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}\Z")] | None = (
        None
    )
    image: ContainerImage | None = None
    image_config: ImageConfig | None = None
    mode: Literal["SingleModel", "MultiModel"] | None = None
    model_data_url: Url | None = None
    model_data_source: ModelDataSource | None = None
    additional_model_data_sources: Annotated[list[AdditionalModelDataSource], Meta(max_length=5)] | None = None
    environment: EnvironmentMap | None = None
    model_package_name: Annotated[str, Meta(min_length=1, max_length=176, pattern=_PACKAGE)] | None = None
    inference_specification_name: Annotated[str, Meta(min_length=1, max_length=63, pattern=_HOST)] | None = None
    multi_model_config: MultiModelConfig | None = None
    container_metrics_config: ContainerMetricsConfig | None = None


class InferenceExecutionConfig(Shape, frozen=True):
    mode: Literal["Serial", "Direct"]


class CreateModelInput(Input, frozen=True):
    model_name: ModelName
    primary_container: ContainerDefinition | None = None
    containers: Annotated[list[ContainerDefinition], Meta(max_length=15)] | None = None
    inference_execution_config: InferenceExecutionConfig | None = None
    execution_role_arn: RoleArn | None = None
    tags: TagList | None = None
    vpc_config: VpcConfig | None = None
    enable_network_isolation: bool | None = None


class CreateModelOutput(Output, frozen=True):
    model_arn: str


class DescribeModelInput(Input, frozen=True):
    model_name: ModelName


class DescribeModelOutput(Output, frozen=True):
    model_name: str
    model_arn: str
    creation_time: float
    primary_container: ContainerDefinition | None = None
    containers: list[ContainerDefinition] | None = None
    inference_execution_config: InferenceExecutionConfig | None = None
    execution_role_arn: str | None = None
    vpc_config: VpcConfig | None = None
    enable_network_isolation: bool | None = None


class ListModelsInput(ListInput, frozen=True):
    sort_by: Literal["Name", "CreationTime"] | None = None


class ModelSummary(Shape, frozen=True):
    model_name: str
    model_arn: str
    creation_time: float


class ListModelsOutput(Output, frozen=True):
    models: list[ModelSummary]
    next_token: str | None = None


class DeleteModelInput(Input, frozen=True):
    model_name: ModelName
