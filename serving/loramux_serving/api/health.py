"""`/healthz`, `/readyz`, `/metrics`: for probes and Prometheus, without a key."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from loramux_adapters.errors import StorageError
from loramux_serving.api.dependencies import ServicesDep
from loramux_serving.api.look import look
from loramux_serving.services import Services
from loramux_serving.telemetry.metrics import CONTENT_TYPE
from loramux_serving.whereabouts import Whereabouts

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(services: ServicesDep) -> JSONResponse:
    """200 when the base and every pinned adapter can answer, else 503 with what is missing. Also 200 where no copy of
    the base is wanted: whoever asks for one comes through here."""
    lacks = missing(services)
    if lacks and services.copies.wanted:
        return JSONResponse({"status": "not ready", "missing": lacks}, status_code=503, headers={"Retry-After": "2"})
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesDep) -> Response:
    """With what the engines last reported."""
    try:
        _show_tiers(services, await look(services))
    except StorageError:
        services.metrics.tiers.clear()
    return Response(services.metrics.expose(), headers={"Content-Type": CONTENT_TYPE})


def _show_tiers(services: Services, found: Whereabouts) -> None:
    state = services.registry.snapshot.state
    live = {
        name: version
        for name, adapter in state.adapters.items()
        if adapter.live is not None and (version := state.versions.get((name, adapter.live))) is not None
    }
    services.metrics.tiers.show(found, services.manager.capabilities(), live)


def missing(services: Services) -> list[str]:
    """What must answer, and can not."""
    ready = [status.id for status in services.fleet.statuses() if status.state == "ready"]
    if not ready:
        return [services.registry.snapshot.base.adapter]
    snapshot = services.registry.snapshot
    return sorted(
        snapshot.wanted[name].adapter for name in snapshot.pinned if not services.manager.staged_on(name) & set(ready)
    )
