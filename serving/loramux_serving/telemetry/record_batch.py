"""Ended requests, recorded some at a time."""

import asyncio
from time import perf_counter

from loramux_serving.relay.ports import Recorder
from loramux_serving.relay.story import Story

LATE_S = 0.05
"""How long a request that has ended may wait until it is recorded."""
MOST = 128


class RecordBatch:
    """`relay.ports.Teller`: hands on to a recorder. One event loop.

    What records a request is much code for the little that it does. Done between two others' bytes, each request pays
    for bringing it back into the processor's caches, three times what it costs in a row.
    """

    def __init__(self, then: Recorder) -> None:
        self._then = then
        self._stories: list[Story] = []
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, story: Story) -> None:
        story.ended_at = perf_counter()
        self._stories.append(story)
        if len(self._stories) >= MOST:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LATE_S, self.flush)

    def flush(self) -> None:
        """Record all that have ended. To be called before somebody reads what is counted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        stories, self._stories = self._stories, []
        for story in stories:
            self._then.record(story.record())
