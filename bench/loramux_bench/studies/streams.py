"""Warm streams: answers that go on for as long as somebody watches them, each token's arrival noted."""

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import httpx
import numpy as np

from loramux_bench.apis.lines import LineTooLarge
from loramux_bench.apis.sse import EventStream
from loramux_bench.errors import EndpointError
from loramux_bench.results.measures import Values
from loramux_bench.studies.token_chunks import carries_token

_BEGUN_TOKENS = 4
"""Tokens of each stream before it counts as warm: prefill and the batch's first steps are over."""
_SILENCE_S = 120.0
"""A stream that says nothing for so long is dead."""
_TOKENS_LEFT = 64
"""Of the longest answer: room for the prompt."""


class WarmStreams:
    """So many streams of `model` at once; a context manager below asyncio. On entering it, each has begun. One that has
    come to its longest answer is followed by another. Times are of `time.perf_counter()`, taken as bytes are read."""

    def __init__(self, http: httpx.AsyncClient, model: str, count: int, *, max_model_len: int) -> None:
        self._http = http
        self._model = model
        self._max_tokens = max_model_len - _TOKENS_LEFT
        self._count = count
        self._answers: list[list[list[float]]] = [[] for _ in range(count)]
        """Of each stream, each of its answers' tokens' times."""
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._failure: EndpointError | None = None

    async def __aenter__(self) -> Self:
        """Raises `EndpointError` where one is refused."""
        self._tasks = [asyncio.create_task(self._stream(number)) for number in range(self._count)]
        try:
            await self._until(lambda answers: sum(map(len, answers)) >= _BEGUN_TOKENS)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._end()

    async def past(self, at: float) -> None:
        """Returns when each stream has had a token after `at`: the gap that was open then is closed. Raises
        `EndpointError` where one broke."""
        await self._until(lambda answers: bool(answers and answers[-1] and answers[-1][-1] > at))

    def gaps(self, begin: float, end: float) -> Values:
        """Seconds between tokens of one answer, of the gaps that began in this time: call `past(end)` first."""
        return np.concatenate([gaps_within(times, begin, end) for answers in self._answers for times in answers])

    async def _until(self, holds: Callable[[list[list[float]]], bool]) -> None:
        while not all(holds(answers) for answers in self._answers):
            if self._failure is not None:
                raise self._failure
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), _SILENCE_S)
            except TimeoutError:
                raise EndpointError(f"The streams said nothing for {_SILENCE_S:g} s.") from None

    async def _stream(self, number: int) -> None:
        try:
            while True:
                await self._answer(number)
        except EndpointError as error:
            self._failure = error
        except (httpx.HTTPError, LineTooLarge) as error:
            self._failure = EndpointError(f"A warm stream broke: {error!r}.")
        self._news.set()

    async def _answer(self, number: int) -> None:
        """One request, read to its end."""
        times: list[float] = []
        self._answers[number].append(times)
        body = {
            "model": self._model,
            "prompt": f"Tale {number}.{len(self._answers[number])}: Once upon a time there was",
            "max_tokens": self._max_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
        }
        events = EventStream()
        async with self._http.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                said = (await answer.aread()).decode("utf-8", "replace")[:500]
                raise EndpointError(f"A warm stream was refused with {answer.status_code}: {said}")
            async for part in answer.aiter_raw():
                at = time.perf_counter()
                for event in events.feed(part):
                    self._take(event.data, at, times)
        if not times:
            raise EndpointError("A warm stream ended without a token.")

    def _take(self, data: bytes, at: float, times: list[float]) -> None:
        if carries_token(data):
            times.append(at)
            self._news.set()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def gaps_within(times: Sequence[float], begin: float, end: float) -> Values:
    """Gaps between neighbours that begin at or after `begin` and before `end`, however long they last: a stall at the
    end of the window counts whole. Pure."""
    at = np.asarray(times, dtype=np.float64)
    starts = at[:-1]
    found: Values = np.diff(at)[(starts >= begin) & (starts < end)]
    return found
