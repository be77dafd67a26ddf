"""What SageMaker, or a caller of LMI, asks of an endpoint's own container beside inference: whether it is well, and
which adapters it has.

Sources: "How your container should respond" in SageMaker's developer guide (`/ping`), djl-serving's "Adapters
Management API", and `model_hosting_container_standards`, which vLLM's own SageMaker image has.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from loramux_adapters.errors import (
    AdapterNotFound,
    ArtifactError,
    LoramuxError,
    ModelNotFound,
    NameTaken,
    RequestInvalid,
)
from loramux_adapters.model import Adapter, AdapterState, Operation, Tier
from loramux_serving.api.admin.adapters import outcome
from loramux_serving.api.dependencies import ServicesDep
from loramux_serving.api.health import missing
from loramux_serving.http_errors import error_headers, status_of
from loramux_serving.services import Services

_PATH = "/adapters"
_LOAD_FAILED = 424
"""LMI's status for an adapter that it can not load."""

_UNHEALTHY: dict[int | str, dict[str, Any]] = {503: {"description": "The base or a pinned adapter can not answer."}}


def _operator(services: ServicesDep, authorization: Annotated[str | None, Header()] = None) -> None:
    """An admin key, or nothing where the gateway is a container that only SageMaker reaches. Raises
    `Unauthenticated`, `Forbidden`."""
    if not services.settings.sagemaker.container:
        services.keyring.require_admin(services.keyring.authenticate(authorization))


router = APIRouter(tags=["container"])
_adapters = APIRouter(prefix=_PATH, dependencies=[Depends(_operator)])

Alias = Annotated[str | None, Header(alias="X-Amzn-SageMaker-Adapter-Alias")]
"""The name to use when speaking of the adapter: SageMaker's own are no names for people."""


class Registration(BaseModel):
    """`src` is any source that the settings allow. `preload` is as true: an adapter is loaded before it answers."""

    name: str | None = None
    src: str | None = None
    preload: bool = True
    pin: bool = False


class Status(BaseModel):
    status: str


class Described(BaseModel):
    """`pin`: it keeps its slot."""

    name: str
    src: str
    pin: bool


class Page(BaseModel):
    adapters: list[Described]
    nextPageToken: str | None = None


@router.get("/ping", response_model=Status, responses=_UNHEALTHY)
async def ping(services: ServicesDep) -> Response:
    """200 when the base and every pinned adapter can answer, else 503."""
    if missing(services):
        return JSONResponse({"status": "Unhealthy"}, status_code=503)
    return JSONResponse({"status": "Healthy"})


@_adapters.get("")
async def list_adapters(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    next_page_token: Annotated[int, Query(ge=0)] = 0,
) -> Page:
    """Those that answer, by name."""
    every = sorted(name for name in services.registry.snapshot.state.adapters if _live(services, name) is not None)
    page = every[next_page_token : next_page_token + limit]
    after = next_page_token + len(page)
    return Page(
        adapters=[described for name in page if (described := _live(services, name)) is not None],
        nextPageToken=str(after) if after < len(every) else None,
    )


@_adapters.get("/{name}")
async def describe_adapter(services: ServicesDep, name: str, alias: Alias = None) -> Described:
    described = _live(services, name)
    if described is None:
        raise _unknown(alias or name)
    return described


@_adapters.post("")
async def register_adapter(
    services: ServicesDep,
    body: Registration | None = None,
    name: str | None = None,
    src: str | None = None,
    preload: bool = True,
    pin: bool = False,
    alias: Alias = None,
) -> Status:
    """Answers when the adapter does. What is asked is in a JSON body, or in the query. Asked again while the adapter is
    on its way, it waits with the first; after that it is 409, and changes nothing."""
    asked = body or Registration(name=name, src=src, preload=preload, pin=pin)
    for member in ("name", "src"):
        if not getattr(asked, member):
            raise RequestInvalid(f"Parameter {member} is required.", details={"param": member})
    assert asked.name is not None, "it was looked at"
    assert asked.src is not None, "it was looked at"
    if asked.pin and not asked.preload:
        raise RequestInvalid("Can not set preload to false and pin to true", details={"param": "preload"})
    shown = alias or asked.name
    await _arrive(services, shown, asked.name, asked.src, Tier.GPU if asked.pin else None)
    return Status(status=f"Adapter {shown} registered")


@_adapters.delete("/{name}")
async def unregister_adapter(services: ServicesDep, name: str, alias: Alias = None) -> Status:
    """Answers when its weights and files have gone. Requests under way finish first."""
    try:
        operation = await services.registry.begin_delete(name)
    except AdapterNotFound as error:
        raise _unknown(alias or name) from error
    services.lifecycle.begin(operation)
    await outcome(services, operation)
    return Status(status=f"Adapter {alias or name} unregistered")


router.include_router(_adapters)


def asked_by(request: Request) -> bool:
    """Whether the caller expects errors of this shape."""
    return request.url.path == _PATH or request.url.path.startswith(f"{_PATH}/")


def failure(error: LoramuxError, status: int | None = None) -> JSONResponse:
    """`status` where it is not the one that the error has for these callers."""
    if status is None:
        status = _LOAD_FAILED if isinstance(error, ArtifactError) else status_of(error)
    kind = "BadRequestException" if status < 500 else "InternalServerException"
    body = {"code": status, "type": kind, "message": error.message}
    return JSONResponse(body, status_code=status, headers=error_headers(error))


async def _arrive(services: Services, asked: str, name: str, src: str, pin: Tier | None) -> None:
    """`asked` is the name to speak of. Raises `NameTaken` where another adapter has the name, and the error that the
    operation failed with."""
    services.pointers.check_pin(name, pin)
    adapter = services.registry.snapshot.state.adapters.get(name)
    if adapter is None:
        _, _, operation = await services.registry.add(name, src, base=None, promote=True, pin=pin)
    else:
        underway = await _underway(services, adapter, src)
        if underway is None and _live(services, name) is not None:
            raise NameTaken(
                f"The adapter {asked} already exists. If you want to replace it, please unregister it before "
                "registering a new adapter with the same name."
            )
        if underway is None:  # it has failed before
            _, operation = await services.registry.update(name, src, promote=True)
            await services.pointers.pin(name, pin)
        else:
            operation = underway
    services.lifecycle.begin(operation)
    await outcome(services, operation)


async def _underway(services: Services, adapter: Adapter, src: str) -> Operation | None:
    """The work that brings the adapter from this source."""
    versions = services.registry.snapshot.state.versions
    for operation in await asyncio.to_thread(services.registry.store.unfinished_operations):
        if operation.adapter == adapter.name and operation.version is not None:
            version = versions.get((adapter.name, operation.version))
            if version is not None and version.source == src and version.state.arriving:
                return operation
    return None


def _live(services: Services, name: str) -> Described | None:
    """What answers to the name; None while nothing does."""
    state = services.registry.snapshot.state
    adapter = state.adapters.get(name)
    if adapter is None or adapter.state is not AdapterState.ACTIVE or adapter.live is None:
        return None
    version = state.versions.get((name, adapter.live))
    return None if version is None else Described(name=name, src=version.source, pin=adapter.pin is Tier.GPU)


def _unknown(name: str) -> ModelNotFound:
    return ModelNotFound(f"The adapter {name} was not found")
