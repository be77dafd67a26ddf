"""Adapters and their versions."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from loramux_adapters.errors import AdapterNotFound, revive
from loramux_adapters.model import Operation, OperationState, Tier
from loramux_serving.api.admin.catalog import Catalog
from loramux_serving.api.admin.views import (
    LARGEST,
    Accepted,
    AdapterPage,
    AdapterView,
    AddAdapter,
    AddVersion,
    Canary,
    OperationView,
    Pin,
    Prefetch,
    Promote,
)
from loramux_serving.api.dependencies import ServicesDep
from loramux_serving.services import Services

router = APIRouter(tags=["adapters"])

State = Literal["ready", "arriving", "failed", "deleting"]


@router.get("/adapters")
async def list_adapters(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
    state: State | None = None,
    tier: Tier | None = None,
) -> AdapterPage:
    """By name. `cursor` is `next_cursor` of the page before; adapters that come or go meanwhile do not disturb the
    rest."""
    catalog = await Catalog.glance(services)
    matching = [
        name
        for name in catalog.names()
        if (state is None or catalog.state(name) == state) and (tier is None or catalog.best_tier(name) is tier)
    ]
    rest = [name for name in matching if cursor is None or name > cursor]
    page = rest[:limit]
    return AdapterPage(
        adapters=[catalog.describe(name) for name in page],
        next_cursor=page[-1] if len(rest) > limit else None,
        total=len(matching),
    )


@router.get("/adapters/{name}")
async def describe_adapter(services: ServicesDep, name: str) -> AdapterView:
    return (await Catalog.look(services)).describe(name)


@router.post("/adapters", status_code=202, responses={201: {"model": AdapterView}})
async def add_adapter(services: ServicesDep, body: AddAdapter, response: Response) -> Accepted | AdapterView:
    """202 with an operation, or with `wait` 201 when the adapter answers, or the error that it failed with."""
    pin = Tier(body.pin) if body.pin else None
    services.pointers.check_pin(body.name, pin)
    _, _, operation = await services.registry.add(body.name, body.source, base=body.base, promote=body.promote, pin=pin)
    return await _accept(services, operation, response, wait=body.wait)


@router.post("/adapters/{name}/versions", status_code=202, responses={201: {"model": AdapterView}})
async def add_version(services: ServicesDep, name: str, body: AddVersion, response: Response) -> Accepted | AdapterView:
    _, operation = await services.registry.update(name, body.source, promote=body.promote)
    return await _accept(services, operation, response, wait=body.wait)


@router.put("/adapters/{name}/artifact", status_code=202, responses={201: {"model": AdapterView}})
async def upload_artifact(
    services: ServicesDep,
    name: str,
    request: Request,
    response: Response,
    promote: bool = True,
    wait: bool = False,
) -> Accepted | AdapterView:
    """Add or update by upload: a .tar.gz or .zip body, told by its first bytes, or the files as multipart. Streamed
    to disk."""
    services.registry.check_new_name(name)
    async with services.uploads.receive(request) as upload:
        if name in services.registry.snapshot.state.adapters:
            _, operation = await services.registry.update(name, upload.source, promote=promote)
        else:
            _, _, operation = await services.registry.add(name, upload.source, base=None, promote=promote, pin=None)
        upload.keep()
    return await _accept(services, operation, response, wait=wait)


@router.post("/adapters/{name}/promote")
async def promote(services: ServicesDep, name: str, body: Promote) -> AdapterView:
    """Answers when every request that begins is on the version."""
    await services.pointers.promote(name, body.version)
    return (await Catalog.look(services)).describe(name)


@router.post("/adapters/{name}/rollback")
async def rollback(services: ServicesDep, name: str) -> AdapterView:
    """To the version that was live before."""
    await services.pointers.rollback(name)
    return (await Catalog.look(services)).describe(name)


@router.post("/adapters/{name}/canary")
async def canary(services: ServicesDep, name: str, body: Canary) -> AdapterView:
    """Send a share of the requests to another version, until somebody or its rule ends that."""
    rule = None if body.rule is None else body.rule.rule()
    await services.pointers.set_canary(name, body.version, body.weight, body.sticky, rule)
    return (await Catalog.look(services)).describe(name)


@router.post("/adapters/{name}/pin")
async def pin(services: ServicesDep, name: str, body: Pin) -> AdapterView:
    """Forbid demotion below a tier, and move it up to there."""
    await services.pointers.pin(name, Tier(body.tier))
    return (await Catalog.look(services)).describe(name)


@router.post("/adapters/{name}/unpin")
async def unpin(services: ServicesDep, name: str) -> AdapterView:
    await services.pointers.pin(name, None)
    return (await Catalog.look(services)).describe(name)


@router.post("/adapters/{name}/prefetch")
async def prefetch(services: ServicesDep, name: str, body: Prefetch) -> AdapterView:
    """Move the live version up to a tier on every replica."""
    await services.pointers.prefetch(name, Tier(body.tier))
    return (await Catalog.look(services)).describe(name)


@router.delete("/adapters/{name}", status_code=202)
async def delete_adapter(services: ServicesDep, name: str, wait: bool = False) -> Accepted:
    """Callers get 404 from the answer on; requests under way finish, then weights and files go."""
    operation = await services.registry.begin_delete(name)
    services.lifecycle.begin(operation)
    return await _leave(services, operation, wait=wait)


@router.delete("/adapters/{name}/versions/{number}", status_code=202)
async def delete_version(
    services: ServicesDep, name: str, number: Annotated[int, Path(le=LARGEST)], wait: bool = False
) -> Accepted:
    operation = await services.registry.begin_delete_version(name, number)
    services.lifecycle.begin(operation)
    return await _leave(services, operation, wait=wait)


async def _accept(
    services: Services, operation: Operation, response: Response, *, wait: bool
) -> Accepted | AdapterView:
    services.lifecycle.begin(operation)
    response.headers["Location"] = f"/admin/v1/operations/{operation.id}"
    if not wait:
        return Accepted(operation=OperationView.of(operation))
    ended = await outcome(services, operation)
    response.status_code = 201
    try:
        return (await Catalog.look(services)).describe(ended.adapter)
    except AdapterNotFound:  # deleted in the meantime by somebody else
        response.status_code = 202
        return Accepted(operation=OperationView.of(ended))


async def _leave(services: Services, operation: Operation, *, wait: bool) -> Accepted:
    ended = await outcome(services, operation) if wait else operation
    return Accepted(operation=OperationView.of(ended))


async def outcome(services: Services, operation: Operation) -> Operation:
    """Raises the error that the operation failed with."""
    ended = await services.lifecycle.wait(operation.id)
    if ended.state is OperationState.FAILED and ended.failure is not None:
        error = revive(ended.failure.code, ended.failure.message)
        error.details = {"operation": ended.id, "adapter": ended.adapter, "version": ended.version}
        raise error
    return ended
