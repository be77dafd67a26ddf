"""What moves between the tiers of one replica, and what leaves for it. Pure: a snapshot in, a plan out.

Whoever executes a plan does its first transition and plans anew: meanwhile others came and went, and some of what was
begun failed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from loramux_adapters.model import Tier

WantReason = Literal["request", "version", "pin", "prefetch", "foreseen", "demand"]
"""Who wants an adapter moved up: a request that waits; a version that is about to be live, or a replica that is about
to serve; a pin; somebody who says that it will be needed; a request that will come soon; and the requests of the last
minutes."""
Reason = Literal["request", "version", "pin", "prefetch", "foreseen", "demand", "lru"]

_URGENCY: Mapping[WantReason, int] = {"request": 0, "version": 0, "pin": 1, "prefetch": 2, "foreseen": 3, "demand": 4}

CLEARLY = 2.0
"""Demand moves an adapter up in the place of another only where it is so many times as high. As demand fades alike for
all, the other one comes back only after that many times its own requests more."""


@dataclass(frozen=True, slots=True)
class Place:
    """One adapter on a replica. `tier` is `gpu` (in a slot, and so in host memory), `cpu`, or `disk`: not held.

    `answers` is false where the engine does not know it, but its room is not known to be free. `moving`: a call to
    the engine is under way. `awaited`: it was moved up for a request that has not come yet. `last_used` is the
    clock's monotonic seconds, `demand` requests a second.
    """

    engine_name: str
    tier: Tier
    leases: int = 0
    pin: Tier | None = None
    last_used: float = 0.0
    demand: float = 0.0
    size_bytes: int = 0
    answers: bool = True
    moving: bool = False
    awaited: bool = False


@dataclass(frozen=True, slots=True)
class Want:
    """`number` gives the order of arrival. A `version` takes a slot only where one is free, and waits for none."""

    engine_name: str
    tier: Tier
    reason: WantReason
    number: int = 0

    @property
    def urgency(self) -> tuple[int, int]:
        """The lowest is served first."""
        return _URGENCY[self.reason], self.number

    def met(self, tier: Tier) -> bool:
        """Whether somebody who wants this is served by what is in `tier`."""
        return tier.depth <= (Tier.CPU if self.reason == "version" else self.tier).depth


@dataclass(frozen=True, slots=True)
class Residency:
    """A replica: its `slots`, its `places` in host memory (what is in a slot has one too), what is held, and what is
    wanted."""

    slots: int
    places: int
    held: tuple[Place, ...]
    wants: tuple[Want, ...] = ()


@dataclass(frozen=True, slots=True)
class Transition:
    engine_name: str
    source: Tier
    target: Tier
    reason: Reason


@dataclass(frozen=True, slots=True)
class Plan:
    """`transitions` in this order. `waiting` could not be served, or not wholly: somebody must let go first."""

    transitions: tuple[Transition, ...]
    waiting: tuple[Want, ...]

    def next_for(self, engine_name: str) -> Transition | None:
        """The first step, where the plan leads to more of `engine_name` than there is now."""
        leads = any(each.engine_name == engine_name for each in self.transitions)
        return self.transitions[0] if leads else None


def plan(residency: Residency) -> Plan:
    """Serve the wants in the order of their urgency, as far as there is room or something may leave.

    - Nothing leased, moving, or wanted at least as urgently leaves, and nothing falls below its pin.
    - Of what may leave, that in least demand goes first, then the least recently used.
    - `demand` takes the place only of what is clearly in less demand, and neither it nor `foreseen` that of what is
      awaited.
    - At most `slots - 1` pins count in slots; the others count as pins in host memory.
    - Nothing leaves where that would not be enough.
    """
    return _Planner(residency).plan()


def slot_first(tier: Tier, size_bytes: int, inline_bytes: int) -> bool:
    """Whether a request should wait until its adapter is in a slot. From host memory the engine moves it there itself,
    but within a step that all others wait for: that is for the small ones, of up to `inline_bytes`."""
    return tier is not Tier.GPU and size_bytes > inline_bytes


def most_pins(slots: int) -> int:
    """How many adapters may be pinned in slots: one is left for all the others."""
    return max(0, slots - 1)


def pin_changes(
    wanted: Mapping[str, Tier], pinned: Mapping[str, Tier | None], slots: int
) -> tuple[tuple[str, Tier | None], ...]:
    """What to say to an engine whose pins are `pinned`, by the name of everything that it holds, so that they become
    `wanted`, as far as there are slots. What falls comes first, so that no more are pinned at any time."""
    in_slots = sorted(
        (name for name in pinned if wanted.get(name) is Tier.GPU), key=lambda name: (pinned[name] is not Tier.GPU, name)
    )
    beyond = frozenset(in_slots[most_pins(slots) :])
    goal = {name: Tier.CPU if name in beyond else wanted.get(name) for name in pinned}
    changes = [(name, tier) for name, tier in goal.items() if tier is not pinned[name]]
    return tuple(sorted(changes, key=lambda change: (change[1] is Tier.GPU, change[1] is Tier.CPU, change[0])))


class _Planner:
    """What would be after the transitions so far."""

    def __init__(self, residency: Residency) -> None:
        self._slots = residency.slots
        self._capacity = residency.places
        self._wants = sorted(residency.wants, key=lambda want: want.urgency)
        self._held = {place.engine_name: place for place in _with_pins_that_count(residency)}
        self._transitions: list[Transition] = []
        self._waiting: list[Want] = []
        self._most_urgent: dict[str, Want] = {}
        for want in reversed(self._wants):
            place = self._held.get(want.engine_name)
            if place is None or not want.met(place.tier):
                self._most_urgent[want.engine_name] = want

    def plan(self) -> Plan:
        for want in self._wants:
            if not self._serve(want):
                self._waiting.append(want)
        return Plan(tuple(self._transitions), tuple(self._waiting))

    def _serve(self, want: Want) -> bool:
        place = self._held.get(want.engine_name) or Place(want.engine_name, Tier.DISK)
        goal = want.tier
        if want.reason == "pin" and goal is Tier.GPU and place.pin is Tier.CPU:
            goal = Tier.CPU  # one pin too many for the slots
        if place.tier.depth <= goal.depth:
            return True
        if place.moving:
            return False
        reached = place.tier
        if reached is Tier.DISK:
            if not self._make_room(want, place, Tier.CPU):
                return False
            reached = Tier.CPU
        if goal is Tier.GPU and self._make_room(want, place, Tier.GPU):
            reached = Tier.GPU
        if reached is not place.tier:
            self._move(place, reached, want.reason)
        return reached is goal or want.met(reached)

    def _make_room(self, want: Want, comer: Place, tier: Tier) -> bool:
        """For one more in `tier`. Changes nothing where there is none to be had."""
        there = [place for place in self._held.values() if place.tier.depth <= tier.depth]
        surplus = len(there) + 1 - (self._slots if tier is Tier.GPU else self._capacity)
        if surplus <= 0:
            return True
        if tier is Tier.GPU and want.reason == "version":
            return False
        may_leave = sorted((place for place in there if self._may_leave(place, tier, want, comer)), key=_worth)
        if len(may_leave) < surplus:
            return False
        for place in may_leave[:surplus]:
            self._move(place, Tier.CPU if tier is Tier.GPU else Tier.DISK, "lru")
        return True

    def _may_leave(self, place: Place, tier: Tier, want: Want, comer: Place) -> bool:
        if place.leases or place.moving or place.engine_name == comer.engine_name:
            return False
        if place.answers and place.pin is not None and place.pin.depth <= tier.depth:
            return False
        other = self._most_urgent.get(place.engine_name)
        if other is not None and other.urgency <= want.urgency:
            return False
        if not place.answers or _URGENCY[want.reason] < _URGENCY["foreseen"]:
            return True
        if place.awaited:
            return False
        return want.reason != "demand" or place.demand * CLEARLY < comer.demand

    def _move(self, place: Place, tier: Tier, reason: Reason) -> None:
        self._transitions.append(Transition(place.engine_name, place.tier, tier, reason))
        self._held[place.engine_name] = replace(place, tier=tier)


def _worth(place: Place) -> tuple[bool, bool, float, float, str]:
    """The lowest leaves first."""
    return place.answers, place.awaited, place.demand, place.last_used, place.engine_name


def _with_pins_that_count(residency: Residency) -> Iterable[Place]:
    """Those in slots before others, so that no pin is taken from what has it."""
    pinned = sorted(
        (place for place in residency.held if place.pin is Tier.GPU),
        key=lambda place: (place.tier is not Tier.GPU, place.engine_name),
    )
    beyond = {place.engine_name for place in pinned[most_pins(residency.slots) :]}
    return [replace(place, pin=Tier.CPU) if place.engine_name in beyond else place for place in residency.held]
