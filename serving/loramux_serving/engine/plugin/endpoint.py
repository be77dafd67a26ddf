"""Routes under `/loramux/v1` inside vLLM's API server: what plain vLLM does not tell, and does not do.

vLLM loads this where `VLLM_PLUGINS` names `loramux` (`vllm/plugins/endpoint_plugins/interface.py`). It needs of vLLM,
seen in 0.26 to 0.32: `state.openai_serving_models` with `lora_requests`, `lora_resolver_lock` and
`load_lora_adapter`; the engine client's `add_lora`, `remove_lora`, `list_loras`, `collective_rpc`. Where one is
missing, the plugin logs that and answers 404, and the gateway goes on with vLLM's own routes.

    GET    /loramux/v1/engine            what the engine can do
    GET    /loramux/v1/adapters          names that answer, and whether the engine holds their weights now
    POST   /loramux/v1/adapters          {name, path}: make the adapter answer, its weights held; idempotent
    DELETE /loramux/v1/adapters/{name}   the name answers no more, and the weights are freed; idempotent

Errors are `{"error": {"message"}}`. Access is that of the server, which loramux binds to loopback.
"""

import logging
import uuid
from argparse import Namespace
from collections.abc import Collection
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest
from vllm.version import __version__ as vllm_version

from loramux_serving.engine.plugin import slots

PREFIX = "/loramux/v1"
_STATE = "loramux"
_CLIENT_NEEDS = ("add_lora", "remove_lora", "list_loras", "collective_rpc", "vllm_config")
_MODELS_NEEDS = ("lora_requests", "lora_resolver_lock", "load_lora_adapter")

_logger = logging.getLogger("vllm.plugins.loramux")


class Load(BaseModel):
    name: str
    path: str


class Adapter(BaseModel):
    name: str
    path: str
    id: int
    resident: bool
    """Whether the engine holds its weights: in host memory, and in a slot if `active`."""
    active: bool


class LoramuxEndpointPlugin:
    """`vllm.plugins.endpoint_plugins.interface.EndpointPlugin`."""

    name = "loramux"
    required_tasks: tuple[str, ...] | None = None

    def attach_router(self, app: FastAPI) -> None:
        app.include_router(_router)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Keep what the routes need, unless this vLLM lacks some of it."""
        models = getattr(state, "openai_serving_models", None)
        missing = [name for name in _CLIENT_NEEDS if not hasattr(engine_client, name)]
        missing += [name for name in _MODELS_NEEDS if not hasattr(models, name)]
        config = getattr(engine_client, "vllm_config", None)
        if getattr(config, "lora_config", None) is None:
            missing.append("--enable-lora")
        if missing:
            _logger.warning("loramux: off, since this vLLM has no %s", ", ".join(missing))
            return
        setattr(state, _STATE, LoraControl(engine_client, models))


class LoraControl:
    """Loads and frees adapters through vLLM's own map of names, under its own lock of each name."""

    def __init__(self, client: Any, models: Any) -> None:
        self._client = client
        self._models = models
        self._instance = uuid.uuid4().hex
        self._leaving: dict[str, int] = {}
        """Ids of names that are forgotten and whose weights are not known to be freed yet."""

    def describe(self) -> dict[str, Any]:
        config = self._client.vllm_config
        return {
            # Another value means that the server was started anew and holds nothing of before.
            "instance": self._instance,
            "vllm_version": vllm_version,
            "base": [path.name for path in self._models.base_model_paths],
            "max_model_len": config.model_config.max_model_len,
            "max_loras": config.lora_config.max_loras,
            "max_cpu_loras": config.lora_config.max_cpu_loras or config.lora_config.max_loras,
            "max_lora_rank": config.lora_config.max_lora_rank,
            "dynamic_lora": True,
            "evict": True,
            "staging": False,
        }

    async def adapters(self) -> list[Adapter]:
        held, active = await self._client.list_loras(), await self._slots()
        return [_adapter(request, held, active) for request in list(self._models.lora_requests.values())]

    async def load(self, name: str, path: str) -> Adapter:
        """The name answers from `path`, with its weights in the engine. Raises `HTTPException`."""
        known = self._models.lora_requests.get(name)
        if known is not None and known.lora_path != path:
            await self.free(name)
            known = None
        if known is None:
            await self._load_anew(name, path)
        elif known.lora_int_id not in await self._client.list_loras():
            await self._load_again(known)
        return _adapter(self._models.lora_requests[name], await self._client.list_loras(), await self._slots())

    async def free(self, name: str) -> None:
        """Forget the name first, so that no new request comes to weights that are gone: vLLM would read them again
        from their path, in the middle of a step. Called again after a failure, it goes on where it was."""
        async with self._models.lora_resolver_lock[name]:
            known = self._models.lora_requests.pop(name, None)
            if known is not None:
                self._leaving[name] = known.lora_int_id
            if name in self._leaving:
                await self._client.remove_lora(self._leaving[name])
                del self._leaving[name]

    async def _slots(self) -> Collection[int]:
        """Ids in the first worker's slots; all workers do the same. Empty where it is not known."""
        if not slots.registered():
            return ()
        answers = await self._client.collective_rpc(slots.METHOD)
        return answers[0] or ()

    async def _load_anew(self, name: str, path: str) -> None:
        answer = await self._models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=name, lora_path=path))
        fault = getattr(answer, "error", None)
        # A second caller may have been faster: then vLLM refuses the name, and all is well.
        if fault is not None and name not in self._models.lora_requests:
            raise HTTPException(fault.code, fault.message)

    async def _load_again(self, known: Any) -> None:
        """The engine's own cache dropped the weights of a name that answers."""
        try:
            await self._client.add_lora(known)
        except Exception as error:  # vLLM raises bare `Exception` for what went wrong in its engine process
            raise HTTPException(500, str(error)) from error


def _adapter(request: Any, held: Collection[int], active: Collection[int]) -> Adapter:
    return Adapter(
        name=request.lora_name,
        path=request.lora_path,
        id=request.lora_int_id,
        resident=request.lora_int_id in held,
        active=request.lora_int_id in active,
    )


def _control(request: Request) -> LoraControl:
    control = getattr(request.app.state, _STATE, None)
    if control is None:
        raise HTTPException(404, "The loramux plugin is off: this vLLM lacks what it needs.")
    assert isinstance(control, LoraControl)
    return control


_router = APIRouter(prefix=PREFIX, include_in_schema=False)
_Control = Annotated[LoraControl, Depends(_control)]


@_router.get("/engine")
async def engine(control: _Control) -> dict[str, Any]:
    return control.describe()


@_router.get("/adapters")
async def adapters(control: _Control) -> list[Adapter]:
    return await control.adapters()


@_router.post("/adapters")
async def load(body: Load, control: _Control) -> Adapter:
    return await control.load(body.name, body.path)


@_router.delete("/adapters/{name:path}", status_code=204)
async def free(name: str, control: _Control) -> None:
    await control.free(name)
