"""A load as callers make it: streams that go on and on, and short requests beside them. Every answer is kept."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from loramux_bench.overhead.raw_client import Answer, Caller, End, request
from loramux_bench.overhead.side import Side

_AGAIN_S = 0.02
"""Pause of a stream's caller after an answer that was not whole."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Of a load. `tokens` are a stream's."""

    streams: int = 32
    tokens: int = 64
    short_rps: float = 50.0
    short_tokens: int = 1
    limit_s: float = 30.0
    """After it a request counts as hung."""


class PacedLoad:
    """An async context manager: on entering it begins. Streams follow each other on `streams` connections; short
    requests, not streamed, are due at fixed times, whether earlier ones were answered or not, on kept connections.
    Leaving the block waits for what is under way."""

    def __init__(self, side: Side, shape: Shape, *, name: str) -> None:
        """`name` begins the request ids: no two loads on the same engine may have the same."""
        self.answers: list[Answer] = []
        self._side = side
        self._shape = shape
        self._name = name
        self._numbers = itertools.count(1)
        self._idle: list[Caller] = []
        self._over = False
        self._streams_over = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._pace: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        for number in range(self._shape.streams):
            # Spread over one stream's way, as those of many callers are.
            self._begin(self._streams(number / self._shape.streams))
        if self._shape.short_rps > 0:
            self._pace = asyncio.create_task(self._short_ones())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._over = True
        if self._pace is not None:
            self._pace.cancel()
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, *([self._pace] if self._pace else []), return_exceptions=True)
        for caller in self._idle:
            caller.close()

    def no_more_streams(self) -> None:
        """Those under way go on, and so do short requests."""
        self._streams_over = True

    @property
    def under_way(self) -> int:
        return sum(answer.end is None for answer in self.answers)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)

    async def _streams(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        caller: Caller | None = None
        try:
            while not (self._over or self._streams_over):
                answer = self._answer(streamed=True)
                caller = await self._ask(caller, answer, self._shape.tokens)
                if answer.end is not End.WHOLE:
                    await asyncio.sleep(_AGAIN_S)
        finally:
            if caller is not None:
                caller.close()

    async def _short_ones(self) -> None:
        began = time.perf_counter()
        for number in itertools.count():
            due = began + number / self._shape.short_rps
            if (left_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(left_s)
            self._begin(self._short_one())

    async def _short_one(self) -> None:
        answer = self._answer(streamed=False)
        caller = self._idle.pop() if self._idle else None
        caller = await self._ask(caller, answer, self._shape.short_tokens)
        if caller is not None:
            self._idle.append(caller)

    def _answer(self, *, streamed: bool) -> Answer:
        answer = Answer(f"{self._name}-{next(self._numbers)}", streamed=streamed)
        self.answers.append(answer)
        return answer

    async def _ask(self, caller: Caller | None, answer: Answer, tokens: int) -> Caller | None:
        """The connection for the next request, None where it is of no more use."""
        side = self._side
        if caller is None or not caller.open:
            try:
                caller = await Caller.connected(side.address)
            except OSError:
                answer.settle(End.REFUSED)
                return None
        asked = request(side.address, side.headers, side.model, answer.id, tokens=tokens, stream=answer.streamed)
        await caller.ask(asked, answer, timeout_s=self._shape.limit_s)
        return caller if caller.open else None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of times in seconds; None where there are none."""

    count: int
    p50_s: float | None
    p99_s: float | None
    max_s: float | None

    @classmethod
    def of(cls, times_s: Iterable[float]) -> "Latency":
        found = np.fromiter(times_s, dtype=np.float64)
        if not found.size:
            return cls(count=0, p50_s=None, p99_s=None, max_s=None)
        p50, p99, longest = (float(value) for value in np.quantile(found, (0.5, 0.99, 1.0)))
        return cls(count=int(found.size), p50_s=p50, p99_s=p99, max_s=longest)


def ends(answers: Sequence[Answer]) -> dict[str, int]:
    """How many ended how, the most first."""
    return dict(Counter(str(answer.end) for answer in answers).most_common())


def short_ones(answers: Sequence[Answer], *, holds: Callable[[Answer], bool] = lambda _: True) -> Latency:
    """How long those that were not streamed, were answered, and are so, took."""
    return Latency.of(
        answer.took_s for answer in answers if not answer.streamed and answer.end is End.WHOLE and holds(answer)
    )
