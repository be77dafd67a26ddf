"""Routes under `/loramux/v1` inside vLLM's API server: what plain vLLM does not tell, and does not do.

vLLM loads this where `VLLM_PLUGINS` names `loramux` (`vllm/plugins/endpoint_plugins/interface.py`). It needs of vLLM,
seen in 0.26 to 0.32: `state.openai_serving_models` with `lora_requests`, `lora_resolver_lock` and `lora_id_counter`;
the engine client's `add_lora`, `remove_lora`, `list_loras`, `collective_rpc`. Where one is missing, the plugin logs it
and answers 404, and the gateway goes on with vLLM's own routes. What staging needs beyond that is in `reliance`.

    GET    /loramux/v1/engine                     what the engine can do
    GET    /loramux/v1/workers                    what each worker holds in slots and in host memory, in order of use
    GET    /loramux/v1/adapters                   names that answer, and the tier of their weights
    POST   /loramux/v1/adapters                   {name, path, tier, keep, wait}: make it answer; idempotent. Without
                                                  `wait`, 202 at once, and the next route tells how it went
    GET    /loramux/v1/adapters/{name}            the same of one; 404 before it answers, and why where its load failed
    POST   /loramux/v1/adapters/{name}/activate   {keep}: into a slot, off none that `keep` names
    POST   /loramux/v1/adapters/{name}/deactivate out of its slot, into host memory
    POST   /loramux/v1/adapters/{name}/pin        {tier, keep}: stay in `cpu` or `gpu`
    POST   /loramux/v1/adapters/{name}/unpin
    DELETE /loramux/v1/adapters/{name}            the name answers no more, and the weights are freed; idempotent

Errors are `{"error": {"message"}}`. Access is that of the server, which loramux binds to loopback.
"""

import asyncio
import logging
import os
from argparse import Namespace
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel

from loramux_serving.engine.plugin import prompt_limit
from loramux_serving.engine.plugin.control import LoraControl, Rejected

PREFIX = "/loramux/v1"
_STATE = "loramux"
_CLIENT_NEEDS = ("add_lora", "remove_lora", "list_loras", "collective_rpc", "vllm_config")
_MODELS_NEEDS = ("lora_requests", "lora_resolver_lock", "lora_id_counter", "base_model_paths")

_logger = logging.getLogger("vllm.plugins.loramux")


class Load(BaseModel):
    name: str
    path: str
    tier: Literal["cpu", "gpu"] = "gpu"
    keep: list[str] = []
    wait: bool = True


