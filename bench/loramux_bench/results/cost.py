"""What the replicas cost that the endpoint held while it was measured."""

from collections.abc import Iterable

import msgspec

from loramux_bench.run_dir import Sample
from loramux_bench.scenario import Cost as Price

UNBILLED = frozenset({"stopped"})
"""States in which a replica holds no machine. One that starts, drains or has failed holds its accelerator as much as a
ready one does, so it is paid for."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """In `currency`."""

    currency: str
    price_per_replica_hour: float
    replica_hours: float
    source: str
    """`samples`: the number of replicas over time, as the endpoint said; `scenario`: `cost.replicas`."""
    total: float
    per_1000_requests: float | None
    """Answered ones; None where there was none."""
    per_million_output_tokens: float | None


def cost(
    price: Price, samples: Iterable[Sample], *, from_s: float, to_s: float, answered: int, output_tokens: int
) -> Cost | None:
    """Over the measured time. None without a price, and where neither the endpoint nor the scenario says how many
    replicas there were."""
    if price.price_per_replica_hour == 0:
        return None
    hours = replica_hours(samples, from_s=from_s, to_s=to_s)
    source = "samples"
    if hours is None:
        if price.replicas is None:
            return None
        hours, source = price.replicas * (to_s - from_s) / 3600, "scenario"
    total = hours * price.price_per_replica_hour
    return Cost(
        currency=price.currency,
        price_per_replica_hour=price.price_per_replica_hour,
        replica_hours=hours,
        source=source,
        total=total,
        per_1000_requests=1000 * total / answered if answered else None,
        per_million_output_tokens=1e6 * total / output_tokens if output_tokens else None,
    )


def replica_hours(samples: Iterable[Sample], *, from_s: float, to_s: float) -> float | None:
    """The integral of the number of paid replicas. What a sample says holds until the next; the first also before it,
    the last also after it. None where no sample says."""
    steps = sorted(
        (sample.at_s, sum(state not in UNBILLED for state in sample.replicas.values()))
        for sample in samples
        if sample.replicas is not None
    )
    if not steps:
        return None
    starts = [from_s, *(at_s for at_s, _ in steps[1:])]
    ends = [*starts[1:], to_s]
    replica_s = sum(
        count * max(0.0, min(end, to_s) - max(start, from_s))
        for (_, count), start, end in zip(steps, starts, ends, strict=True)
    )
    return replica_s / 3600
