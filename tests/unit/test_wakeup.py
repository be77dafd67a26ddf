"""Waiters that are woken from synchronous code."""

import asyncio

import pytest

from loramux_adapters.wakeup import Wakeup


async def test_every_waiter_is_woken_at_once() -> None:
    wakeup = Wakeup()
    waiters = [asyncio.create_task(wakeup.wait(10.0)) for _ in range(5)]
    await asyncio.sleep(0)
    wakeup.wake()
    wakeup.wake()
    assert await asyncio.gather(*waiters) == [True] * 5


async def test_nobody_waits_for_what_was_before() -> None:
    wakeup = Wakeup()
    wakeup.wake()
    assert not await wakeup.wait(0.001)


@pytest.mark.parametrize("timeout_s", [0.0, 0.001, -1.0])
async def test_a_wait_ends_in_time(timeout_s: float) -> None:
    wakeup = Wakeup()
    assert not await wakeup.wait(timeout_s)
    assert not wakeup.waiters


async def test_a_waiter_that_is_cancelled_leaves_nothing() -> None:
    wakeup = Wakeup()
    waiter = asyncio.create_task(wakeup.wait(10.0))
    await asyncio.sleep(0)
    waiter.cancel()
    wakeup.wake()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not wakeup.waiters


async def test_one_who_is_woken_may_wait_again() -> None:
    wakeup = Wakeup()
    turns = []

    async def wait_twice() -> None:
        for _ in range(2):
            turns.append(await wakeup.wait(10.0))

    waiter = asyncio.create_task(wait_twice())
    for _ in range(2):
        await asyncio.sleep(0)
        wakeup.wake()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await waiter
    assert turns == [True, True]
