"""Places at the engines: limits first, then the fair queue.

The life of a request here: `admit` → limits of key and adapter (refused: `RateLimited`) → a place at once where there
is room, the adapter has a slot or can have one, and nobody waits for it, else a wait in the adapter's line
(`QueueFull`, `QueueTimeout`) → the request runs → the place goes back, to the adapter whose turn it is. One process,
one event loop; limits are this process's own.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import msgspec

from loramux_adapters.errors import QueueFull, QueueTimeout
from loramux_adapters.ports import Clock
from loramux_serving.admission.fair_queue import FairQueue
from loramux_serving.admission.rate_limits import RateLimits
from loramux_serving.relay.ports import Principal
from loramux_serving.settings import AdmissionSettings

RETRY_AFTER_S = 1.0
"""What a caller is told whom the queue refused: no time can be promised, and a queue that is full moves soon."""


class Timer(Protocol):
    def cancel(self) -> object: ...


Soon = Callable[[], object]
"""Hears, on the loop, that a request waits and that its adapter's turn is near: what it needs should be got ready. Does
not raise."""

CallLater = Callable[[float, Callable[[], object]], Timer]
"""Calls back after so many seconds, on the event loop."""


@dataclass(frozen=True, slots=True)
class AdapterLoad:
    running: int
    queued: int


@dataclass(frozen=True, slots=True)
class AdmissionSnapshot:
    """`capacity` is how many may run at a time, `slots` how many adapters (None: as many as there are), of which
    `slots_held` do or are about to; `adapters` has those of which something runs or waits."""

    capacity: int
    slots: int | None
    slots_held: int
    running: int
    queued: int
    adapters: Mapping[str, AdapterLoad] = field(default_factory=dict)


class FairAdmission:
    """`relay.ports.Admission`. Room for `max_concurrent` requests on each ready replica, and on one while none is
    ready: then the engine's own error reaches the caller sooner than a time-out would. No more adapters run than the
    engines have slots.

    Fairness is that of `FairQueue` and `Slots`. Whoever leaves, at whatever moment, leaves no place behind. Where there
    is room, entering takes no task, future, timer or lock.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        clock: Clock,
        ready_replicas: Callable[[], int],
        call_later: CallLater | None = None,
        *,
        slots: Callable[[], int] | None = None,
    ) -> None:
        """`ready_replicas` and `slots`, how many adapters the ready replicas can run at a time (None: as many as
        come), are called on the hot path and must be cheap. `call_later` None: the running loop's."""
        self._settings = settings
        self._monotonic = clock.monotonic
        self._max_concurrent = settings.max_concurrent
        self._most_requests = settings.max_requests
        self._ready_replicas = ready_replicas
        self._slots = slots or (lambda: sys.maxsize)
        self._call_later = call_later
        self._limits = RateLimits(settings)
        self._aside: Counter[str] = Counter()
        """By adapter, requests that gave their place back for a while."""
        self.queue: FairQueue[_Waiter] = FairQueue(
            settings.max_concurrent_per_adapter, _Waiter.still_waits, slot_turn_s=settings.slot_turn_s
        )
        """For `Place`."""

    def admit(self, principal: Principal, adapter: str, slot: str | None = None, soon: Soon | None = None) -> "Place":
        """A context manager, entered once. Entering raises `RateLimited`, `QueueFull` and `QueueTimeout`, each with
        `retry_after_s`; what is refused for want of room in the queue does not count against the limits.

        `slot` names what takes a slot of an engine, None where nothing does. `soon` is called at most once, and only
        where the request has to wait."""
        limited = self._limits.by_default or bool(principal.requests_per_minute or principal.tokens_per_minute)
        return Place(self, principal, adapter, slot, soon, limited)

    def capacity_changed(self) -> None:
        """Let in who may now run. To be called on the loop when a replica became ready."""
        self.let_in()

    def snapshot(self) -> AdmissionSnapshot:
        queue = self.queue
        return AdmissionSnapshot(
            capacity=self._capacity(),
            slots=None if (slots := self._slots()) == sys.maxsize else slots,
            slots_held=queue.slots_held,
            running=queue.running,
            queued=queue.queued + self._aside.total(),
            adapters={
                adapter: AdapterLoad(queue.running_of(adapter), queue.queued_of(adapter) + self._aside[adapter])
                for adapter in sorted({*queue.adapters(), *self._aside})
            },
        )

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books do not agree. Cheap enough for tests only."""
        self.queue.check_integrity()
        assert self.queue.queued + self._aside.total() <= self._settings.max_queue
        assert all(number > 0 for number in self._aside.values())

    def enter_calmly(self, adapter: str, slot: str | None) -> bool:
        """For `Place`, of a request that no limit concerns. True: it has a place, as nobody waits for anything and
        there is room. False: `enter` must decide."""
        if self._most_requests:
            return False
        slots = 0 if slot is None else self._slots()
        return self.queue.start(adapter, slot, self._max_concurrent, slots, self._monotonic(), calmly=True)

    def enter(self, principal: Principal, adapter: str, slot: str | None, *, limited: bool) -> bool:
        """For `Place`. True: it has a place; False: it has none, and there is room in the queue. `limited`: the
        request counts against some limit. Raises `RateLimited` and `QueueFull`."""
        now = self._monotonic()
        if self._settings.max_requests:
            self._require_few()
        if limited:
            self._limits.check(principal, adapter, now)
        entered = self._start(adapter, slot, now)
        if not entered:
            self._require_room(adapter)
        if limited:
            self._limits.take(principal, adapter, now)
        return entered

    async def wait(self, adapter: str, slot: str | None, soon: Soon | None, *, ahead: bool = False) -> float:
        """For `Place`. Wait for a place, and give the seconds that it took. Raises `QueueTimeout`; no place is held
        where this raises, or is cancelled."""
        began = self._monotonic()
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), soon)
        timer = (self._call_later or loop.call_later)(self._settings.queue_timeout_s, waiter.give_up)
        self.queue.push(adapter, slot, waiter, began, ahead=ahead)
        granted = False
        try:
            slots = self._slots()
            self._let_in(slots, began)
            if slot is not None and self.queue.waits_for_slot(slot):
                self._tell_soon(slots)
            else:
                waiter.tell_soon()
            granted = await waiter.granted
        finally:
            timer.cancel()
            if not granted:
                self._give_up(adapter, slot, waiter)
        if not granted:
            raise QueueTimeout(
                f"No place for {adapter!r} became free within {self._settings.queue_timeout_s:g} s.",
                details={"adapter": adapter},
                retry_after_s=RETRY_AFTER_S,
            )
        return self._monotonic() - began

    def _give_up(self, adapter: str, slot: str | None, waiter: "_Waiter") -> None:
        if not self.queue.remove(adapter, slot, waiter):
            # The place may have come in the very tick in which the wait was cancelled.
            if waiter.has_place():
                self.leave(adapter, slot)
        elif self.queue.anyone_next:  # it may have been the first in line for a slot
            self._let_in(self._slots(), self._monotonic())

    def step_aside(self, adapter: str, slot: str | None) -> None:
        """For `Place`. Give a place back, and count as waiting. Raises `QueueFull`; then the place is still held."""
        self._require_room(adapter)
        self._aside[adapter] += 1
        self.leave(adapter, slot)

    def step_back(self, adapter: str, slot: str | None) -> bool:
        """For `Place`. Waits no more, or from now on in the queue: True with a place, False without."""
        self.stay_away(adapter)
        return self._start(adapter, slot, self._monotonic())

    def stay_away(self, adapter: str) -> None:
        """For `Place`. It does not come back."""
        self._aside[adapter] -= 1
        if not self._aside[adapter]:
            del self._aside[adapter]

    def leave(self, adapter: str, slot: str | None) -> None:
        """For `Place`. Give a place back."""
        if self.queue.finish(adapter, slot):
            self.let_in()

    def let_in(self) -> None:
        """Those whose turn it is."""
        self._let_in(self._slots(), self._monotonic())

    def spend(self, principal: Principal, adapter: str, tokens: int) -> None:
        """For `Place`."""
        self._limits.spend(principal, adapter, tokens, self._monotonic())

    def _capacity(self) -> int:
        return self._max_concurrent * max(1, self._ready_replicas())

    def _start(self, adapter: str, slot: str | None, now: float) -> bool:
        """Run one at once, after those whose turn it is."""
        queue = self.queue
        slots = 0 if slot is None else self._slots()
        if queue.anyone_next:
            self._let_in(slots or self._slots(), now)
        limit = self._max_concurrent
        if queue.running >= limit:  # else there is room, however many replicas are ready
            limit = self._capacity()
        return queue.start(adapter, slot, limit, slots, now)

    def _let_in(self, slots: int, now: float) -> None:
        capacity = self._capacity()
        moved = False
        while (waiter := self.queue.next(capacity, slots, now)) is not None:
            waiter.granted.set_result(True)
            moved = True
        if moved:
            self._tell_soon(slots)

    def _tell_soon(self, slots: int) -> None:
        """Those who come next, so many that all slots could change hands."""
        for waiter in self.queue.soon(slots):
            waiter.tell_soon()

    def _require_few(self) -> None:
        most = self._settings.max_requests
        if self.queue.running + self.queue.queued + self._aside.total() >= most:
            raise QueueFull(
                f"{most} requests run and wait already.", details={"max_requests": most}, retry_after_s=RETRY_AFTER_S
            )

    def _require_room(self, adapter: str) -> None:
        settings = self._settings
        if self.queue.queued + self._aside.total() >= settings.max_queue:
            raise QueueFull(
                f"{settings.max_queue} requests wait already.",
                details={"max_queue": settings.max_queue},
                retry_after_s=RETRY_AFTER_S,
            )
        if self.queue.queued_of(adapter) + self._aside[adapter] >= settings.max_queue_per_adapter:
            raise QueueFull(
                f"{settings.max_queue_per_adapter} requests wait for {adapter!r} already.",
                details={"adapter": adapter, "max_queue_per_adapter": settings.max_queue_per_adapter},
                retry_after_s=RETRY_AFTER_S,
            )


class Place(msgspec.Struct, eq=False):
    """`relay.ports.Admitted` and the context manager around it: one place, from enter to exit. `spend` may be called
    before the exit or after it."""

    _admission: FairAdmission
    _principal: Principal
    _adapter: str
    _slot: str | None
    _soon: Soon | None
    counts_tokens: bool
    """The request counts against some limit."""
    _holds: bool = False
    waited_s: float = 0.0

    def enter_now(self) -> bool:
        """Have a place at once. False: there is none, and `wait` must follow. Where this raises, none is held."""
        admission, adapter, slot = self._admission, self._adapter, self._slot
        limited = self.counts_tokens
        held = self._holds = (not limited and admission.enter_calmly(adapter, slot)) or admission.enter(
            self._principal, adapter, slot, limited=limited
        )
        return held

    async def wait(self) -> None:
        """Where `enter_now` had none. Where this raises, none is held."""
        self.waited_s = await self._admission.wait(self._adapter, self._slot, self._soon)
        self._holds = True

    def leave(self) -> None:
        """Give the place back. Once or more often."""
        if self._holds:
            self._holds = False
            admission = self._admission
            if admission.queue.finish(self._adapter, self._slot):
                admission.let_in()

    async def __aenter__(self) -> "Place":
        if not self.enter_now():
            await self.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """Give the place to others for the length of the block, as while an adapter is loaded, and wait for one
        again at its end. Meanwhile it counts as one that waits, and its adapter's slot is free if nothing else of it
        runs; afterwards the adapter comes before those that had no slot yet. Raises `QueueFull` before the block, and
        `QueueTimeout` after it."""
        self._admission.step_aside(self._adapter, self._slot)
        self._holds = False
        try:
            yield
        except BaseException:
            self._admission.stay_away(self._adapter)
            raise
        if not self._admission.step_back(self._adapter, self._slot):
            self.waited_s += await self._admission.wait(self._adapter, self._slot, None, ahead=True)
        self._holds = True

    def spend(self, tokens: int) -> None:
        """Count the tokens that the request turned out to use."""
        if self.counts_tokens:
            self._admission.spend(self._principal, self._adapter, tokens)


class _Waiter:
    """`granted` is True with a place, and False when the time was up; cancelled with the task that waits for it."""

    __slots__ = ("_soon", "granted")

    def __init__(self, granted: "asyncio.Future[bool]", soon: Soon | None) -> None:
        self.granted = granted
        self._soon = soon

    def tell_soon(self) -> None:
        """Once, and not if it waits no more."""
        soon, self._soon = self._soon, None
        if soon is not None and self.still_waits():
            soon()

    def still_waits(self) -> bool:
        return not self.granted.done()

    def has_place(self) -> bool:
        return self.granted.done() and not self.granted.cancelled() and self.granted.result()

    def give_up(self) -> None:
        if not self.granted.done():
            self.granted.set_result(False)
