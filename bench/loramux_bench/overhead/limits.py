"""When a figure says more about the mock or the generator than about what was measured. Pure."""

from typing import TypeVar

from loramux_bench.overhead import rounds
from loramux_bench.overhead.rounds import Figure, Rounds
from loramux_bench.overhead.side import DIRECT
from loramux_bench.overhead.usage import Usage

T = TypeVar("T")

NEAR_DIRECT = 0.8
"""Share of what the engine does by itself above which it may be the limit."""
BUSY = 0.9
"""Share of its core above which something had no time left."""
NOISE = 0.05
"""Most of a core that the sides that wait may take from the one that is measured."""

FOREIGN = 0.1
"""Likewise, by what is no part of the measurement."""

THE_LIMIT = "the mock (or generator) was the limit"


def limits(rate: float, direct_rate: float | None, used: Usage) -> list[str]:
    """Why this rate may not be the side's own; empty where it is. `direct_rate` is that of the same round."""
    found: list[str] = []
    if direct_rate and rate > NEAR_DIRECT * direct_rate:
        found.append(f"{THE_LIMIT}: {rate / direct_rate:.0%} of what it does by itself")
    elif used.engine + used.generator > BUSY and used.side < BUSY:
        found.append(
            f"{THE_LIMIT}: {used.engine + used.generator:.0%} of its core was busy, {used.side:.0%} of the tested one"
        )
    if used.others > NOISE:
        found.append(f"the sides that waited took {used.others:.0%} of a core")
    if used.foreign > FOREIGN:
        found.append(f"something else took {used.foreign:.0%} of the tested core")
    return found


def limited(found: Rounds[T], side: str, rate: Figure[T]) -> tuple[str, ...]:
    """Why the rates of this side may not be its own, in any of its rounds; the worst round of each reason."""
    if side == DIRECT:
        return ()
    direct = rounds.of(found, DIRECT)
    said = [
        reason
        for number, one in rounds.of(found, side).items()
        for reason in limits(rate(one.seen) or 0.0, rate(direct[number].seen) if number in direct else None, one.used)
    ]
    return tuple({_kind(reason): reason for reason in sorted(said)}.values())


def _kind(reason: str) -> str:
    """Without its figures."""
    return "".join(letter for letter in reason.partition(":")[0] if not letter.isdigit())
