"""The fleet."""

from fastapi import APIRouter

from loramux_serving.api.admin.views import ReplicaView
from loramux_serving.api.dependencies import ServicesDep
from loramux_serving.services import Services

router = APIRouter(tags=["replicas"])


@router.get("/replicas")
async def list_replicas(services: ServicesDep) -> dict[str, list[ReplicaView]]:
    return {"replicas": await _views(services)}


@router.post("/replicas/{replica_id}/drain")
async def drain(services: ServicesDep, replica_id: str) -> ReplicaView:
    """No new requests; those under way finish."""
    services.fleet.drain(replica_id)
    return await _view(services, replica_id)


@router.post("/replicas/{replica_id}/undrain")
async def undrain(services: ServicesDep, replica_id: str) -> ReplicaView:
    services.fleet.undrain(replica_id)
    return await _view(services, replica_id)


async def _view(services: Services, replica_id: str) -> ReplicaView:
    return next(view for view in await _views(services) if view.id == replica_id)


async def _views(services: Services) -> list[ReplicaView]:
    residents = await services.manager.residents()
    return [
        ReplicaView.of(status, {item.engine_name: item.tier.value for item in residents.get(status.id, ())})
        for status in services.fleet.statuses()
    ]
