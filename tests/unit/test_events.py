"""The history of what happens, and its subscribers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from loramux_adapters.events import Event, EventLog
from tests.fakes.clock import FakeClock


@pytest.fixture
def log() -> EventLog:
    return EventLog(FakeClock(now=5.0), history=4, backlog=3)


async def take(events: AsyncIterator[Event], count: int) -> list[int]:
    return [(await anext(events)).id for _ in range(count)]


async def test_events_are_numbered_and_dated(log: EventLog) -> None:
    first = log.publish("version.ready", "tone", 2, digest="abc")
    assert first == Event(1, 5.0, "version.ready", "tone", 2, {"digest": "abc"})
    assert log.publish("alias.set").id == 2


async def test_a_subscriber_hears_what_comes(log: EventLog) -> None:
    log.publish("a.before")
    async with log.subscribe() as events:
        log.publish("a.b")
        assert (await anext(events)).type == "a.b"


async def test_every_subscriber_hears_all(log: EventLog) -> None:
    async with log.subscribe() as one, log.subscribe() as two:
        for _ in range(3):
            log.publish("a.b")
        assert await take(one, 3) == await take(two, 3) == [1, 2, 3]


async def test_the_past_comes_first(log: EventLog) -> None:
    for _ in range(6):
        log.publish("a.b")
    async with log.subscribe(after=4) as events:
        log.publish("a.b")
        assert await take(events, 3) == [5, 6, 7]
    async with log.subscribe(after=0) as events:
        assert await take(events, 4) == [4, 5, 6, 7]


async def test_a_slow_subscriber_loses_the_oldest_and_stops_nobody(log: EventLog) -> None:
    async with log.subscribe() as slow, log.subscribe() as quick:
        heard = []
        for _ in range(5):
            log.publish("a.b")
            heard += await take(quick, 1)
        assert heard == [1, 2, 3, 4, 5]
        assert await take(slow, 3) == [3, 4, 5]


async def test_a_wait_that_is_given_up_does_not_end_the_subscription(log: EventLog) -> None:
    """As a keep-alive of server-sent events does it."""
    async with log.subscribe() as events:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 0.001)
        log.publish("a.b")
        assert await take(events, 1) == [1]


async def test_a_subscription_ends_with_its_block(log: EventLog) -> None:
    with pytest.raises(RuntimeError, match="left"):
        async with log.subscribe():
            raise RuntimeError("left")
    assert not log._subscribers
