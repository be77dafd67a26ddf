"""Requests that are run by hand until they wait for something that no signal tells."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from loramux_serving.relay.eager import EagerTask, Signal, in_task

_WHO = contextvars.ContextVar("who", default="nobody")


class Run:
    """A coroutine on its way, and what it told."""

    def __init__(self, work: Callable[["Run"], Coroutine[Any, Any, None]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.told: list[object] = []
        self.ended = asyncio.Event()
        self.ends = 0
        self.task = EagerTask(self._told(work), self.loop, self._end)

    async def _told(self, work: Callable[["Run"], Coroutine[Any, Any, None]]) -> None:
        try:
            await work(self)
        except asyncio.CancelledError as error:
            self.told.append(("cancelled", *error.args))
            raise

    def _end(self, task: EagerTask) -> None:
        assert task is self.task
        self.ends += 1
        self.ended.set()


async def waits(run: Run, *for_them: Awaitable[object]) -> None:
    run.told.append("begun")
    for each in for_them:
        await each
        run.told.append("on")


async def test_it_begins_at_once_and_ends_at_once() -> None:
    run = Run(lambda run: waits(run))
    run.task.start()
    assert run.told == ["begun"]
    assert run.ends == 1


async def test_it_goes_on_within_the_call_that_sets_the_signal() -> None:
    one, other = Signal(asyncio.get_running_loop()), Signal(asyncio.get_running_loop())
    run = Run(lambda run: waits(run, one, other))
    run.task.start()
    one.set()
    assert run.told == ["begun", "on"]
    one.set()  # once is enough
    other.set()
    assert (run.told, run.ends) == (["begun", "on", "on"], 1)


async def test_a_signal_that_was_set_is_not_waited_for() -> None:
    signal = Signal(asyncio.get_running_loop())
    signal.set()
    run = Run(lambda run: waits(run, signal))
    run.task.start()
    assert run.ends == 1


async def test_it_becomes_a_task_for_anything_else() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    signal = Signal(asyncio.get_running_loop())
    run = Run(lambda run: waits(run, future, in_task(), asyncio.sleep(0), signal))
    run.task.start()
    future.set_result(None)
    assert run.told == ["begun"]
    async with asyncio.timeout(5):
        while len(run.told) < 4:  # noqa: ASYNC110 - it tells of each step
            await asyncio.sleep(0)
        signal.set()
        assert run.told == ["begun", "on", "on", "on"], "a task goes on with the next turn"
        await run.ended.wait()
    assert (run.told[-1], run.ends) == ("on", 1)


async def test_a_timeout_works_after_in_task() -> None:
    async def work(run: Run) -> None:
        await in_task()
        try:
            async with asyncio.timeout(0.001):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            run.told.append("late")

    run = Run(work)
    run.task.start()
    async with asyncio.timeout(5):
        await run.ended.wait()
    assert run.told == ["late"]


@pytest.mark.parametrize("after", ["a signal", "a task's signal", "a future"])
async def test_it_is_cancelled_where_it_waits(after: str) -> None:
    loop = asyncio.get_running_loop()
    waited_for: Awaitable[object] = loop.create_future() if after == "a future" else Signal(loop)
    first = [in_task()] if after == "a task's signal" else []
    run = Run(lambda run: waits(run, *first, waited_for))
    run.task.start()
    for _ in range(3):
        await asyncio.sleep(0)
    run.task.cancel("enough")
    async with asyncio.timeout(5):
        await run.ended.wait()
    assert run.told[-1] == ("cancelled", "enough")
    assert run.ends == 1


async def test_a_signal_set_after_the_end_is_for_nobody() -> None:
    signal = Signal(asyncio.get_running_loop())
    run = Run(lambda run: waits(run, signal))
    run.task.start()
    run.task.cancel()
    signal.set()
    run.task.cancel()
    assert (run.told, run.ends) == (["begun", ("cancelled",)], 1)


async def test_one_that_cancels_itself_is_cancelled_where_it_waits_next() -> None:
    signal = Signal(asyncio.get_running_loop())

    async def work(run: Run) -> None:
        run.task.cancel("myself")
        run.told.append("still here")
        await signal

    run = Run(work)
    run.task.start()
    async with asyncio.timeout(5):
        await run.ended.wait()
    assert run.told == ["still here", ("cancelled", "myself")]


async def test_one_that_has_just_become_a_task_is_cancelled_where_it_waits() -> None:
    run = Run(lambda run: waits(run, run.loop.create_future()))
    run.task.start()
    run.task.cancel("at once")
    async with asyncio.timeout(5):
        await run.ended.wait()
    assert run.told == ["begun", ("cancelled", "at once")]


async def test_cleaning_up_may_take_its_time() -> None:
    signal = Signal(asyncio.get_running_loop())

    async def work(run: Run) -> None:
        try:
            await signal
        finally:
            await asyncio.sleep(0)
            run.told.append("clean")

    run = Run(work)
    run.task.start()
    run.task.cancel()
    assert run.told == []
    async with asyncio.timeout(5):
        await run.ended.wait()
    assert run.told == ["clean", ("cancelled",)]


async def test_a_fault_reaches_who_started_it() -> None:
    async def work(run: Run) -> None:
        raise LookupError("a fault")

    run = Run(work)
    with pytest.raises(LookupError, match="a fault"):
        run.task.start()
    assert run.ends == 1


async def test_each_has_a_context_of_its_own() -> None:
    signal = Signal(asyncio.get_running_loop())

    async def work(run: Run) -> None:
        _WHO.set("a request")
        await signal
        run.told.append(_WHO.get())
        await in_task()
        run.told.append(_WHO.get())

    run = Run(work)
    run.task.start()
    assert _WHO.get() == "nobody"
    signal.set()
    async with asyncio.timeout(5):
        await run.ended.wait()
    assert run.told == ["a request", "a request"]
    assert _WHO.get() == "nobody"


async def test_an_ordinary_task_waits_for_signals_too() -> None:
    signal = Signal(asyncio.get_running_loop())

    async def work() -> str:
        await signal
        return "done"

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    signal.set()
    assert await asyncio.wait_for(task, 5) == "done"
