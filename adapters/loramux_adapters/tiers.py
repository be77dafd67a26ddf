"""What has to leave a tier so that something else fits. Pure: a snapshot in, a decision out."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """One adapter in a tier. `last_used` is the clock's monotonic seconds."""

    engine_name: str
    leases: int
    pinned: bool
    last_used: float

    @property
    def may_leave(self) -> bool:
        return self.leases == 0 and not self.pinned


@dataclass(frozen=True, slots=True)
class Room:
    """`evict` leaves, in this order. `fits` is false where even then there is no room: somebody must let go."""

    evict: tuple[str, ...]
    fits: bool


def make_room(places: Iterable[Place], capacity: int, incoming: int = 1) -> Room:
    """The least recently used places that must leave so that `incoming` more fit into `capacity`. Nothing leased or
    pinned leaves, and nothing leaves where that would not be enough."""
    held = list(places)
    surplus = len(held) + incoming - capacity
    if surplus <= 0:
        return Room((), True)
    free = sorted((place for place in held if place.may_leave), key=lambda place: place.last_used)
    if len(free) < surplus:
        return Room((), False)
    return Room(tuple(place.engine_name for place in free[:surplus]), True)
