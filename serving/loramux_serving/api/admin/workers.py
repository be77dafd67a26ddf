"""The processes that carry requests."""

from dataclasses import asdict

from fastapi import APIRouter

from loramux_serving.api.admin.views import WorkerView
from loramux_serving.api.dependencies import ServicesDep

router = APIRouter(tags=["workers"])


@router.get("/workers")
async def list_workers(services: ServicesDep) -> dict[str, list[WorkerView]]:
    """None where the gateway is one process."""
    return {"workers": [WorkerView(**asdict(status)) for status in services.crew.statuses()]}
