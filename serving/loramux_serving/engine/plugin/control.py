"""Adapters of one engine, from its API server: names that answer, and where the weights are.

With staging, an adapter is read and packed by the stager process, mapped by the workers between two steps, and copied
into a slot a little at a time. Where this vLLM lacks what that relies on, or the stager is not there, vLLM loads it
itself, within its step loop, with the same result.
"""

import asyncio
import logging
import os
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from vllm.lora.request import LoRARequest
from vllm.version import __version__ as vllm_version

from loramux_serving.engine.plugin import worker
from loramux_serving.engine.plugin.staging import Refused, Staged, Stager, Unable, merge

_PINNED_AGAIN_S = 0.005
_LEAST_PAUSE_S, _MOST_PAUSE_S = 0.002, 0.02
"""Between two parts of a fill. What is asked while a step runs is done right after it; what is asked before it has
begun only delays it."""

_logger = logging.getLogger("vllm.plugins.loramux")


class Rejected(Exception):
    """The engine does not take it. `status` is that of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Held:
    """An adapter whose name answers. `tier` is `gpu`, `cpu`, or `disk` where the engine has dropped its weights and
    would read them again; `recency` orders those of one tier, the least recently used first; `pin` is the tier that the
    engine keeps it in, or None."""

    name: str
    path: str
    id: int
    tier: str
    bytes: int
    recency: int
    pin: str | None


class LoraControl:
    """Under vLLM's own lock of each name. One event loop."""

    def __init__(self, client: Any, models: Any) -> None:
        self._client = client
        self._models = models
        self._instance = uuid.uuid4().hex
        self._leaving: dict[str, int] = {}
        """Ids of names that are forgotten and whose weights are not known to be freed yet."""
        self._missing: list[str] = []
        self._slot_bytes = 0
        self._stager: Stager | None = None
        self._filling = asyncio.Lock()
        """One slot is filled at a time: two would only make each other slower."""
        self._looking = asyncio.Lock()
        self._next_look: asyncio.Task[list[Any]] | None = None

    async def open(self) -> None:
        """Ask the workers whether adapters can be staged, and start the stager if so."""
        told = await self._ask("describe")
        config = self._client.vllm_config
        self._missing = sorted({name for one in told for name in one["missing"]})
        if config.parallel_config.data_parallel_size > 1:
            self._missing.append("one engine behind this server (it has data parallel ones)")
        if getattr(config.parallel_config, "nnodes", 1) > 1:
            self._missing.append("workers on this machine alone")
        if self._missing:
            _logger.warning("loramux: no staging, adapters load the plain way: %s", "; ".join(self._missing))
            return
        self._slot_bytes = sum(one["slot_bytes"] for one in told)
        workers = max(1, int(os.environ.get("LORAMUX_STAGING_WORKERS", "1")))
        self._stager = Stager(merge([one["recipe"] for one in told]), workers=workers)
        self._stager.start()

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
            "staging": self._stager is not None,
            "staging_lacks": self._missing,
            "stager": None if self._stager is None else {"state": self._stager.state, "pid": self._stager.pid},
            "slot_bytes": self._slot_bytes,
        }

    # --- where things are ---

    async def workers(self) -> list[dict[str, Any]]:
        """What each worker holds, by its own books: see `worker.holdings`. Names, where they answer, beside ids."""
        names = {request.lora_int_id: name for name, request in self._models.lora_requests.items()}
        return [
            {
                "slots": [
                    {"id": one, "name": names.get(one), "index": index, "pinned": pinned}
                    for one, index, pinned in held["slots"]
                ],
                "host": [
                    {"id": one, "name": names.get(one), "bytes": size, "pinned": pinned}
                    for one, size, pinned in held["host"]
                ],
                "filling": held["filling"],
            }
            for held in await self._holdings()
        ]

    async def adapters(self) -> list[Held]:
        """As the first worker says: all of them do the same."""
        held = (await self._holdings())[0]
        host = {one: (order, size, pinned) for order, (one, size, pinned) in enumerate(held["host"])}
        slots = {one: (order, pinned) for order, (one, _, pinned) in enumerate(held["slots"])}
        return [self._held(request, host, slots) for request in list(self._models.lora_requests.values())]

    async def adapter(self, name: str) -> Held:
        """Raises `Rejected` where the name does not answer."""
        for held in await self.adapters():
            if held.name == name:
                return held
        raise _unknown(name)

    def _held(self, request: Any, host: dict[int, tuple[int, int, bool]], slots: dict[int, tuple[int, bool]]) -> Held:
        order, size, pinned = host.get(request.lora_int_id, (0, 0, False))
        slot = slots.get(request.lora_int_id)
        tier = "disk" if request.lora_int_id not in host else "cpu" if slot is None else "gpu"
        pin = "gpu" if slot is not None and slot[1] else "cpu" if pinned else None
        return Held(
            name=request.lora_name,
            path=request.lora_path,
            id=request.lora_int_id,
            tier=tier,
            bytes=size,
            recency=order if slot is None else slot[0],
            pin=pin,
        )

    # --- moves ---

    async def load(self, name: str, path: str, tier: str, keep: Sequence[str]) -> str:
        """The name answers from `path`, its weights in host memory, or for `gpu` in a slot where one may be had. Gives
        the tier. Raises `Rejected`."""
        known = self._models.lora_requests.get(name)
        if known is not None and known.lora_path != path:
            await self.free(name)
        async with self._models.lora_resolver_lock[name]:
            known = self._models.lora_requests.get(name)
            if known is None or known.lora_int_id not in await self._client.list_loras():
                request = known or LoRARequest(
                    lora_name=name, lora_int_id=self._models.lora_id_counter.inc(1), lora_path=path
                )
                state = await self._bring(request, tier == "gpu", self._ids(keep))
                self._models.lora_requests[name] = request
            else:
                request, state = known, "filling" if tier == "gpu" else "held"
        if state == "filling":
            return "gpu" if await self._fill(request.lora_int_id, self._ids(keep)) else "cpu"
        return "gpu" if state == "active" else "cpu"

    async def _bring(self, request: Any, slot: bool, keep: list[int]) -> str:
        """Into the host cache. What `worker.commit` says in the end."""
        if self._stager is not None:
            try:
                async with self._stager.staged(request.lora_path) as staged:
                    return await self._take(request.lora_int_id, staged, slot, keep)
            except Refused as refused:
                raise Rejected(400, str(refused)) from refused
            except Unable as unable:
                _logger.info("loramux: %s is loaded the plain way: %s", request.lora_name, unable)
        try:
            await self._client.add_lora(request)
        except Exception as error:  # vLLM raises bare `Exception` for what went wrong in its engine process
            raise Rejected(400, str(error)) from error
        return "active"

    async def _take(self, lora_id: int, staged: Staged, slot: bool, keep: list[int]) -> str:
        """Into the host caches of all workers, or of none. Raises `Rejected`."""
        try:
            told = set(await self._ask("take", lora_id, staged.path, slot, keep))
            if "pinning" in told:
                while not all(await self._ask("pinned", lora_id)):  # noqa: ASYNC110 - other processes know
                    await asyncio.sleep(_PINNED_AGAIN_S)
                told = set(await self._ask("commit", lora_id, slot, keep))
        except BaseException as error:
            await self._ask("drop", lora_id)
            await self._client.remove_lora(lora_id)
            if isinstance(error, Exception):  # vLLM raises bare `Exception` for what went wrong in its workers
                raise Rejected(500, str(error)) from error
            raise
        return told.pop() if len(told) == 1 else "filling"

    async def activate(self, name: str, keep: Sequence[str]) -> bool:
        """Raises `Rejected` where the engine does not have it."""
        return await self._fill(self._id(name), self._ids(keep))

    async def _fill(self, lora_id: int, keep: list[int]) -> bool:
        if self._stager is None:
            return False
        loop = asyncio.get_running_loop()
        async with self._filling:
            told_at = loop.time()
            while True:
                told = set(await self._ask("fill", lora_id, keep))
                if told == {"active"}:
                    return True
                if "no slot" in told:
                    return False
                if "gone" in told:
                    raise Rejected(404, "The engine has dropped its weights.")
                now = loop.time()
                pause_s, told_at = min(max((now - told_at) / 4, _LEAST_PAUSE_S), _MOST_PAUSE_S), now
                await asyncio.sleep(pause_s)

    async def deactivate(self, name: str) -> bool:
        return all(await self._ask("deactivate", self._id(name)))

    async def pin(self, name: str, tier: str, keep: Sequence[str]) -> None:
        lora_id = self._id(name)
        if self._stager is None:
            return
        if tier == "gpu":
            await self._fill(lora_id, self._ids(keep))
        faults = [fault for fault in await self._ask("pin", lora_id, tier) if fault]
        if faults:
            await self._ask("unpin", lora_id)
            raise Rejected(409, f"{name} can not be pinned: {faults[0]}.")

    async def unpin(self, name: str) -> None:
        request = self._models.lora_requests.get(name)
        if request is not None:
            await self._ask("unpin", request.lora_int_id)

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

    # --- the workers ---

    async def _holdings(self) -> list[Any]:
        """What each worker holds, after this was called. Who asks while somebody else's look has not begun shares it:
        each one keeps the next step waiting a little."""
        if self._next_look is None:
            self._next_look = asyncio.create_task(self._look())
        return await asyncio.shield(self._next_look)

    async def _look(self) -> list[Any]:
        async with self._looking:
            self._next_look = None
            return await self._ask("holdings")

    async def _ask(self, method: str, *args: Any) -> list[Any]:
        """One answer of each worker."""
        answers: list[Any] = await self._client.collective_rpc(worker.rpc(method), args=args)
        return answers

    def _id(self, name: str) -> int:
        request = self._models.lora_requests.get(name)
        if request is None:
            raise _unknown(name)
        return int(request.lora_int_id)

    def _ids(self, names: Collection[str]) -> list[int]:
        found = (self._models.lora_requests.get(name) for name in names)
        return [request.lora_int_id for request in found if request is not None]


def _unknown(name: str) -> Rejected:
    return Rejected(404, f"The engine has no adapter {name!r}.")
