"""How much each adapter was used since the gateway started."""

from collections.abc import Collection
from dataclasses import dataclass

from loramux_adapters.ports import Clock
from loramux_serving.relay.ports import Recorder
from loramux_serving.relay.record import RequestRecord


@dataclass(slots=True)
class Use:
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    last_used_at: float | None = None
    """Unix seconds."""


class UsageLedger:
    """A `relay.ports.Recorder` that counts and hands on to the next one."""

    def __init__(self, clock: Clock, then: Recorder) -> None:
        self._clock = clock
        self._then = then
        self._uses: dict[str, Use] = {}

    def record(self, record: RequestRecord) -> None:
        if record.adapter is not None:
            use = self._uses.get(record.adapter)
            if use is None:
                use = self._uses[record.adapter] = Use()
            use.requests += 1
            use.prompt_tokens += record.prompt_tokens
            use.completion_tokens += record.completion_tokens
            use.last_used_at = self._clock.now()
        self._then.record(record)

    def use(self, adapter: str) -> Use:
        return self._uses.get(adapter, Use())

    def keep(self, adapters: Collection[str]) -> None:
        """Forget all others."""
        for gone in self._uses.keys() - set(adapters):
            del self._uses[gone]
