"""An engine in memory. It passes `tests/contract/test_lora_engine.py`."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loramux_adapters.errors import EngineError, EngineRejected, EngineUnavailable
from loramux_adapters.model import Capabilities, Resident, Tier


class FakeEngine:
    """`ports.LoraEngine` with switches: `delay_s` for each load, `failures` by engine name, `up`, and `sizes` by engine
    name, in bytes (else 1). `able.staging` false makes it an engine that tells nothing apart: a load goes into a slot.

    `held` has the path of each name that answers; `slots` those in slots, the least recently used first; `pins` what
    the engine itself keeps. What of `held` is not in host memory any more, as vLLM's own cache let it fall, is in
    `dropped`.

    `calls` counts `load:<name>`, `evict:<name>` and so on, and the plain method names. `loading` is how many loads are
    under way, `most_loading` the most there were at a time.
    """

    def __init__(
        self, replica_id: str = "engine-0", capabilities: Capabilities | None = None, *, staging: bool = True
    ) -> None:
        self._replica_id = replica_id
        self.able = capabilities or Capabilities(
            dynamic_lora=True,
            max_loras=8,
            max_cpu_loras=32,
            max_lora_rank=16,
            evict=True,
            staging=staging,
            version="fake",
        )
        self.held: dict[str, str] = {}
        self.slots: list[str] = []
        self.running: Counter[str] = Counter()
        self.pins: dict[str, Tier] = {}
        self.dropped: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.delay_s = 0.0
        self.failures: dict[str, EngineError] = {}
        self.up = True
        self.calls: Counter[str] = Counter()
        self.loading = 0
        self.most_loading = 0
        self._used: list[str] = []
        self._process = 0

    @property
    def replica_id(self) -> str:
        return self._replica_id

    async def capabilities(self) -> Capabilities:
        self._begin("capabilities")
        return self.able

    async def load(self, engine_name: str, path: Path, *, tier: Tier = Tier.GPU, keep: Collection[str] = ()) -> None:
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
        if self.held.get(engine_name) != str(path) and engine_name in self.slots:
            self.slots.remove(engine_name)
        self.held[engine_name] = str(path)
        self.dropped.discard(engine_name)
        self._touch(engine_name)
        self._drop()
        if tier is Tier.GPU or not self.able.staging:
            self._into_slot(engine_name, keep)

    async def activate(self, engine_name: str, *, keep: Collection[str] = ()) -> bool:
        self._begin("activate", engine_name)
        await asyncio.sleep(0)
        self._check_up()
        if not self.able.staging:
            return False
        self._require(engine_name)
        self._touch(engine_name)
        return self._into_slot(engine_name, keep)

    async def deactivate(self, engine_name: str) -> None:
        self._begin("deactivate", engine_name)
        await asyncio.sleep(0)
        self._check_up()
        pinned = self.pins.get(engine_name) is Tier.GPU
        if self.able.staging and engine_name in self.slots and not pinned and not self.running[engine_name]:
            self.slots.remove(engine_name)

    async def pin(self, engine_name: str, tier: Tier) -> None:
        self._begin("pin", engine_name)
        await asyncio.sleep(0)
        self._check_up()
        if not self.able.staging:
            return
        self._require(engine_name)
        if tier is Tier.GPU:
            others = [name for name, pin in self.pins.items() if pin is Tier.GPU and name != engine_name]
            if len(others) >= self.able.max_loras - 1:
                raise EngineRejected(f"The engine did not pin {engine_name!r}: {len(others)} are pinned in slots.")
            if not self._into_slot(engine_name, ()):
                raise EngineRejected(f"The engine did not pin {engine_name!r}: it is in no slot.")
        self.pins[engine_name] = tier

    async def unpin(self, engine_name: str) -> None:
        self._begin("unpin", engine_name)
        await asyncio.sleep(0)
        self._check_up()
        self.pins.pop(engine_name, None)

    async def evict(self, engine_name: str) -> None:
        self._begin("evict", engine_name)
        await asyncio.sleep(0)
        self._check_up()
        self.held.pop(engine_name, None)
        self.pins.pop(engine_name, None)
        self.dropped.discard(engine_name)
        if engine_name in self.slots:
            self.slots.remove(engine_name)
        if engine_name in self._used:
            self._used.remove(engine_name)

    async def residents(self) -> Sequence[Resident]:
        self._begin("residents")
        return [
            Resident(
                name,
                self._tier(name),
                path,
                size_bytes=self.sizes.get(name, 1) if self.able.staging else 0,
                pin=self.pins.get(name),
                recency=self._recency(name),
            )
            for name, path in self.held.items()
        ]

    # --- what a test does ---

    @contextmanager
    def step(self, engine_name: str) -> Iterator[bool]:
        """A request's step, as vLLM's scheduler and worker do it: the adapter is moved into a slot, from another that
        does not run if need be, and runs. False where it has to wait. Raises `KeyError` where the engine does not know
        it."""
        self.held[engine_name]
        self.dropped.discard(engine_name)
        self._touch(engine_name)
        process = self._process
        runs = self._into_slot(engine_name, ())
        if runs:
            self.running[engine_name] += 1
        try:
            yield runs
        finally:
            if runs and process == self._process:
                self.running[engine_name] -= 1

    def restart(self) -> None:
        """As a new process would be: up, and empty."""
        self.up = True
        self._process += 1
        for kept in (self.held, self.pins, self.running, self.slots, self.dropped, self._used):
            kept.clear()

    # --- inside ---

    def _tier(self, name: str) -> Tier:
        if name in self.dropped:
            return Tier.DISK
        return Tier.GPU if name in self.slots else Tier.CPU

    def _recency(self, name: str) -> int:
        used = self.slots if name in self.slots else self._used
        return used.index(name) if name in used else 0

    def _touch(self, name: str) -> None:
        if name in self._used:
            self._used.remove(name)
        self._used.append(name)

    def _drop(self) -> None:
        """More than fits: what was used the longest time ago falls, as in vLLM's own cache."""
        there = [name for name in self._used if name in self.held and name not in self.dropped]
        surplus = len(there) - self.able.max_cpu_loras
        for name in [name for name in there if name not in self.pins and not self.running[name]][: max(0, surplus)]:
            self.dropped.add(name)
            if name in self.slots:
                self.slots.remove(name)

    def _into_slot(self, name: str, keep: Collection[str]) -> bool:
        if name in self.slots:
            self.slots.remove(name)
        elif len(self.slots) >= self.able.max_loras:
            victim = next(
                (
                    other
                    for other in self.slots
                    if other not in keep and self.pins.get(other) is not Tier.GPU and not self.running[other]
                ),
                None,
            )
            if victim is None:
                return False
            self.slots.remove(victim)
        self.slots.append(name)
        return True

    def _require(self, name: str) -> None:
        if name not in self.held or name in self.dropped:
            raise EngineRejected(f"The engine does not have the adapter {name!r}.")

    def _begin(self, method: str, engine_name: str | None = None) -> None:
        self.calls[method] += 1
        if engine_name is not None:
            self.calls[f"{method}:{engine_name}"] += 1
        self._check_up()

    def _check_up(self) -> None:
        if not self.up:
            raise EngineUnavailable(f"The engine of {self._replica_id} can not be reached.", retry_after_s=1.0)
