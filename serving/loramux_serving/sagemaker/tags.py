"""Tags of resources."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from loramux_adapters.errors import LimitExceeded, RequestInvalid
from loramux_adapters.model import Resource, ResourceKind
from loramux_serving.sagemaker.arns import Place, resource_of
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.replies import not_found
from loramux_serving.sagemaker.shapes import tagging as shapes
from loramux_serving.sagemaker.shapes.basics import Tag

_MOST = 50

Component = Callable[[str], Resource | None]
"""The inference component of a name, adapters of the registry included."""


class Tags:
    def __init__(self, inventory: Inventory, component: Component) -> None:
        self._inventory = inventory
        self._component = component

    async def add(self, place: Place, asked: shapes.AddTagsInput) -> shapes.AddTagsOutput:
        resource = self._get(place, asked.resource_arn)
        tags = {**resource.tags, **tags_of(asked.tags)}
        if len(tags) > _MOST:
            raise LimitExceeded(f"A resource has at most {_MOST} tags.")
        await self._inventory.save(replace(resource, tags=tags))
        return shapes.AddTagsOutput(tags=_told(tags))

    async def list_some(self, place: Place, asked: shapes.ListTagsInput) -> shapes.ListTagsOutput:
        """All of them: there are no more than a page takes."""
        return shapes.ListTagsOutput(tags=_told(self._get(place, asked.resource_arn).tags))

    async def delete(self, place: Place, asked: shapes.DeleteTagsInput) -> shapes.DeleteTagsOutput:
        resource = self._get(place, asked.resource_arn)
        tags = {key: value for key, value in resource.tags.items() if key not in asked.tag_keys}
        await self._inventory.save(replace(resource, tags=tags))
        return shapes.DeleteTagsOutput()

    def _get(self, place: Place, arn: str) -> Resource:
        named = resource_of(arn)
        if named is None:
            raise RequestInvalid(f"Tags of {arn!r} are not kept by this gateway.")
        kind, name = named
        found = self._component(name) if kind is ResourceKind.COMPONENT else self._inventory.get(kind, name)
        if found is None:
            raise not_found(place, kind, name)
        return found


def tags_of(tags: Iterable[Tag] | None) -> dict[str, str]:
    """Raises `RequestInvalid` for a key that comes twice."""
    found: dict[str, str] = {}
    for tag in tags or ():
        if tag.key in found:
            raise RequestInvalid(f"Duplicate tag keys found: {tag.key!r}.")
        found[tag.key] = tag.value
    return found


def _told(tags: Mapping[str, str]) -> list[Tag]:
    return [Tag(key=key, value=value) for key, value in tags.items()]