class LoramuxEndpointPlugin:
    """`vllm.plugins.endpoint_plugins.interface.EndpointPlugin`."""

    name = "loramux"
    required_tasks: tuple[str, ...] | None = None

    def attach_router(self, app: FastAPI) -> None:
        app.include_router(_router)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Limit prompts where that is asked for, and keep what the routes need, unless this vLLM lacks some of it."""
        limit = int(os.environ.get(prompt_limit.LIMIT, "0"))
        if limit and not prompt_limit.limit_prompts(limit):
            _logger.warning("loramux: prompts are not limited, since this vLLM checks their length in another way")
        models = getattr(state, "openai_serving_models", None)
        missing = [name for name in _CLIENT_NEEDS if not hasattr(engine_client, name)]
        missing += [name for name in _MODELS_NEEDS if not hasattr(models, name)]
        config = getattr(engine_client, "vllm_config", None)
        if getattr(config, "lora_config", None) is None:
            missing.append("--enable-lora")
        if missing:
            _logger.warning("loramux: off, since this vLLM has no %s", ", ".join(missing))
            return
        control = LoraControl(engine_client, models)
        await control.open()
        setattr(state, _STATE, _Desk(control))


class _Desk:
    """The control, and loads that nobody waits for."""

    def __init__(self, control: LoraControl) -> None:
        self.control = control
        self._loads: dict[str, asyncio.Task[str]] = {}
        self._faults: dict[str, Rejected] = {}

    def begin(self, order: Load) -> None:
        """Load in the background. A load of the same name that is under way goes first."""
        before = self._loads.get(order.name)
        self._faults.pop(order.name, None)
        task = asyncio.create_task(self._load(order, before), name=f"load {order.name}")
        self._loads[order.name] = task
        task.add_done_callback(lambda done: self._ended(order.name, done))

    async def _load(self, order: Load, before: "asyncio.Task[str] | None") -> str:
        if before is not None:
            await asyncio.wait([before])
        return await self.control.load(order.name, order.path, order.tier, order.keep)

    def _ended(self, name: str, task: "asyncio.Task[str]") -> None:
        if self._loads.get(name) is task:
            del self._loads[name]
        if not task.cancelled() and isinstance(fault := task.exception(), Rejected):
            self._faults[name] = fault

    def loading(self, name: str) -> bool:
        return name in self._loads

    def fault(self, name: str) -> Rejected | None:
        return self._faults.get(name)

    def forget(self, name: str) -> None:
        self._faults.pop(name, None)


def _desk(request: Request) -> _Desk:
    desk = getattr(request.app.state, _STATE, None)
    if desk is None:
        raise HTTPException(404, "The loramux plugin is off: this vLLM lacks what it needs.")
    assert isinstance(desk, _Desk)
    return desk


_router = APIRouter(prefix=PREFIX, include_in_schema=False)
_OfDesk = Annotated[_Desk, Depends(_desk)]
_Keep = Annotated[list[str], Body(embed=True)]


@_router.get("/engine")
async def engine(desk: _OfDesk) -> dict[str, Any]:
    return desk.control.describe()


@_router.get("/workers")
async def workers(desk: _OfDesk) -> list[dict[str, Any]]:
    return await desk.control.workers()


@_router.get("/adapters")
async def adapters(desk: _OfDesk) -> list[dict[str, Any]]:
    return [asdict(held) for held in await desk.control.adapters()]


@_router.post("/adapters")
async def load(order: Load, response: Response, desk: _OfDesk) -> dict[str, Any]:
    if not order.wait:
        desk.begin(order)
        response.status_code = 202
        return {"name": order.name, "state": "loading"}
    tier = await _or_http(desk.control.load(order.name, order.path, order.tier, order.keep))
    return {"name": order.name, "state": "held", "tier": tier}


@_router.get("/adapters/{name:path}")
async def adapter(name: str, desk: _OfDesk) -> dict[str, Any]:
    if desk.loading(name):
        return {"name": name, "state": "loading"}
    if (fault := desk.fault(name)) is not None:
        raise HTTPException(404, f"It could not be loaded: {fault.message}")
    return {"state": "held", **asdict(await _or_http(desk.control.adapter(name)))}


@_router.post("/adapters/{name:path}/activate")
async def activate(name: str, desk: _OfDesk, keep: _Keep = []) -> dict[str, bool]:  # noqa: B006
    return {"active": await _or_http(desk.control.activate(name, keep))}


@_router.post("/adapters/{name:path}/deactivate")
async def deactivate(name: str, desk: _OfDesk) -> dict[str, bool]:
    return {"active": not await _or_http(desk.control.deactivate(name))}


@_router.post("/adapters/{name:path}/pin", status_code=204)
async def pin(
    name: str,
    desk: _OfDesk,
    tier: Annotated[Literal["cpu", "gpu"], Body(embed=True)],
    keep: _Keep = [],  # noqa: B006
) -> None:
    await _or_http(desk.control.pin(name, tier, keep))


@_router.post("/adapters/{name:path}/unpin", status_code=204)
async def unpin(name: str, desk: _OfDesk) -> None:
    await desk.control.unpin(name)


@_router.delete("/adapters/{name:path}", status_code=204)
async def free(name: str, desk: _OfDesk) -> None:
    desk.forget(name)
    await desk.control.free(name)


async def _or_http(work: Any) -> Any:
    try:
        return await work
    except Rejected as rejected:
        raise HTTPException(rejected.status, rejected.message) from rejected
