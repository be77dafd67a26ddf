"""Which replica takes a request. Pure; DESIGN section 2, step 5."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from loramux_adapters.model import Tier

SPREAD_FACTOR = 2.0
SPREAD_MARGIN = 8
"""A replica with more outstanding requests than this many times those of the least busy, and so many more, is busy: the
target is rather loaded elsewhere too."""

_NOT_HELD = Tier.DISK.depth


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica as routing sees it. `tier` is where the target's weights are there: `GPU` in a slot (so is the base
    everywhere), `CPU` in host memory, None or less where they would have to be loaded. `adapters` is how many others
    have requests there, and `slots` how many adapters can have some at a time."""

    id: str
    ready: bool
    tier: Tier | None
    outstanding: int
    adapters: int = 0
    slots: int = 1

    @property
    def crowded(self) -> bool:
        """The target would have to wait until another adapter has nothing to do there."""
        return self.adapters >= self.slots


def choose(candidates: Sequence[Candidate], *, avoid: Collection[str] = (), turn: int = 0) -> str | None:
    """The id of the best candidate, or None where none is ready.

    One that is not in `avoid` before one that is, one that has room for the target before one that is crowded, one
    that is not busy before one that is (see `SPREAD_FACTOR`), then the one that has the target in the better tier. A
    target in no slot goes where the fewest adapters run. Then the fewest outstanding requests; between equals `turn`,
    a number that grows with each call, goes round.
    """
    ready = [candidate for candidate in candidates if candidate.ready]
    if len(ready) < 2:
        return ready[0].id if ready else None
    usable = [candidate.outstanding for candidate in ready if candidate.id not in avoid and not candidate.crowded]
    busy_above = SPREAD_FACTOR * min(usable, default=0) + SPREAD_MARGIN
    ranks = [_rank(candidate, avoid, busy_above) for candidate in ready]
    best = min(ranks)
    equals = [candidate for candidate, rank in zip(ready, ranks, strict=True) if rank == best]
    return equals[turn % len(equals)].id


def _rank(candidate: Candidate, avoid: Collection[str], busy_above: float) -> tuple[bool, bool, bool, int, int, int]:
    tier = candidate.tier
    depth = _NOT_HELD if tier is None or tier.depth > _NOT_HELD else tier.depth
    return (
        candidate.id in avoid,
        candidate.crowded,
        candidate.outstanding > busy_above,
        depth,
        candidate.adapters if depth else 0,  # in a slot, it is not one more
        candidate.outstanding,
    )
