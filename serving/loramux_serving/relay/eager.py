"""Requests that begin at once, and go on in the very callback that brought what they waited for.

A task begins with the next turn of the loop, and goes on one turn after what it waited for has come: with a short
answer that is a good part of what a request costs. So a request is run by hand: from its arrival until it waits, and on
when a `Signal` is set. When it waits for anything else, it becomes an ordinary task, and stays one. (Python 3.12 has
the first half of this as `asyncio.eager_task_factory`.)

What needs a task of its own around it, as `asyncio.timeout` does, must be preceded by `in_task`.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, Protocol


class Cancellable(Protocol):
    def cancel(self, msg: Any = None) -> object: ...


class Signal:
    """Awaited by one, set once. Who waits goes on within `set`, if it is run by hand, so that `set` should be the last
    thing that a callback does; in a task, with the next turn of the loop, as with a future.

    It is a future as far as `asyncio.Task` looks."""

    __slots__ = ("_asyncio_future_blocking", "_callback", "_cancelled", "_context", "_is_set", "_loop", "_resume")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_set = False
        self._cancelled: asyncio.CancelledError | None = None
        self._asyncio_future_blocking = False
        self._resume: Callable[[], object] | None = None
        """Of who runs the coroutine by hand."""
        self._callback: Callable[[Any], object] | None = None
        self._context: contextvars.Context | None = None

    def set(self) -> None:
        if self._is_set:
            return
        self._is_set = True
        resume = self._resume
        if resume is not None:
            resume()
        elif self._callback is not None:
            self._loop.call_soon(self._callback, self, context=self._context)

    def __await__(self) -> Generator[Any, None, None]:
        if not self._is_set:
            self._asyncio_future_blocking = True
            yield self

    # For `asyncio.Task`.

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        self._callback, self._context = callback, context
        if self._is_set:
            self._loop.call_soon(callback, self, context=context)

    def cancel(self, msg: Any = None) -> bool:
        if self._is_set:
            return False
        self._cancelled = _cancellation(msg)
        self.set()
        return True

    def result(self) -> None:
        if self._cancelled is not None:
            raise self._cancelled


def _cancellation(msg: Any) -> asyncio.CancelledError:
    return asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)


async def in_task() -> None:
    """From here on the caller runs in a task."""
    await asyncio.sleep(0)


class EagerTask:
    """A request's coroutine on its way. `start` runs it until it waits. One event loop."""

    __slots__ = (
        "_cancelled",
        "_context",
        "_coroutine",
        "_in_task",
        "_loop",
        "_on_done",
        "_running",
        "_task",
        "_waits_for",
    )

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        loop: asyncio.AbstractEventLoop,
        on_done: "Callable[[EagerTask], object]",
    ) -> None:
        """`on_done` is called once, when the coroutine has ended, however it did."""
        self._coroutine = coroutine
        self._loop = loop
        self._on_done = on_done
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._waits_for: Signal | None = None
        self._running = False
        self._in_task = False
        """Its task has made its first step."""
        self._cancelled: asyncio.CancelledError | None = None
        """Not yet raised where it waits."""

    def cancel(self, msg: Any = None) -> bool:
        """As `asyncio.Task.cancel`: what the coroutine waits for raises `CancelledError` there."""
        if self._in_task and self._task is not None:
            return self._task.cancel(msg)
        if self._running or self._task is not None:
            self._cancelled = _cancellation(msg)  # a task that is cancelled before its first step makes none
        elif self._waits_for is not None:
            self._waits_for._resume = None
            self._step(_cancellation(msg))
        return True

    def _step(self, error: BaseException | None = None) -> None:
        """On until it waits again."""
        self._waits_for = None
        self._running = True
        try:
            if error is None:
                waits_for = self._context.run(self._coroutine.send, None)
            else:
                waits_for = self._context.run(self._coroutine.throw, error)
        except (StopIteration, asyncio.CancelledError):
            self._on_done(self)
            return
        except BaseException:
            self._on_done(self)
            raise
        finally:
            self._running = False
        if self._cancelled is not None:
            cancelled, self._cancelled = self._cancelled, None
            self._step(cancelled)
        elif type(waits_for) is Signal:
            self._waits_for = waits_for
            waits_for._asyncio_future_blocking = False
            waits_for._resume = self._step
        else:
            self._task = self._loop.create_task(self._rest(waits_for), context=self._context)
            self._task.add_done_callback(lambda _: self._on_done(self))

    start = _step

    @coroutine
    def _rest(self, waits_for: Any) -> Generator[Any, Any, None]:
        """What is left of the coroutine, which waits for `waits_for`, for a task to run."""
        work = self._coroutine
        step: Callable[[Any], Any]
        argument: Any
        self._in_task = True
        while True:
            try:
                if self._cancelled is not None:
                    cancelled, self._cancelled = self._cancelled, None
                    raise cancelled
                argument = yield waits_for
            except BaseException as error:
                step, argument = work.throw, error
            else:
                step = work.send
            try:
                waits_for = step(argument)
            except StopIteration:
                return
