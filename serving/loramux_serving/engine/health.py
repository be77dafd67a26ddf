"""Whether an engine answers, for engines that loramux runs and for those that somebody else runs."""

import asyncio
from collections.abc import Callable
from enum import Enum

import httpx

from loramux_serving.engine.replica import EngineReplica

CHECK_TIMEOUT_S = 5.0
"""Longest time for one check. vLLM answers `/health` from its event loop, which a busy machine may hold up."""
FAILURES = 3
"""Checks in a row without an answer after which an engine counts as hung."""
START_INTERVAL_S = 0.25
"""Pause between the checks of an engine that starts."""


class Health(Enum):
    WELL = "it answers"
    SILENT = "it does not answer its health check"
    GONE = "its port refuses connections"
    ILL = "it reports that it is not healthy"


class HealthWatch:
    """Checks one replica's engine with `GET /health`, and at the start `GET /v1/models`."""

    def __init__(self, replica: EngineReplica, client: httpx.AsyncClient, *, interval_s: float) -> None:
        self._replica = replica
        self._client = client
        self._interval_s = interval_s
        self._nudge = asyncio.Event()
        replica.when_suspected(self._nudge.set)

    async def until_well(self, tell: Callable[[Health], None]) -> None:
        """Returns when the engine answers and knows its models. Never gives up; `tell` is given what was found
        instead."""
        while True:
            found = await self._check("/health")
            if found is Health.WELL:
                found = await self._check("/v1/models")
            if found is Health.WELL:
                return
            tell(found)
            await self._pause(START_INTERVAL_S)

    async def until_ill(self) -> Health:
        """Returns the finding when the engine refuses connections, reports illness, or was silent `FAILURES` times.
        Looks each `interval_s`, at once after `suspect()`, and again without pause while there is doubt."""
        silent = 0
        while True:
            found = await self._check("/health")
            if found in (Health.GONE, Health.ILL):
                return found
            silent = silent + 1 if found is Health.SILENT else 0
            if silent == FAILURES:
                return found
            await self._pause(START_INTERVAL_S if silent else self._interval_s)

    async def _check(self, path: str) -> Health:
        try:
            response = await self._client.get(self._replica.url + path, timeout=CHECK_TIMEOUT_S)
        except httpx.ConnectError:
            return Health.GONE
        except httpx.HTTPError:
            return Health.SILENT
        return Health.WELL if response.is_success else Health.ILL

    async def _pause(self, seconds: float) -> None:
        """Cut short by `suspect()`, also by one during the check before, of which nobody knows what it saw."""
        try:
            await asyncio.wait_for(self._nudge.wait(), seconds)
        except TimeoutError:
            return
        self._nudge.clear()
