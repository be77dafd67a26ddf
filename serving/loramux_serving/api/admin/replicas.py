"""The fleet."""

from fastapi import APIRouter, status

from loramux_serving.api.admin.views import FleetView, ReplicaView, Scale
from loramux_serving.api.dependencies import ServicesDep
from loramux_serving.api.look import reports
from loramux_serving.services import Services

router = APIRouter(tags=["replicas"])


@router.get("/replicas")
async def list_replicas(services: ServicesDep) -> FleetView:
    return _fleet(services)


@router.put("/replicas", status_code=status.HTTP_202_ACCEPTED)
async def scale(services: ServicesDep, body: Scale) -> FleetView:
    """Starts and stops go on in the background."""
    await services.copies.set(body.wanted)
    return _fleet(services)


@router.post("/replicas/{replica_id}/drain")
async def drain(services: ServicesDep, replica_id: str) -> ReplicaView:
    """No new requests; those under way finish."""
    services.fleet.drain(replica_id)
    return _view(services, replica_id)


@router.post("/replicas/{replica_id}/undrain")
async def undrain(services: ServicesDep, replica_id: str) -> ReplicaView:
    services.fleet.undrain(replica_id)
    return _view(services, replica_id)


def _fleet(services: Services) -> FleetView:
    copies = services.copies
    return FleetView(wanted=copies.wanted, ready=copies.ready, limit=copies.limit, replicas=_views(services))


def _view(services: Services, replica_id: str) -> ReplicaView:
    return next(view for view in _views(services) if view.id == replica_id)


def _views(services: Services) -> list[ReplicaView]:
    held = reports(services)
    known = services.registry.snapshot.state.versions.values()
    adapter_of = {version.engine_name: version.adapter for version in known if version.engine_name is not None}
    return [ReplicaView.of(status, held.get(status.id), adapter_of) for status in services.fleet.statuses()]
