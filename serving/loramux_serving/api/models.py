"""`/v1/models`: what may be called, in OpenAI's shape."""

from typing import Any

from fastapi import APIRouter

from loramux_adapters.errors import Forbidden, ModelNotFound
from loramux_serving.api.dependencies import PrincipalDep, ServicesDep
from loramux_serving.relay.ports import Principal
from loramux_serving.services import Services

router = APIRouter(prefix="/v1", tags=["inference"])


@router.get("/models")
async def list_models(services: ServicesDep, principal: PrincipalDep) -> dict[str, Any]:
    """The base, adapters and aliases that the key may call. `parent` is the base, `root` what the name stands for."""
    snapshot = services.registry.snapshot
    names = [snapshot.base.adapter, *sorted(snapshot.names)]
    return {
        "object": "list",
        "data": [_model(services, name) for name in names if _allowed(services, principal, name)],
    }


@router.get("/models/{name:path}")
async def describe_model(services: ServicesDep, principal: PrincipalDep, name: str) -> dict[str, Any]:
    target = services.registry.resolve(name, sticky="")
    services.keyring.require_adapter(principal, target.adapter)
    return _model(services, name)


def _allowed(services: Services, principal: Principal, name: str) -> bool:
    try:
        services.keyring.require_adapter(principal, services.registry.resolve(name, sticky="").adapter)
    except (Forbidden, ModelNotFound):
        return False
    return True


def _model(services: Services, name: str) -> dict[str, Any]:
    snapshot = services.registry.snapshot
    target = snapshot.resolve(name, draw=1.0)
    adapter = snapshot.state.adapters.get(target.adapter)
    return {
        "id": name,
        "object": "model",
        "created": int(adapter.created_at) if adapter else 0,
        "owned_by": "loramux",
        "root": target.adapter,
        "parent": None if target.is_base else snapshot.base.adapter,
    }
