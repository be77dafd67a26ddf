"""Types that several operations share, with the service's constraints."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Shape(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """What is None, or empty by default, is not answered."""


class Input(Shape, frozen=True):
    """A request."""


class Output(Shape, frozen=True):
    """An answer."""


_NAME = r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}\Z"
_DASHED_NAME = r"^[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?\Z"
_TAG = r"^([\w .:/=+\-@\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*)\Z"
"""The model's `[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*`, in what Python's `re` can say."""

EndpointName = Annotated[str, Meta(max_length=63, pattern=_NAME)]
EndpointConfigName = Annotated[str, Meta(max_length=63, pattern=_NAME)]
VariantName = Annotated[str, Meta(max_length=63, pattern=_NAME)]
ModelName = Annotated[str, Meta(max_length=63, pattern=_DASHED_NAME)]
InferenceComponentName = Annotated[str, Meta(max_length=63, pattern=_DASHED_NAME)]
NameContains = Annotated[str, Meta(max_length=63, pattern=r"^[a-zA-Z0-9-]+\Z")]
PaginationToken = Annotated[str, Meta(max_length=8192, pattern=r"^.*\Z")]
MaxResults = Annotated[int, Meta(ge=1, le=100)]
ResourceArn = Annotated[str, Meta(max_length=256, pattern=r"^arn:aws[a-z-]*:sagemaker:[a-z0-9-]*:[0-9]{12}:.+\Z")]
RoleArn = Annotated[
    str, Meta(min_length=20, max_length=2048, pattern=r"^arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+\Z")
]
ContainerImage = Annotated[str, Meta(max_length=255, pattern=r"^[\S]+\Z")]
Url = Annotated[str, Meta(max_length=1024, pattern=r"^(https|s3)://([^/]+)/?(.*)\Z")]
EnvironmentKey = Annotated[str, Meta(max_length=1024, pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*\Z")]
EnvironmentValue = Annotated[str, Meta(max_length=1024, pattern=r"^[\S\s]*\Z")]
EnvironmentMap = Annotated[dict[EnvironmentKey, EnvironmentValue], Meta(max_length=100)]
CopyCount = Annotated[int, Meta(ge=0)]
StartupTimeout = Annotated[int, Meta(ge=60, le=3600)]

OrderKey = Literal["Ascending", "Descending"]


class ListInput(Input, frozen=True):
    """What every list can be asked. Each has its own words for `sort_by`."""

    sort_by: str | None = None
    sort_order: OrderKey | None = None
    next_token: PaginationToken | None = None
    max_results: MaxResults | None = None
    name_contains: NameContains | None = None
    creation_time_before: float | None = None
    creation_time_after: float | None = None


class ChangingListInput(ListInput, frozen=True):
    """Of what can be changed."""

    last_modified_time_before: float | None = None
    last_modified_time_after: float | None = None


TagKey = Annotated[str, Meta(min_length=1, max_length=128, pattern=_TAG)]


class Tag(Shape, frozen=True):
    key: TagKey
    value: Annotated[str, Meta(max_length=256, pattern=_TAG)]


TagList = Annotated[list[Tag], Meta(max_length=50)]


class VpcConfig(Shape, frozen=True):
    security_group_ids: Annotated[
        list[Annotated[str, Meta(max_length=32, pattern=r"^[-0-9a-zA-Z]+\Z")]], Meta(min_length=1, max_length=5)
    ]
    subnets: Annotated[
        list[Annotated[str, Meta(max_length=32, pattern=r"^[-0-9a-zA-Z]+\Z")]], Meta(min_length=1, max_length=16)
    ]


class MetricsEndpoint(Shape, frozen=True):
    metrics_endpoint_path: Annotated[str, Meta(max_length=256, pattern=r"^/(?!.*\.\.)[a-zA-Z0-9/_.\-]+\Z")]
    metric_publish_frequency_in_seconds: int | None = None


class ContainerMetricsConfig(Shape, frozen=True):
    metrics_endpoints: Annotated[list[MetricsEndpoint], Meta(max_length=1)] | None = None


class DeployedImage(Shape, frozen=True):
    specified_image: ContainerImage | None = None
    resolved_image: ContainerImage | None = None
    resolution_time: float | None = None


class Alarm(Shape, frozen=True):
    alarm_name: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^(?!\s*$).+\Z")] | None = None


class AutoRollbackConfig(Shape, frozen=True):
    alarms: Annotated[list[Alarm], Meta(min_length=1, max_length=10)] | None = None
