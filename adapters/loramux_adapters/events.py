"""What happens, as it happens: a bounded history and its subscribers."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from loramux_adapters.ports import Clock


@dataclass(frozen=True, slots=True)
class Event:
    """`id` grows by one; `type` is `noun.verb` in the past tense (`version.promoted`)."""

    id: int
    at: float
    type: str
    adapter: str | None = None
    version: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class EventLog:
    """Publishes to any number of subscribers on one event loop. A subscriber that falls `backlog` events behind
    loses the oldest: it sees a gap in the ids."""

    def __init__(self, clock: Clock, *, history: int = 1000, backlog: int = 1000) -> None:
        self._clock = clock
        self._history: deque[Event] = deque(maxlen=history)
        self._backlog = backlog
        self._subscribers: set[asyncio.Queue[Event]] = set()
        self._last_id = 0

    def publish(self, type: str, adapter: str | None = None, version: int | None = None, **data: Any) -> Event:
        """Never blocks."""
        self._last_id += 1
        event = Event(self._last_id, self._clock.now(), type, adapter, version, data)
        self._history.append(event)
        for queue in self._subscribers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)
        return event

    @asynccontextmanager
    async def subscribe(self, after: int | None = None) -> AsyncIterator[AsyncIterator[Event]]:
        """Events from now on, or those of the history after the id `after` first."""
        queue: asyncio.Queue[Event] = asyncio.Queue(self._backlog)
        past = [event for event in self._history if after is not None and event.id > after]
        self._subscribers.add(queue)
        try:
            yield _Subscription(past, queue)
        finally:
            self._subscribers.discard(queue)


class _Subscription:
    """The past, then what comes. No generator, which would end when a wait for the next event is given up."""

    def __init__(self, past: Iterable[Event], queue: asyncio.Queue[Event]) -> None:
        self._past = deque(past)
        self._queue = queue

    def __aiter__(self) -> "_Subscription":
        return self

    async def __anext__(self) -> Event:
        if self._past:
            return self._past.popleft()
        return await self._queue.get()
