"""What every `ports.Clock` does, the fake one too."""

import pytest

from loramux_adapters.clock import SystemClock
from loramux_adapters.ports import Clock
from tests.fakes.clock import FakeClock


@pytest.fixture(params=[SystemClock, FakeClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


def test_monotonic_never_goes_back(clock: Clock) -> None:
    times = [clock.monotonic() for _ in range(100)]
    assert times == sorted(times)


def test_now_is_unix_seconds(clock: Clock) -> None:
    assert clock.now() > 1_600_000_000


def test_the_fake_moves_both_times_together() -> None:
    clock = FakeClock()
    now, monotonic = clock.now(), clock.monotonic()
    clock.advance(2.5)
    assert (clock.now() - now, clock.monotonic() - monotonic) == (2.5, 2.5)


def test_the_fake_calls_timers_in_order_at_their_time() -> None:
    clock = FakeClock(monotonic=0.0)
    seen: list[tuple[str, float]] = []
    clock.call_later(2.0, lambda: seen.append(("late", clock.monotonic())))
    clock.call_later(1.0, lambda: seen.append(("early", clock.monotonic())))
    clock.call_later(1.5, lambda: seen.append(("never", clock.monotonic()))).cancel()
    clock.advance(0.5)
    assert seen == []
    clock.advance(3.0)
    assert seen == [("early", 1.0), ("late", 2.0)]
