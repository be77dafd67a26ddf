"""Where a vLLM keeps its adapters, which it does not tell: by the order in which they were used. Pure."""

from collections.abc import Hashable
from typing import Literal

Kept = Literal["gpu", "cpu", "disk"]


class UseOrder:
    """vLLM keeps the last used `in_memory` adapters, and the last `slots` of them in its slots
    (`LRUCacheWorkerLoRAManager` of vLLM 0.32: a load counts as a use). True where one request is asked at a time."""

    def __init__(self, slots: int, in_memory: int) -> None:
        self._slots = slots
        self._in_memory = in_memory
        self._last_first: list[Hashable] = []

    def used(self, adapter: Hashable) -> None:
        if adapter in self._last_first:
            self._last_first.remove(adapter)
        self._last_first.insert(0, adapter)
        del self._last_first[self._in_memory :]

    def where(self, adapter: Hashable) -> Kept:
        if adapter not in self._last_first:
            return "disk"
        return "gpu" if self._last_first.index(adapter) < self._slots else "cpu"
