"""Wakes every waiter at once, from synchronous code."""

import asyncio


class Wakeup:
    """What `asyncio.Condition` is without its lock: for state that only one event loop touches, so that a waiter
    checks, waits and checks again, and the one who changed the state need not await."""

    def __init__(self) -> None:
        self.waiters: set[asyncio.Future[None]] = set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """True when woken, False after `timeout_s`; None: however long it takes."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
            return True
        except TimeoutError:
            return False
        finally:
            self.waiters.discard(waiter)

    def wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
