"""How long a caller may take to send what it has to send."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from loramux_serving.relay.refusal import Refusal, request_timeout
from loramux_serving.settings import RelaySettings


class Awaits(Enum):
    """What a caller has to send next."""

    HEAD = auto()
    REST_OF_HEAD = auto()
    BODY = auto()


class Deadline:
    """One timer for a connection. A head must be whole within `head_timeout_s`; within a body, no silence may last
    for `body_timeout_s`. A request that comes in one piece arms no timer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: RelaySettings,
        *,
        excused: Callable[[], bool],
        overdue: Callable[[Refusal | None], None],
    ) -> None:
        """`excused`: it is not the caller's fault that nothing comes. `overdue` gets the refusal, None where no
        request has begun."""
        self._loop = loop
        self._limits = limits
        self._excused = excused
        self._overdue = overdue
        self._awaits = Awaits.HEAD
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.runs = False

    def watch(self, awaits: Awaits) -> None:
        """The caller has sent something, and has this to send now."""
        was, self._awaits = self._awaits, awaits
        self._heard_at = self._loop.time()
        if self._timer is not None:
            if (was is Awaits.BODY) is (awaits is Awaits.BODY):
                return
            self._timer.cancel()
        self._arm(self._limit_s)

    def stop(self) -> None:
        """It is not the caller's turn."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.runs = False

    @property
    def _limit_s(self) -> float:
        return self._limits.body_timeout_s if self._awaits is Awaits.BODY else self._limits.head_timeout_s

    def _arm(self, delay_s: float) -> None:
        self._timer = self._loop.call_later(delay_s, self._on_timer)
        self.runs = True

    def _on_timer(self) -> None:
        self._timer = None
        self.runs = False
        limit_s = self._limit_s
        left_s = self._heard_at + limit_s - self._loop.time()
        if self._excused():
            self._arm(limit_s)
        elif self._awaits is Awaits.BODY and left_s > 0:
            self._arm(left_s)
        elif self._awaits is Awaits.HEAD:
            self._overdue(None)
        else:
            self._overdue(request_timeout("body" if self._awaits is Awaits.BODY else "head", limit_s))
