"""Which replica takes a request. Pure; DESIGN section 2, step 5."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica as routing sees it. `resident`: its engine holds the target, or the target is the base."""

    id: str
    ready: bool
    resident: bool
    outstanding: int


def choose(candidates: Sequence[Candidate], *, avoid: Collection[str] = (), turn: int = 0) -> str | None:
    """The id of the best candidate, or None where none is ready.

    One that is not in `avoid` before one that is, one that holds the target before one that does not, then the one
    with the fewest outstanding requests; between equals `turn`, a number that grows with each call, goes round.
    """
    ready = [candidate for candidate in candidates if candidate.ready]
    if not ready:
        return None
    best = min(_order(candidate, avoid) for candidate in ready)
    equals = [candidate for candidate in ready if _order(candidate, avoid) == best]
    return equals[turn % len(equals)].id


def _order(candidate: Candidate, avoid: Collection[str]) -> tuple[bool, bool, int]:
    return candidate.id in avoid, not candidate.resident, candidate.outstanding
