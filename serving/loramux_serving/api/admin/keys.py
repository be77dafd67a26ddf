"""Callers' keys."""

from fastapi import APIRouter

from loramux_serving.api.admin.views import CreateKey, KeyView, NewAwsKey, NewKey
from loramux_serving.api.dependencies import ServicesDep

router = APIRouter(tags=["keys"])


@router.post("/keys", status_code=201)
async def create_key(services: ServicesDep, body: CreateKey) -> NewKey | NewAwsKey:
    """The secret is shown once."""
    key, secret = await services.key_desk.create(
        body.name,
        body.role,
        adapters=tuple(body.adapters),
        requests_per_minute=body.requests_per_minute,
        tokens_per_minute=body.tokens_per_minute,
        signing=body.aws,
    )
    if key.access_key_id is not None:
        return NewAwsKey(id=key.id, access_key_id=key.access_key_id, secret_access_key=secret)
    return NewKey(id=key.id, key=secret)


@router.get("/keys")
async def list_keys(services: ServicesDep) -> dict[str, list[KeyView]]:
    return {"keys": [KeyView.of(key) for key in await services.key_desk.list()]}


@router.delete("/keys/{key_id}")
async def revoke_key(services: ServicesDep, key_id: str) -> KeyView:
    """From the answer on, the key is refused."""
    return KeyView.of(await services.key_desk.revoke(key_id))
