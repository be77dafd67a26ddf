"""One streamed answer: each frame in a write of its own, when it is due."""

import asyncio
import time

from loramux_bench.overhead.engine.answers import Answers
from loramux_bench.overhead.engine.books import Pace
from loramux_bench.overhead.engine.ticks import Ticks, rounded


class Stream:
    """The first frame is due `ttft_s` after the request, frame i `i * itl_s` later, less what is more than a whole
    millisecond of the clock, whatever became of those before it. Without `itl_s`, each is written one turn of the loop
    after the one before, so that no two are in one write; then its stamp says nothing."""

    def __init__(
        self,
        transport: asyncio.Transport,
        answers: Answers,
        pace: Pace,
        tokens: int,
        usage: bool,
        ticks: Ticks,
    ) -> None:
        self._transport = transport
        self._answers = answers
        self._tokens = tokens
        self._usage = usage
        self._ticks = ticks
        self._loop = asyncio.get_running_loop()
        self._first = time.perf_counter() + pace.ttft_s
        self._grid = rounded(self._first)
        self._itl_s = pace.itl_s
        self._sent = 0
        self._paused = False
        self._over = False

    def start(self) -> None:
        self._transport.write(self._answers.stream_head)
        self._ticks.once(self._first, self._paced if self._itl_s else self._unpaced)

    def stop(self) -> None:
        """The caller has left."""
        self._over = True

    def pause(self) -> None:
        """Only for streams without pace: one with a pace is small, and its schedule is what is measured against."""
        self._paused = True

    def resume(self) -> None:
        was, self._paused = self._paused, False
        if was and self._sent and not self._itl_s and not self._over:
            self._loop.call_soon(self._unpaced)

    def _paced(self) -> None:
        if self._over:
            return
        now = time.perf_counter()
        late = now - (self._grid + self._sent * self._itl_s if self._sent else self._first)
        if self._sent == 0:
            self._transport.write(self._answers.role)
        self._sent += 1
        if self._sent < self._tokens:
            self._transport.write(self._answers.delta(now, late))
            self._ticks.at(self._grid + self._sent * self._itl_s, self._paced)
        else:
            self._transport.write(self._answers.last(now, late, self._tokens, self._usage))
            self._over = True

    def _unpaced(self) -> None:
        if self._over or self._paused:
            return
        if self._sent == 0:
            self._transport.write(self._answers.role)
        self._sent += 1
        if self._sent < self._tokens:
            self._transport.write(self._answers.deltas[self._sent & 1])
            self._loop.call_soon(self._unpaced)
        else:
            self._transport.write(self._answers.last(0.0, 0.0, self._tokens, self._usage))
            self._over = True
