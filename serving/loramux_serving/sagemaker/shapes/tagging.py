"""Tags."""

from typing import Annotated

from msgspec import Meta

from loramux_serving.sagemaker.shapes.basics import (
    Input,
    Output,
    PaginationToken,
    ResourceArn,
    Tag,
    TagKey,
    TagList,
)


class AddTagsInput(Input, frozen=True):
    resource_arn: ResourceArn
    tags: TagList


class AddTagsOutput(Output, frozen=True):
    tags: list[Tag] | None = None


class ListTagsInput(Input, frozen=True):
    resource_arn: ResourceArn
    next_token: PaginationToken | None = None
    max_results: Annotated[int, Meta(ge=50)] | None = None


class ListTagsOutput(Output, frozen=True):
    tags: list[Tag] | None = None
    next_token: str | None = None


class DeleteTagsInput(Input, frozen=True):
    resource_arn: ResourceArn
    tag_keys: Annotated[list[TagKey], Meta(min_length=1, max_length=50)]


class DeleteTagsOutput(Output, frozen=True):
    pass
