"""An engine in memory. It passes `tests/contract/test_lora_engine.py`."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from loramux_adapters.errors import EngineError, EngineRejected, EngineUnavailable
from loramux_adapters.model import Capabilities, Resident, Tier


class FakeEngine:
    """`ports.LoraEngine` with switches: `delay_s` for each load, `failures` by engine name, `up`.

    `calls` counts `load:<name>`, `evict:<name>` and the plain method names. `loading` is how many loads are under
    way, `most_loading` the most there were at a time.
    """

    def __init__(self, replica_id: str = "engine-0", capabilities: Capabilities | None = None) -> None:
        self._replica_id = replica_id
        self.able = capabilities or Capabilities(
            dynamic_lora=True, max_loras=8, max_cpu_loras=32, max_lora_rank=16, evict=True, version="fake"
        )
        self.held: dict[str, str] = {}
        self.delay_s = 0.0
        self.failures: dict[str, EngineError] = {}
        self.up = True
        self.calls: Counter[str] = Counter()
        self.loading = 0
        self.most_loading = 0

    @property
    def replica_id(self) -> str:
        return self._replica_id

    async def capabilities(self) -> Capabilities:
        self._begin("capabilities")
        return self.able

    async def load(self, engine_name: str, path: Path) -> None:
        self._begin("load", engine_name)
        self.loading += 1
        self.most_loading = max(self.most_loading, self.loading)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.loading -= 1
        if engine_name in self.failures:
            raise self.failures[engine_name]
        if not (path / "adapter_config.json").is_file():
            raise EngineRejected(f"The engine refused the adapter {engine_name!r}: there is nothing at {path}.")
        self._check_up()
        self.held[engine_name] = str(path)

    async def evict(self, engine_name: str) -> None:
        self._begin("evict", engine_name)
        await asyncio.sleep(0)
        self._check_up()
        self.held.pop(engine_name, None)

    async def residents(self) -> Sequence[Resident]:
        self._begin("residents")
        return [Resident(name, Tier.CPU, path) for name, path in self.held.items()]

    def restart(self) -> None:
        """As a new process would be: up, and empty."""
        self.up = True
        self.held.clear()

    def _begin(self, method: str, engine_name: str | None = None) -> None:
        self.calls[method] += 1
        if engine_name is not None:
            self.calls[f"{method}:{engine_name}"] += 1
        self._check_up()

    def _check_up(self) -> None:
        if not self.up:
            raise EngineUnavailable(f"The engine of {self._replica_id} can not be reached.", retry_after_s=1.0)
