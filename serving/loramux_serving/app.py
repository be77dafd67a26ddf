"""The FastAPI application: everything but the way of an inference request."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from loramux_adapters.errors import LoramuxError, RequestInvalid
from loramux_serving import __version__
from loramux_serving.api import container, health, models, sagemaker, tgi
from loramux_serving.api.admin import adapters, aliases, keys, operations, replicas, workers
from loramux_serving.api.dependencies import require_admin
from loramux_serving.http_errors import admin_body, error_headers, openai_dict, status_of
from loramux_serving.services import Services

_ADMIN = "/admin/v1"


def create_app(services: Services, running: AbstractAsyncContextManager[None]) -> FastAPI:
    """`running` is entered while the application lives: it starts and stops the gateway's background work."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running:
            yield

    app = FastAPI(
        title="loramux",
        version=__version__,
        summary="A multi-adapter LoRA inference gateway over vLLM",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.services = services
    app.add_exception_handler(LoramuxError, _loramux_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault)
    app.include_router(health.router)
    app.include_router(models.router)
    app.include_router(tgi.router)
    app.include_router(sagemaker.router)
    app.include_router(container.router)
    admin = APIRouter(prefix=_ADMIN, dependencies=[Depends(require_admin)])
    for part in (adapters, aliases, operations, keys, replicas, workers):
        admin.include_router(part.router)
    app.include_router(admin)
    return app


def _answer(request: Request, error: LoramuxError, status: int | None = None) -> Response:
    """Each interface has its own shape of error."""
    if sagemaker.asked_by(request):
        return sagemaker.failure(error, status)
    if container.asked_by(request):
        return container.failure(error, status)
    body = admin_body(error) if request.url.path.startswith(_ADMIN) else openai_dict(error)
    return JSONResponse(body, status_code=status or status_of(error), headers=error_headers(error))


async def _loramux_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LoramuxError)
    return _answer(request, error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{_place(fault['loc'])}: {fault['msg']}" for fault in error.errors())
    return _answer(request, RequestInvalid(f"The request is not valid: {faults}."))


async def _fault(request: Request, error: Exception) -> Response:
    """A fault of ours; the server logs it with its trace."""
    return _answer(request, LoramuxError("The gateway failed; its log says where."))


def _place(location: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in location[1:]) or "body"


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    invalid = RequestInvalid(f"{request.method} {request.url.path}: {error.detail}.")
    answer = _answer(request, invalid, error.status_code)
    answer.headers.update(error.headers or {})
    return answer
