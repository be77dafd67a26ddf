"""A gateway that is told to stop (SIGTERM) under load: what became of the requests, and when it had gone."""

import asyncio
import os
import select
import signal
import time

import msgspec

from loramux_bench.overhead.paced_load import PacedLoad, Shape, ends
from loramux_bench.overhead.raw_client import End
from loramux_bench.overhead.side import Side

_AFTER_S = 1.0
"""Short requests go on for so long after the signal."""
_BROKEN = (End.CUT, End.ERROR_FRAME, End.CLOSED, End.HUNG)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    load: Shape = Shape()
    ttft_s: float = 0.1
    itl_s: float = 0.02
    before_s: float = 3.0
    limit_s: float = 15.0
    """The gateway's `shutdown_timeout_s`."""
    patience_s: float = 20.0
    """Longest wait, beyond the limit, for the process to end."""


class Shutdown(msgspec.Struct, frozen=True, kw_only=True):
    side: str
    limit_s: float | None
    """None where it has no such setting."""
    under_way: dict[str, int]
    """How the requests ended that were under way at the signal."""
    first_cut_s: float | None
    """From the signal to the first of them that broke off; None where none did."""
    last_end_s: float
    """From the signal to the end of the last of them."""
    later: dict[str, int]
    """How those ended that were begun after it, most of them on new connections."""
    exit_s: float | None
    """From the signal to the end of the process; None where it did not end."""

    @property
    def cut_early(self) -> int:
        """Requests that broke off before the limit."""
        if self.first_cut_s is None or (self.limit_s is not None and self.first_cut_s >= self.limit_s):
            return 0
        return sum(self.under_way.get(str(end), 0) for end in _BROKEN)


async def stop(side: Side, plan: Plan, *, limited: bool) -> Shutdown:
    """Ends the side's first process. `limited`: it was started with the plan's limit."""
    process = os.pidfd_open(side.pids[0])
    try:
        async with PacedLoad(side, plan.load, name="stop") as load:
            await asyncio.sleep(plan.before_s)
            load.no_more_streams()
            at = time.perf_counter()
            os.kill(side.pids[0], signal.SIGTERM)
            exited = asyncio.create_task(asyncio.to_thread(_exit, process, plan.limit_s + plan.patience_s))
            await asyncio.sleep(_AFTER_S)
        exited_at = await exited
    finally:
        os.close(process)
    under_way = [answer for answer in load.answers if answer.began_at < at < answer.ended_at]
    return Shutdown(
        side=side.name,
        limit_s=plan.limit_s if limited else None,
        under_way=ends(under_way),
        first_cut_s=min((answer.ended_at - at for answer in under_way if answer.end in _BROKEN), default=None),
        last_end_s=max((answer.ended_at - at for answer in under_way), default=0.0),
        later=ends([answer for answer in load.answers if answer.began_at >= at]),
        exit_s=None if exited_at is None else exited_at - at,
    )


def _exit(process: int, timeout_s: float) -> float | None:
    """When the process of this descriptor ended."""
    ended, _, _ = select.select([process], [], [], timeout_s)
    return time.perf_counter() if ended else None
