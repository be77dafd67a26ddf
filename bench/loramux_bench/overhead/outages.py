"""An engine of two that dies, or stands still, under load: what became of the requests."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec
import numpy as np

from loramux_bench.mock.process import MockProcess
from loramux_bench.overhead.paced_load import Latency, PacedLoad, Shape, ends, short_ones
from loramux_bench.overhead.raw_client import Answer, End
from loramux_bench.overhead.side import Side

Served = Callable[[], Awaitable[int]]
"""How many engines the gateway now gives requests to. Where a gateway can be asked that."""

_LOOK_EVERY_S = 0.02


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    load: Shape = Shape()
    ttft_s: float = 0.1
    itl_s: float = 0.02
    before_s: float = 4.0
    after_s: float = 6.0
    """From the kill to the end of the load."""
    stall_s: float = 4.0


class Killed(msgspec.Struct, frozen=True, kw_only=True):
    """One of two engines got SIGKILL. Each group by how its requests ended."""

    side: str
    streaming: dict[str, int]
    """Streams of which some had come before, from either engine."""
    waiting: dict[str, int]
    """Requests that were under way and had got nothing."""
    later: dict[str, int]
    """Begun after it."""
    short_before: Latency
    short_after: Latency
    """Short requests that were answered; begun after it."""
    out_of_service_s: float | None
    """From the kill to the gateway's word that it has one engine; None where it can not be asked."""

    @property
    def failed(self) -> int:
        """Requests that had got nothing, or were not yet begun, and were not answered."""
        return _not_whole(self.waiting) + _not_whole(self.later)

    @property
    def hung(self) -> int:
        return sum(group.get(str(End.HUNG), 0) for group in (self.streaming, self.waiting, self.later))


class Stalled(msgspec.Struct, frozen=True, kw_only=True):
    """One of two engines stood still (SIGSTOP, then SIGCONT)."""

    side: str
    stall_s: float
    short_before: Latency
    short_meanwhile: Latency
    """Of the other engine, begun in the stall."""
    gaps_before: Latency
    gaps_meanwhile: Latency
    """Between pieces of the other engine's streams."""
    begun: int
    """Requests begun in the stall."""
    held: int
    """Of these, those that were given to the engine that stood still."""
    held_ends: dict[str, int]
    """How all of that engine's requests ended that were under way at some time of the stall."""
    other_ends: dict[str, int]

    @property
    def added_p99_s(self) -> float | None:
        if self.short_before.p99_s is None or self.short_meanwhile.p99_s is None:
            return None
        return self.short_meanwhile.p99_s - self.short_before.p99_s


async def kill(side: Side, mocks: Sequence[MockProcess], plan: Plan, served: Served | None = None) -> Killed:
    """The first of the mocks dies."""
    looked: asyncio.Task[float | None] | None = None
    async with PacedLoad(side, plan.load, name="kill") as load:
        await asyncio.sleep(plan.before_s)
        at = time.perf_counter()
        os.kill(mocks[0].pid, signal.SIGKILL)
        if served is not None:
            looked = asyncio.create_task(_one_left(served, at, at + plan.after_s))
        await asyncio.sleep(plan.after_s)
    under_way = [answer for answer in load.answers if answer.began_at < at < answer.ended_at]
    later = [answer for answer in load.answers if answer.began_at >= at]
    return Killed(
        side=side.name,
        streaming=ends([answer for answer in under_way if _had_some(answer, at)]),
        waiting=ends([answer for answer in under_way if not _had_some(answer, at)]),
        later=ends(later),
        short_before=short_ones(load.answers, holds=lambda answer: answer.ended_at < at),
        short_after=short_ones(later),
        out_of_service_s=None if looked is None else await looked,
    )


async def stall(side: Side, mocks: Sequence[MockProcess], plan: Plan) -> Stalled:
    """The first of the mocks stands still. Both go on afterwards; their logs are read."""
    async with PacedLoad(side, plan.load, name="stall") as load:
        await asyncio.sleep(plan.before_s)
        from_s = time.perf_counter()
        os.kill(mocks[0].pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(plan.stall_s)
        finally:
            to_s = time.perf_counter()
            with suppress(ProcessLookupError):
                os.kill(mocks[0].pid, signal.SIGCONT)
    stalled = await asyncio.to_thread(mocks[0].log)
    ids = {entry["request_id"] for entry in stalled["requests"]}
    touched = [answer for answer in load.answers if answer.began_at < to_s and answer.ended_at > from_s]
    begun = [answer for answer in touched if answer.began_at >= from_s]
    others = [answer for answer in load.answers if answer.id not in ids]
    return Stalled(
        side=side.name,
        stall_s=to_s - from_s,
        short_before=short_ones(load.answers, holds=lambda answer: answer.ended_at < from_s),
        short_meanwhile=short_ones([answer for answer in begun if answer.id not in ids]),
        gaps_before=_gaps(load.answers, from_s - plan.before_s, from_s),
        gaps_meanwhile=_gaps(others, from_s, to_s),
        begun=len(begun),
        held=sum(answer.id in ids for answer in begun),
        held_ends=ends([answer for answer in touched if answer.id in ids]),
        other_ends=ends([answer for answer in touched if answer.id not in ids]),
    )


async def _one_left(served: Served, at: float, until: float) -> float | None:
    while time.perf_counter() < until:
        if await served() == 1:
            return time.perf_counter() - at
        await asyncio.sleep(_LOOK_EVERY_S)
    return None


def _had_some(answer: Answer, at: float) -> bool:
    return bool(answer.pieces_at) and answer.pieces_at[0] <= at


def _gaps(answers: Sequence[Answer], from_s: float, to_s: float) -> Latency:
    """Between pieces of streams, those that ended in this time."""
    gaps: list[float] = []
    for answer in answers:
        at = np.asarray(answer.pieces_at)
        gaps.extend(np.diff(at)[(at[1:] >= from_s) & (at[1:] < to_s)].tolist())
    return Latency.of(gaps)


def _not_whole(group: dict[str, int]) -> int:
    return sum(count for end, count in group.items() if end != End.WHOLE)
