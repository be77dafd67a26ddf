"""Waiting for an endpoint that says "not ready": one that starts, or has scaled to zero."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from loramux_bench.admin.client import CallFailed
from loramux_bench.errors import EndpointError
from loramux_bench.scenario import NotReady

T = TypeVar("T")


class Tell(Protocol):
    """Hears how far something is; `total` is 0 where it is not counted."""

    def __call__(self, sentence: str, done: int = 0, total: int = 0, /) -> None: ...


class Patience:
    """One for all targets of a run: the time-out is of everything together."""

    def __init__(
        self, rules: NotReady, *, sleep: Callable[[float], object], now: Callable[[], float], tell: Tell
    ) -> None:
        """`now` and `sleep` in seconds, on one clock that does not jump."""
        self._rules = rules
        self._sleep = sleep
        self._now = now
        self._tell = tell
        self.waited_s = 0.0
        """From each first "not ready" to the answer after it; 0.0 when every first answer was good."""

    def ask(self, call: Callable[[], T]) -> T:
        """Call again while it is answered with "not ready". Raises `EndpointError` when the time is up, and at once
        what else `call` raises."""
        first: float | None = None
        while True:
            asked = self._now()
            try:
                answer = call()
            except CallFailed as failure:
                if not (failure.not_ready and self._rules.retry):
                    raise
                first = asked if first is None else first
                self._pause(failure, self._now() - first)
            else:
                if first is not None:
                    self.waited_s += self._now() - first
                return answer

    def _pause(self, failure: CallFailed, spent_s: float) -> None:
        left_s = self._rules.timeout_s - self.waited_s - spent_s
        if left_s <= 0:
            raise EndpointError(
                f"The endpoint was not ready within {self._rules.timeout_s:g} s; not_ready.timeout_s gives it more. "
                f"{failure}"
            ) from failure
        self._tell(f"The endpoint is not ready yet: waiting, {spent_s:.0f} s so far.")
        wanted_s = self._rules.interval_s if failure.retry_after_s is None else failure.retry_after_s
        self._sleep(min(max(wanted_s, 0.05), left_s))
