"""`/healthz`, `/readyz`, `/metrics`: for probes and Prometheus, without a key."""

from collections import Counter

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from loramux_serving.api.dependencies import ServicesDep
from loramux_serving.services import Services
from loramux_serving.telemetry.metrics import CONTENT_TYPE

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(services: ServicesDep) -> JSONResponse:
    """200 when the base and every pinned adapter can answer, else 503 with what is missing."""
    missing = _missing(services)
    if missing:
        return JSONResponse({"status": "not ready", "missing": missing}, status_code=503, headers={"Retry-After": "2"})
    return JSONResponse({"status": "ready"})


@router.get("/metrics")
async def metrics(services: ServicesDep) -> Response:
    """Each scrape asks every engine what it holds."""
    for replica, held in (await services.manager.residents()).items():
        services.metrics.residents(replica, Counter(resident.tier for resident in held))
    return Response(services.metrics.expose(), headers={"Content-Type": CONTENT_TYPE})


def _missing(services: Services) -> list[str]:
    ready = [status.id for status in services.fleet.statuses() if status.state == "ready"]
    if not ready:
        return [services.registry.snapshot.base.adapter]
    snapshot = services.registry.snapshot
    return sorted(
        snapshot.wanted[name].adapter for name in snapshot.pinned if not services.manager.staged_on(name) & set(ready)
    )
