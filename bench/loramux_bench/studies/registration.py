"""Adapters from directories, brought to an endpoint some at a time: to loramux, or to a vLLM as it comes.

vLLM's way: https://docs.vllm.ai/en/stable/features/lora/#dynamically-serving-lora-adapters
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

import httpx

from loramux_bench.admin.answers import fault_of
from loramux_bench.admin.client import ADMIN
from loramux_bench.bearer import bearer
from loramux_bench.errors import EndpointError

_LONGEST_S = 900.0


class Registration:
    """A context manager; below asyncio. With `admin_key` the endpoint is loramux, without it a vLLM."""

    def __init__(
        self, url: str, admin_key: str = "", *, at_a_time: int = 4, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._loramux = bool(admin_key)
        self._at_a_time = at_a_time
        self._http = httpx.AsyncClient(
            base_url=url, headers=bearer(admin_key), timeout=_LONGEST_S, transport=transport, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def add(self, adapters: Mapping[str, Path]) -> float:
        """By name, their directories. Returns when all of them can be asked for: the seconds that it took. Raises
        `EndpointError` with the first refusal."""
        began = time.perf_counter()
        left = iter(adapters.items())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._at_a_time, len(adapters))):
                    group.create_task(self._add_some(left))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return time.perf_counter() - began

    async def prefetch(self, names: Iterable[str], tier: Literal["disk", "cpu", "gpu"]) -> None:
        """loramux: move them up to this tier, one after the other. Raises `EndpointError`."""
        for name in names:
            await self._post(f"{ADMIN}/adapters/{quote(name, safe='')}/prefetch", {"tier": tier})

    async def _add_some(self, left: Iterator[tuple[str, Path]]) -> None:
        for name, directory in left:
            source = str(directory.absolute())
            if self._loramux:
                await self._post(f"{ADMIN}/adapters", {"name": name, "source": source, "wait": True})
            else:
                await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": source})

    async def _post(self, path: str, body: dict[str, object]) -> None:
        try:
            answer = await self._http.post(path, json=body)
        except httpx.HTTPError as error:
            raise EndpointError(f"{self._http.base_url} did not answer {path}: {error!r}.") from error
        if not answer.is_success:
            code, message = fault_of(answer.content)
            raise EndpointError(f"{path} was refused with {answer.status_code} {code}: {message or answer.text[:500]}")
