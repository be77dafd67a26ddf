"""SageMaker's operations, by name: what is asked, and who does it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from loramux_adapters.errors import OperationUnknown
from loramux_adapters.names import shown
from loramux_serving.sagemaker.arns import Place
from loramux_serving.sagemaker.components import Components
from loramux_serving.sagemaker.endpoint_configs import EndpointConfigs
from loramux_serving.sagemaker.endpoints import Endpoints
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.models import Models
from loramux_serving.sagemaker.shapes import components, endpoint_configs, endpoints, models, tagging
from loramux_serving.sagemaker.shapes.basics import Input, Output
from loramux_serving.sagemaker.tags import Tags
from loramux_serving.sagemaker.tending import Tending
from loramux_serving.sagemaker.wire import decode, encode

TARGET = "SageMaker."
"""Begins the value of `X-Amz-Target`."""

Work = Callable[[Place, Any], Awaitable[Output | None]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`changes` false: it only reads."""

    asked: type[Input]
    work: Work
    changes: bool = True


class ControlPlane:
    """One event loop. `open` before anything else, then `run` while the gateway runs."""

    def __init__(
        self,
        inventory: Inventory,
        tending: Tending,
        turn: asyncio.Lock,
        *,
        models: Models,
        endpoint_configs: EndpointConfigs,
        endpoints: Endpoints,
        components: Components,
        tags: Tags,
        account: str,
    ) -> None:
        """`account` is the number that ARNs have."""
        self._inventory = inventory
        self._tending = tending
        self._turn = turn
        self._account = account
        self.operations = _operations(models, endpoint_configs, endpoints, components, tags)

    async def open(self) -> None:
        """Before replicas are started. Raises `StorageError`."""
        await self._inventory.open()
        await self._tending.open()

    async def run(self) -> None:
        """Until it is cancelled."""
        await self._tending.run()

    async def answer(self, target: str, body: bytes, region: str) -> bytes:
        """One call: `target` is the value of `X-Amz-Target`. Raises `LoramuxError`."""
        operation = self.operations.get(target.removeprefix(TARGET)) if target.startswith(TARGET) else None
        if operation is None:
            raise OperationUnknown(
                f"The operation {shown(target)} is not supported by this gateway. It knows "
                f"{', '.join(sorted(self.operations))}."
            )
        asked = decode(body, operation.asked)
        place = Place(region, self._account)
        if self._inventory.doubtful:
            async with self._turn:
                await self._inventory.refresh()
        if not operation.changes:
            return encode(await operation.work(place, asked))
        # A caller who leaves must not part what was committed from what is in memory.
        return encode(await asyncio.shield(self._change(operation, place, asked)))

    async def _change(self, operation: Operation, place: Place, asked: Input) -> Output | None:
        async with self._turn:
            return await operation.work(place, asked)


def _operations(
    model: Models, config: EndpointConfigs, endpoint: Endpoints, component: Components, tag: Tags
) -> dict[str, Operation]:
    return {
        "CreateModel": Operation(models.CreateModelInput, model.create),
        "DescribeModel": Operation(models.DescribeModelInput, model.describe, changes=False),
        "ListModels": Operation(models.ListModelsInput, model.list_some, changes=False),
        "DeleteModel": Operation(models.DeleteModelInput, model.delete),
        "CreateEndpointConfig": Operation(endpoint_configs.CreateEndpointConfigInput, config.create),
        "DescribeEndpointConfig": Operation(
            endpoint_configs.DescribeEndpointConfigInput, config.describe, changes=False
        ),
        "ListEndpointConfigs": Operation(endpoint_configs.ListEndpointConfigsInput, config.list_some, changes=False),
        "DeleteEndpointConfig": Operation(endpoint_configs.DeleteEndpointConfigInput, config.delete),
        "CreateEndpoint": Operation(endpoints.CreateEndpointInput, endpoint.create),
        "DescribeEndpoint": Operation(endpoints.DescribeEndpointInput, endpoint.describe, changes=False),
        "ListEndpoints": Operation(endpoints.ListEndpointsInput, endpoint.list_some, changes=False),
        "UpdateEndpoint": Operation(endpoints.UpdateEndpointInput, endpoint.update),
        "DeleteEndpoint": Operation(endpoints.DeleteEndpointInput, endpoint.delete),
        "CreateInferenceComponent": Operation(components.CreateInferenceComponentInput, component.create),
        "DescribeInferenceComponent": Operation(
            components.DescribeInferenceComponentInput, component.describe, changes=False
        ),
        "ListInferenceComponents": Operation(
            components.ListInferenceComponentsInput, component.list_some, changes=False
        ),
        "UpdateInferenceComponent": Operation(components.UpdateInferenceComponentInput, component.update),
        "UpdateInferenceComponentRuntimeConfig": Operation(
            components.UpdateInferenceComponentRuntimeConfigInput, component.update_runtime_config
        ),
        "DeleteInferenceComponent": Operation(components.DeleteInferenceComponentInput, component.delete),
        "AddTags": Operation(tagging.AddTagsInput, tag.add),
        "ListTags": Operation(tagging.ListTagsInput, tag.list_some, changes=False),
        "DeleteTags": Operation(tagging.DeleteTagsInput, tag.delete),
    }
