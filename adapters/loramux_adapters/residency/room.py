"""Room for what comes: places in host memory and slots, as `tiers.plan` gives them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from loramux_adapters.demand import Demand
from loramux_adapters.errors import QueueTimeout
from loramux_adapters.model import Target, Tier
from loramux_adapters.ports import Clock, TierObserver
from loramux_adapters.residency.line import Ticket
from loramux_adapters.residency.shelf import Holding, Shelf
from loramux_adapters.tiers import Plan, Residency, Want, WantReason, plan, slot_first

Evict = Callable[[Shelf, str, str], Awaitable[bool]]

_TAKES_SLOT: frozenset[WantReason] = frozenset({"request", "version"})
"""A load for one of these goes on into a slot; the others ask for one by itself, or for none."""


class Room:
    """Looks at a shelf's books, plans, and books what was planned. One event loop; calls no engine itself."""

    def __init__(
        self,
        pins: Callable[[], Mapping[str, Tier]],
        demand: Demand,
        clock: Clock,
        observer: TierObserver,
        *,
        inline_bytes: int,
    ) -> None:
        """`pins` gives the tier below which an engine name may not fall; `inline_bytes` the size up to which the engine
        moves an adapter into a slot by itself."""
        self._pins = pins
        self._demand = demand
        self._clock = clock
        self._observer = observer
        self._inline_bytes = inline_bytes

    # --- places in host memory ---

    def has_place(self, shelf: Shelf, target: Target, reason: WantReason) -> bool:
        """Whether there is one for `target`, or something may leave for it."""
        return not self._plan(shelf, Want(target.engine_name, Tier.CPU, reason), (target,)).waiting

    async def take_place(
        self, shelf: Shelf, entry: Holding, reason: WantReason, *, passes: bool, deadline: float, evict: Evict
    ) -> None:
        """Take a place when it is this one's turn, evicting what must leave. `passes`: rather than wait for room, give
        up, unless a request comes to wait for it. Raises `QueueTimeout`, also at the `deadline` of the loop's time, and
        `EngineUnavailable` where the replica left."""
        if passes and entry.leases:
            reason, passes = "request", False
        ticket = shelf.line.join(entry.target.engine_name, reason, passes=passes)
        try:
            while not await self._step(shelf, entry, ticket, evict):
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or ticket.passes:
                    raise _no_place()
                if shelf.line.first is ticket:
                    await shelf.room.wait(left)
                else:
                    await ticket.called(left)
        finally:
            shelf.line.leave(ticket)

    async def _step(self, shelf: Shelf, entry: Holding, ticket: Ticket, evict: Evict) -> bool:
        """Evict until there is a place, and take it. False where there is none to be had now."""
        while True:
            shelf.check_open()
            if shelf.line.first is not ticket:
                return False
            step = self._plan(shelf, ticket.want).next_for(entry.target.engine_name)
            if step is None:
                return False
            if step.engine_name == entry.target.engine_name:
                entry.placed = True
                return True
            # One at a time, then look again: meanwhile others came and went.
            await evict(shelf, step.engine_name, step.reason)

    # --- slots ---

    def slot_first(self, shelf: Shelf, entry: Holding) -> bool:
        """Whether a request for what is staged should wait for its way into a slot: where it is too large for the
        engine's step, and there is a slot to be had."""
        if not shelf.capabilities.staging:
            return False
        under_way = entry.move is not None
        if not slot_first(Tier.CPU if under_way else entry.tier, entry.size_bytes, self._inline_bytes):
            return False
        return under_way or self.has_slot(shelf, entry, "request")

    def has_slot(self, shelf: Shelf, entry: Holding, reason: WantReason) -> bool:
        """Whether it is in one, or there is one for it."""
        return not self._slot_plan(shelf, entry, reason).waiting

    def take_slot(self, shelf: Shelf, entry: Holding, reason: WantReason, *, moving: bool = False) -> Tier:
        """Take a slot on the books, from another if need be, unless a load for this reason is not worth one; `moving`:
        it is no load, but the way into a slot. The tier to move to. Where the engine does not tell slots apart, a load
        goes into one whatever is said."""
        if not shelf.capabilities.staging or entry.slotted:
            return Tier.GPU
        if not moving and reason not in _TAKES_SLOT:
            return Tier.CPU
        found = self._slot_plan(shelf, entry, reason)
        if found.next_for(entry.target.engine_name) is None:
            return Tier.CPU
        for step in found.transitions:
            if step.engine_name != entry.target.engine_name:
                shelf.holdings[step.engine_name].slotted = False
                self._observer.adapter_evicted(Tier.GPU, step.reason)
        entry.slotted = True
        return Tier.GPU

    def kept(self, shelf: Shelf, entry: Holding) -> frozenset[str]:
        """What the engine must leave in its slot when `entry` comes: what is in use, and all but what was taken out for
        it on the books."""
        pins = self._pins()
        return frozenset(
            name
            for name, other in shelf.holdings.items()
            if other is not entry and (other.leases or other.slotted or pins.get(name) is Tier.GPU)
        )

    def _slot_plan(self, shelf: Shelf, entry: Holding, reason: WantReason) -> Plan:
        return self._plan(shelf, Want(entry.target.engine_name, Tier.GPU, reason))

    def _plan(self, shelf: Shelf, want: Want, beside: tuple[Target, ...] = ()) -> Plan:
        return plan(self.residency(shelf, (want,), beside))

    def residency(self, shelf: Shelf, wants: tuple[Want, ...], beside: tuple[Target, ...] = ()) -> Residency:
        now = self._clock.monotonic()
        return shelf.residency(wants, self._pins(), lambda name: self._demand.rate(name, now), now, beside)


def _no_place() -> QueueTimeout:
    return QueueTimeout(
        "Every place for adapters in host memory is taken by requests under way or by pins; try again.",
        retry_after_s=5.0,
    )


def no_slot() -> QueueTimeout:
    return QueueTimeout("Every slot is taken by requests under way or by pins; try again.", retry_after_s=5.0)
