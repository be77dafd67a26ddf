"""Other names for adapters and versions."""

from fastapi import APIRouter

from loramux_serving.api.admin.views import AliasView, SetAlias
from loramux_serving.api.dependencies import ServicesDep

router = APIRouter(tags=["aliases"])


@router.get("/aliases")
async def list_aliases(services: ServicesDep) -> dict[str, list[AliasView]]:
    aliases = services.registry.snapshot.state.aliases.values()
    return {"aliases": [AliasView.of(alias) for alias in sorted(aliases, key=lambda alias: alias.name)]}


@router.put("/aliases/{name}")
async def set_alias(services: ServicesDep, name: str, body: SetAlias) -> AliasView:
    """Make an alias, or lead it elsewhere."""
    return AliasView.of(await services.pointers.set_alias(name, body.adapter, body.version))


@router.delete("/aliases/{name}", status_code=204)
async def delete_alias(services: ServicesDep, name: str) -> None:
    await services.pointers.delete_alias(name)
