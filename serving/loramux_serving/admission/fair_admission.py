"""Places at the engines: limits first, then the fair queue.

The life of a request here: `admit` → limits of key and adapter (refused: `RateLimited`) → a place at once where there
is room and nobody waits for it, else a wait in the adapter's line (`QueueFull`, `QueueTimeout`) → the request runs →
the place goes back, to the adapter whose turn it is. One process, one event loop; limits are this process's own.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

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


CallLater = Callable[[float, Callable[[], object]], Timer]
"""Calls back after so many seconds, on the event loop."""


@dataclass(frozen=True, slots=True)
class AdapterLoad:
    running: int
    queued: int


@dataclass(frozen=True, slots=True)
class AdmissionSnapshot:
    """`capacity` is how many may run at a time; `adapters` has those of which something runs or waits."""

    capacity: int
    running: int
    queued: int
    adapters: Mapping[str, AdapterLoad] = field(default_factory=dict)


class FairAdmission:
    """`relay.ports.Admission`. Room for `max_concurrent` requests on each ready replica, and on one while none is
    ready: then the engine's own error reaches the caller sooner than a time-out would.

    Fairness is that of `FairQueue`. Whoever leaves, at whatever moment, leaves no place behind. Where there is room,
    entering takes no task, future, timer or lock.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        clock: Clock,
        ready_replicas: Callable[[], int],
        call_later: CallLater | None = None,
    ) -> None:
        """`ready_replicas` is called on the hot path and must be cheap. `call_later` None: the running loop's."""
        self._settings = settings
        self._clock = clock
        self._ready_replicas = ready_replicas
        self._call_later = call_later
        self._limits = RateLimits(settings)
        self._aside: Counter[str] = Counter()
        """By adapter, requests that gave their place back for a while."""
        self._queue: FairQueue[_Waiter] = FairQueue(settings.max_concurrent_per_adapter, _Waiter.still_waits)

    def admit(self, principal: Principal, adapter: str) -> "Place":
        """A context manager, entered once. Entering raises `RateLimited`, `QueueFull` and `QueueTimeout`, each with
        `retry_after_s`; what is refused for want of room in the queue does not count against the limits."""
        return Place(self, principal, adapter)

    def capacity_changed(self) -> None:
        """Let in who may now run. To be called on the loop when a replica became ready."""
        self._let_in()

    def snapshot(self) -> AdmissionSnapshot:
        queue = self._queue
        return AdmissionSnapshot(
            capacity=self._capacity(),
            running=queue.running,
            queued=queue.queued + self._aside.total(),
            adapters={
                adapter: AdapterLoad(queue.running_of(adapter), queue.queued_of(adapter) + self._aside[adapter])
                for adapter in sorted({*queue.adapters(), *self._aside})
            },
        )

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books do not agree. Cheap enough for tests only."""
        self._queue.check_integrity()
        assert self._queue.queued + self._aside.total() <= self._settings.max_queue
        assert all(number > 0 for number in self._aside.values())

    def enter(self, principal: Principal, adapter: str) -> bool:
        """For `Place`. True: it has a place; False: it has none, and there is room in the queue. Raises
        `RateLimited` and `QueueFull`."""
        now = self._clock.monotonic()
        self._limits.check(principal, adapter, now)
        if self._queue.anyone_next:
            self._let_in()
        entered = self._queue.start(adapter, self._capacity())
        if not entered:
            self._require_room(adapter)
        self._limits.take(principal, adapter, now)
        return entered

    async def wait(self, adapter: str) -> float:
        """For `Place`. Wait for a place, and give the seconds that it took. Raises `QueueTimeout`; no place is held
        where this raises, or is cancelled."""
        began = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future())
        timer = (self._call_later or loop.call_later)(self._settings.queue_timeout_s, waiter.give_up)
        self._queue.push(adapter, waiter)
        granted = False
        try:
            granted = await waiter.granted
        finally:
            timer.cancel()
            # The place may have come in the very tick in which the wait was cancelled.
            if not granted and not self._queue.remove(adapter, waiter) and waiter.has_place():
                self.leave(adapter)
        if not granted:
            raise QueueTimeout(
                f"No place for {adapter!r} became free within {self._settings.queue_timeout_s:g} s.",
                details={"adapter": adapter},
                retry_after_s=RETRY_AFTER_S,
            )
        return self._clock.monotonic() - began

    def step_aside(self, adapter: str) -> None:
        """For `Place`. Give a place back, and count as waiting. Raises `QueueFull`; then the place is still held."""
        self._require_room(adapter)
        self._aside[adapter] += 1
        self.leave(adapter)

    def step_back(self, adapter: str) -> bool:
        """For `Place`. Waits no more, or from now on in the queue: True with a place, False without."""
        self._aside[adapter] -= 1
        if not self._aside[adapter]:
            del self._aside[adapter]
        if self._queue.anyone_next:
            self._let_in()
        return self._queue.start(adapter, self._capacity())

    def stay_away(self, adapter: str) -> None:
        """For `Place`. It does not come back."""
        self._aside[adapter] -= 1
        if not self._aside[adapter]:
            del self._aside[adapter]

    def leave(self, adapter: str) -> None:
        """For `Place`. Give a place back."""
        self._queue.finish(adapter)
        if self._queue.anyone_next:
            self._let_in()

    def spend(self, principal: Principal, adapter: str, tokens: int) -> None:
        """For `Place`."""
        self._limits.spend(principal, adapter, tokens, self._clock.monotonic())

    def _capacity(self) -> int:
        return self._settings.max_concurrent * max(1, self._ready_replicas())

    def _let_in(self) -> None:
        capacity = self._capacity()
        while (waiter := self._queue.next(capacity)) is not None:
            waiter.granted.set_result(True)

    def _require_room(self, adapter: str) -> None:
        settings = self._settings
        if self._queue.queued + self._aside.total() >= settings.max_queue:
            raise QueueFull(
                f"{settings.max_queue} requests wait already.",
                details={"max_queue": settings.max_queue},
                retry_after_s=RETRY_AFTER_S,
            )
        if self._queue.queued_of(adapter) + self._aside[adapter] >= settings.max_queue_per_adapter:
            raise QueueFull(
                f"{settings.max_queue_per_adapter} requests wait for {adapter!r} already.",
                details={"adapter": adapter, "max_queue_per_adapter": settings.max_queue_per_adapter},
                retry_after_s=RETRY_AFTER_S,
            )


class Place:
    """`relay.ports.Admitted` and the context manager around it: one place, from enter to exit. `spend` may be called
    before the exit or after it."""

    __slots__ = ("_adapter", "_admission", "_holds", "_principal", "waited_s")

    def __init__(self, admission: FairAdmission, principal: Principal, adapter: str) -> None:
        self._admission = admission
        self._principal = principal
        self._adapter = adapter
        self._holds = False
        self.waited_s = 0.0

    async def __aenter__(self) -> "Place":
        if not self._admission.enter(self._principal, self._adapter):
            self.waited_s = await self._admission.wait(self._adapter)
        self._holds = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holds:
            self._admission.leave(self._adapter)

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """Give the place to others for the length of the block, as while an adapter is loaded, and wait for one
        again at its end. Meanwhile it counts as one that waits. Raises `QueueFull` before the block, and
        `QueueTimeout` after it."""
        self._admission.step_aside(self._adapter)
        self._holds = False
        try:
            yield
        except BaseException:
            self._admission.stay_away(self._adapter)
            raise
        if not self._admission.step_back(self._adapter):
            self.waited_s += await self._admission.wait(self._adapter)
        self._holds = True

    def spend(self, tokens: int) -> None:
        """Count the tokens that the request turned out to use."""
        self._admission.spend(self._principal, self._adapter, tokens)


class _Waiter:
    """`granted` is True with a place, and False when the time was up; cancelled with the task that waits for it."""

    __slots__ = ("granted",)

    def __init__(self, granted: "asyncio.Future[bool]") -> None:
        self.granted = granted

    def still_waits(self) -> bool:
        return not self.granted.done()

    def has_place(self) -> bool:
        return self.granted.done() and not self.granted.cancelled() and self.granted.result()

    def give_up(self) -> None:
        if not self.granted.done():
            self.granted.set_result(False)
