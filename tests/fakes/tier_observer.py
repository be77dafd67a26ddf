"""Who hears of moves between tiers, and remembers them."""

from loramux_adapters.model import Tier
from loramux_adapters.ports import LoadOutcome


class FakeObserver:
    """`ports.TierObserver` that keeps what it heard, in order."""

    def __init__(self) -> None:
        self.loads: list[tuple[Tier, Tier, LoadOutcome]] = []
        self.evictions: list[tuple[Tier, str]] = []

    def adapter_loaded(self, source: Tier, target: Tier, outcome: LoadOutcome, seconds: float) -> None:
        assert seconds >= 0
        self.loads.append((source, target, outcome))

    def adapter_evicted(self, tier: Tier, reason: str, seconds: float | None = None) -> None:
        assert (seconds is None) == (tier is Tier.GPU)
        self.evictions.append((tier, reason))

    def left(self, tier: Tier) -> list[str]:
        """Why something left the tier, each time."""
        return [reason for left, reason in self.evictions if left is tier]
