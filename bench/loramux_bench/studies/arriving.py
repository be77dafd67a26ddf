"""The ways in which a cold adapter comes to an engine that is at work."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import httpx

from loramux_bench.admin.artifact import WEIGHTS
from loramux_bench.admin.client import ADMIN
from loramux_bench.studies.calls import call


class Way(Protocol):
    """How the adapter with a number comes, round and round through more adapters than the engine holds."""

    def files(self, number: int) -> Sequence[Path]:
        """What will be read for it."""

    async def arrive(self, number: int) -> None:
        """Returns when it can be asked for, or has answered. Raises `Refused`."""

    async def leave(self, number: int) -> None:
        """What is left to do after it; not timed. Raises `Refused`."""


class PlainLoad:
    """`POST /v1/load_lora_adapter` of a vLLM, each time under a name of its own, so that it is a load each time. The
    name goes right after it; the weights stay until others push them out, as ever in vLLM."""

    def __init__(self, http: httpx.AsyncClient, adapters: Mapping[str, Path]) -> None:
        self._http = http
        self._paths = list(adapters.values())

    def files(self, number: int) -> Sequence[Path]:
        return (self._path(number) / WEIGHTS,)

    async def arrive(self, number: int) -> None:
        path = str(self._path(number).absolute())
        await call(self._http, "POST", "/v1/load_lora_adapter", {"lora_name": f"load-{number}", "lora_path": path})

    async def leave(self, number: int) -> None:
        await call(self._http, "POST", "/v1/unload_lora_adapter", {"lora_name": f"load-{number}"})

    def _path(self, number: int) -> Path:
        return self._paths[number % len(self._paths)]


class OneToken:
    """A request for one token of an adapter that the endpoint knows and the engine has lost: a vLLM loads it inside its
    step, loramux before it."""

    def __init__(self, http: httpx.AsyncClient, weights: Mapping[str, Path]) -> None:
        """`weights` are the files that are read, by the adapter's name."""
        self._http = http
        self._names = list(weights)
        self._weights = weights

    def files(self, number: int) -> Sequence[Path]:
        return (self._weights[self._name(number)],)

    async def arrive(self, number: int) -> None:
        body = {"model": self._name(number), "prompt": f"Guest {number}:", "max_tokens": 1, "temperature": 0.0}
        await call(self._http, "POST", "/v1/completions", body)

    async def leave(self, number: int) -> None:
        pass

    def _name(self, number: int) -> str:
        return self._names[number % len(self._names)]


class Prefetch(OneToken):
    """loramux' `POST /admin/v1/adapters/{name}/prefetch` to the accelerator of an adapter that is on disk only."""

    async def arrive(self, number: int) -> None:
        await call(
            self._http, "POST", f"{ADMIN}/adapters/{quote(self._name(number), safe='')}/prefetch", {"tier": "gpu"}
        )
