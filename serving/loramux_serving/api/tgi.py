"""What TGI answers to GET: `/info`, `/health` and `/`, without a key as there. Its inference routes are the relay's.

`GET /` is TGI's health check. A page for people at the same address goes to who asks for `text/html`, and this stays
for everybody else.
"""

from typing import Any

import httpx
import msgspec
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from loramux_adapters.errors import EngineUnavailable
from loramux_serving import __version__
from loramux_serving.api.dependencies import ServicesDep
from loramux_serving.api.health import missing
from loramux_serving.relay.dialects.tgi_errors import TgiError, tgi_words
from loramux_serving.relay.dialects.tgi_parameters import MAX_BEST_OF, MAX_STOP_SEQUENCES
from loramux_serving.services import Services

router = APIRouter(tags=["tgi"])

_ASK_TIMEOUT_S = 5.0
_UNHEALTHY: dict[int | str, dict[str, Any]] = {503: {"description": "The base or a pinned adapter can not answer."}}


class Info(BaseModel):
    """TGI's `Info`. None and 0 are what does not exist here; `model_dtype` and `model_device_type` are of TGI 2."""

    model_id: str
    model_sha: str | None = None
    model_pipeline_tag: str | None = None
    model_dtype: str | None = None
    model_device_type: str | None = None
    max_concurrent_requests: int
    max_best_of: int = MAX_BEST_OF
    max_stop_sequences: int = MAX_STOP_SEQUENCES
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int = 0
    max_client_batch_size: int = 1
    router: str = "loramux"
    version: str = __version__
    sha: str | None = None
    docker_label: str | None = None


class _Card(msgspec.Struct):
    max_model_len: int | None = None


class _Cards(msgspec.Struct):
    data: list[_Card]


@router.get("/info", response_model=Info, responses={424: {"description": "No engine answers."}})
async def info(services: ServicesDep) -> Response:
    """The base and its limits. `max_concurrent_requests` are those that run and wait before one is refused."""
    try:
        longest = await _max_model_len(services)
    except EngineUnavailable as error:
        words = tgi_words(error)
        headers = {name.decode(): value.decode() for name, value in words.headers}
        return Response(words.body, words.status, headers)
    engine, admission = services.settings.engine, services.settings.admission
    own = not engine.url_list
    told = Info(
        model_id=services.registry.snapshot.base.adapter,
        model_dtype=engine.dtype if own and engine.dtype != "auto" else None,
        model_device_type=engine.kind if own else None,
        max_concurrent_requests=admission.max_concurrent * len(services.fleet.statuses()) + admission.max_queue,
        max_input_tokens=longest - 1,
        max_total_tokens=longest,
    )
    return JSONResponse(told.model_dump())


@router.get("/health", response_class=Response, responses=_UNHEALTHY)
async def health(services: ServicesDep) -> Response:
    """200 without a body where `/readyz` answers 200, else 503."""
    if not missing(services):
        return Response()
    unhealthy = TgiError("unhealthy", "healthcheck")
    return Response(msgspec.json.encode(unhealthy), 503, {"Retry-After": "2"}, "application/json")


@router.get("/", response_class=Response, responses=_UNHEALTHY)
async def root(services: ServicesDep) -> Response:
    """As `/health`."""
    return await health(services)


async def _max_model_len(services: Services) -> int:
    """Tokens of a whole context, as an engine says. Raises `EngineUnavailable`."""
    for status in services.fleet.statuses():
        if status.state != "ready":
            continue
        try:
            answer = await services.http.get(f"{status.url}/v1/models", timeout=_ASK_TIMEOUT_S)
            cards = msgspec.json.decode(answer.content, type=_Cards).data
        except (httpx.HTTPError, msgspec.DecodeError):
            continue
        for card in cards:
            if card.max_model_len is not None:
                return card.max_model_len
    if services.settings.engine.max_model_len:
        return services.settings.engine.max_model_len
    raise EngineUnavailable("No engine says how long its context is.")
