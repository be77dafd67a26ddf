"""Long work, and what happens as it happens."""

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Header
from sse_starlette import EventSourceResponse, ServerSentEvent

from loramux_serving.api.admin.views import OperationView
from loramux_serving.api.dependencies import ServicesDep
from loramux_serving.services import Services

router = APIRouter(tags=["operations"])


@router.get("/operations/{operation_id}")
async def describe_operation(services: ServicesDep, operation_id: str, wait: bool = False) -> OperationView:
    """`wait` answers when it has ended."""
    if wait:
        return OperationView.of(await services.lifecycle.wait(operation_id))
    return OperationView.of(await services.lifecycle.operation(operation_id))


@router.get("/events")
async def events(services: ServicesDep, last_event_id: Annotated[int | None, Header()] = None) -> EventSourceResponse:
    """Server-sent events. `Last-Event-ID` brings what was missed, as far as the gateway remembers."""
    return EventSourceResponse(_events(services, last_event_id), ping=15)


async def _events(services: Services, after: int | None) -> AsyncIterator[ServerSentEvent]:
    async with services.events.subscribe(after) as stream:
        async for event in stream:
            yield ServerSentEvent(id=str(event.id), event=event.type, data=json.dumps(asdict(event)))
