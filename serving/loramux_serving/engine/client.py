"""One replica's engine over HTTP: our plugin's routes where they are there, else vLLM's own."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import httpx

from loramux_adapters.errors import EngineFailed, EngineRejected, EngineTimeout, EngineUnavailable
from loramux_adapters.model import Capabilities, Resident, Tier

_PLUGIN = "/loramux/v1"
_RETRY_AFTER_S = 2.0
_TIMEOUT_S = 30.0
_MAX_REASON_CHARS = 400


class Address(Protocol):
    """The replica whose engine this is; its address may change between calls."""

    @property
    def id(self) -> str: ...

    @property
    def url(self) -> str: ...


class VllmEngine:
    """`ports.LoraEngine`. `assumed` is what is reported of an engine without our plugin, which does not tell; `evict`
    is then false, as vLLM's own unload only forgets the name."""

    def __init__(
        self, replica: Address, client: httpx.AsyncClient, *, assumed: Capabilities, load_timeout_s: float
    ) -> None:
        self._replica = replica
        self._client = client
        self._assumed = assumed
        self._load_timeout_s = load_timeout_s
        self._plugin: bool | None = None

    @property
    def replica_id(self) -> str:
        return self._replica.id

    async def capabilities(self) -> Capabilities:
        """See `ports.LoraEngine`. Looks anew whether the engine has the plugin."""
        response = await self._call("GET", f"{_PLUGIN}/engine")
        self._plugin = response.is_success
        if response.status_code == 404:
            return Capabilities(
                dynamic_lora=self._assumed.dynamic_lora,
                max_loras=self._assumed.max_loras,
                max_cpu_loras=self._assumed.max_cpu_loras,
                max_lora_rank=self._assumed.max_lora_rank,
                evict=False,
                staging=False,
                version=await self._version(),
            )
        said = self._object(response)
        with self._reading(response):
            return Capabilities(
                dynamic_lora=bool(said["dynamic_lora"]),
                max_loras=int(said["max_loras"]),
                max_cpu_loras=int(said["max_cpu_loras"]),
                max_lora_rank=int(said["max_lora_rank"]),
                evict=bool(said["evict"]),
                staging=bool(said["staging"]),
                version=str(said["vllm_version"]),
            )

    async def load(self, engine_name: str, path: Path, *, tier: Tier = Tier.GPU, keep: Collection[str] = ()) -> None:
        if await self._has_plugin():
            order = {"name": engine_name, "path": str(path), "tier": tier.value, "keep": sorted(keep)}
            response = await self._post(f"{_PLUGIN}/adapters", order)
        else:
            if (loaded := (await self._models()).get(engine_name)) == str(path):
                return
            if loaded is not None:
                await self.evict(engine_name)
            response = await self._post("/v1/load_lora_adapter", {"lora_name": engine_name, "lora_path": str(path)})
            if response.status_code == 400 and (await self._models()).get(engine_name) == str(path):
                return  # another caller was faster
        await self._require(response, f"The engine refused the adapter {engine_name!r}")

    async def activate(self, engine_name: str, *, keep: Collection[str] = ()) -> bool:
        if not await self._has_plugin():
            if engine_name not in await self._models():
                raise EngineRejected(f"The engine has no adapter {engine_name!r}.")
            return False
        response = await self._post(_of(engine_name, "activate"), {"keep": sorted(keep)})
        await self._require(response, f"The engine did not activate the adapter {engine_name!r}")
        return bool(self._object(response).get("active"))

    async def deactivate(self, engine_name: str) -> None:
        if await self._has_plugin():
            response = await self._post(_of(engine_name, "deactivate"), {})
            if response.status_code != 404:
                await self._require(response, f"The engine did not deactivate the adapter {engine_name!r}")

    async def pin(self, engine_name: str, tier: Tier) -> None:
        if not await self._has_plugin():
            if engine_name not in await self._models():
                raise EngineRejected(f"The engine has no adapter {engine_name!r}.")
            return
        response = await self._post(_of(engine_name, "pin"), {"tier": tier.value})
        await self._require(response, f"The engine did not pin the adapter {engine_name!r}")

    async def unpin(self, engine_name: str) -> None:
        if await self._has_plugin():
            response = await self._post(_of(engine_name, "unpin"), {})
            await self._require(response, f"The engine did not unpin the adapter {engine_name!r}")

    async def evict(self, engine_name: str) -> None:
        if await self._has_plugin():
            response = await self._call("DELETE", _of(engine_name))
        else:
            response = await self._post("/v1/unload_lora_adapter", {"lora_name": engine_name})
        if response.status_code != 404:
            await self._require(response, f"The engine did not free the adapter {engine_name!r}")

    async def residents(self) -> Sequence[Resident]:
        """See `ports.LoraEngine`. A name whose weights the engine has dropped from its caches is on `disk`; of an
        engine without the plugin, every name counts as held."""
        if not await self._has_plugin():
            return [Resident(name, Tier.CPU, path) for name, path in (await self._models()).items()]
        response = await self._call("GET", f"{_PLUGIN}/adapters")
        await self._require(response, "The engine did not list its adapters")
        with self._reading(response):
            return [_resident(held) for held in response.json()]

    async def _has_plugin(self) -> bool:
        if self._plugin is None:
            await self.capabilities()
        return bool(self._plugin)

    async def _version(self) -> str:
        response = await self._call("GET", "/version")
        return str(self._object(response).get("version", "")) if response.is_success else ""

    async def _models(self) -> dict[str, str]:
        """Path by name of the adapters that answer."""
        response = await self._call("GET", "/v1/models")
        with self._reading(response):
            return {
                model["id"]: model.get("root") or ""
                for model in self._object(response)["data"]
                if model.get("parent") is not None
            }

    async def _post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return await self._call("POST", path, body, timeout_s=self._load_timeout_s)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = _TIMEOUT_S
    ) -> httpx.Response:
        """The only place that knows httpx's exceptions."""
        try:
            return await self._client.request(method, self._replica.url + path, json=body, timeout=timeout_s)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise EngineUnavailable(
                f"The engine of {self.replica_id} can not be reached.", retry_after_s=_RETRY_AFTER_S
            ) from error
        except httpx.TimeoutException as error:
            raise EngineTimeout(
                f"The engine of {self.replica_id} did not answer within {timeout_s:g} s.",
                retry_after_s=_RETRY_AFTER_S,
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EngineFailed(
                f"The connection to the engine of {self.replica_id} broke off.", retry_after_s=_RETRY_AFTER_S
            ) from error

    async def _require(self, response: httpx.Response, what: str) -> None:
        """Raises `EngineRejected` for a refusal, and `EngineFailed` where the engine itself is not well: vLLM answers
        500 for both."""
        if response.is_success:
            return
        if response.status_code >= 500 and not (await self._call("GET", "/health")).is_success:
            raise EngineFailed(f"The engine of {self.replica_id} failed.", retry_after_s=_RETRY_AFTER_S)
        raise EngineRejected(f"{what}: {_reason(response)}", details={"status": response.status_code})

    def _object(self, response: httpx.Response) -> dict[str, Any]:
        with self._reading(response):
            if not response.is_success:
                raise ValueError("not a success")
            said = response.json()
            if not isinstance(said, dict):
                raise TypeError("not an object")
            return said

    @contextmanager
    def _reading(self, response: httpx.Response) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EngineFailed(
                f"The engine of {self.replica_id} answered {response.request.url.path} with status "
                f"{response.status_code} and nothing that can be read.",
                retry_after_s=_RETRY_AFTER_S,
            ) from error


def _of(engine_name: str, action: str = "") -> str:
    path = f"{_PLUGIN}/adapters/{quote(engine_name, safe='')}"
    return f"{path}/{action}" if action else path


def _resident(held: dict[str, Any]) -> Resident:
    return Resident(
        engine_name=held["name"],
        tier=Tier(held["tier"]),
        path=held["path"],
        size_bytes=int(held["bytes"]),
        pin=Tier(held["pin"]) if held["pin"] else None,
        recency=int(held["recency"]),
    )


def _reason(response: httpx.Response) -> str:
    """The engine's words, in one line."""
    try:
        said = response.json()
        text = str(said["error"]["message"])
    except (ValueError, TypeError, KeyError):
        text = response.text
    return " ".join(text.split())[:_MAX_REASON_CHARS] or f"status {response.status_code}"
