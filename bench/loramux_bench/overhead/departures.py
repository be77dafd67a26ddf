"""Callers that leave: how long until the engine is told."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any, Literal, get_args

import msgspec

from loramux_bench.mock.process import MockProcess
from loramux_bench.overhead.paced_load import Latency, PacedLoad, Shape, ends
from loramux_bench.overhead.raw_client import Answer, Caller, request
from loramux_bench.overhead.side import Side

GOAL_S = 0.1

When = Literal["in mid-stream", "before the first token", "before a whole answer"]
"""Of a stream after some of its frames, of a stream that has none yet, and of a request that is not streamed."""
WHEN: tuple[When, ...] = get_args(When)

_PIECES = 4
_EVERY_S = 0.02
_SETTLE_S = 1.5
"""After the last has left: an engine that was not told until then counts as not told."""
_LIMIT_S = 30.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    leavers: int = 150
    """Of each kind; every second closes its connection, the others reset it."""
    load: Shape = Shape()
    ttft_s: float = 0.3
    itl_s: float = 0.02


class Departures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one kind, on one side."""

    side: str
    when: When
    left: int
    told: Latency
    """From the caller's close to the end of the engine's connection."""
    not_told: int
    """The engine went on, to the end or until nobody waited any longer."""
    unseen: int
    """The request had not come to the engine."""
    others: dict[str, int]
    """How the requests of the load beside them ended."""


async def leave(side: Side, mocks: Sequence[MockProcess], plan: Plan) -> list[Departures]:
    """All kinds, one after the other, under the load. The mocks' logs are cleared and read."""
    rows: list[Departures] = []
    for when in WHEN:
        await _each(mocks, MockProcess.clear_log)
        name = when.replace(" ", "-")
        async with PacedLoad(side, plan.load, name=f"load-{name}") as load:
            leavers = [
                asyncio.create_task(_leaver(side, plan, when, f"{name}-{number}", number))
                for number in range(plan.leavers)
            ]
            left_at = dict(await asyncio.gather(*leavers))
            await asyncio.sleep(_SETTLE_S)
            logs = await _each(mocks, MockProcess.log)
        rows.append(_row(side, when, left_at, logs, load.answers))
    return rows


async def _each(mocks: Sequence[MockProcess], call: Any) -> list[Any]:
    """In threads: the load goes on meanwhile."""
    return await asyncio.gather(*(asyncio.to_thread(call, mock) for mock in mocks))


async def _leaver(side: Side, plan: Plan, when: When, id: str, number: int) -> tuple[str, float]:
    """Its request's id, and when it left."""
    await asyncio.sleep(number * _EVERY_S)
    answer = Answer(id, streamed=when != "before a whole answer")
    caller = await Caller.connected(side.address)
    tokens = 200 if answer.streamed else 20
    asked = request(side.address, side.headers, side.model, id, tokens=tokens, stream=answer.streamed)
    enough = asyncio.Event()

    def heard() -> None:
        if len(answer.pieces_at) >= _PIECES:
            enough.set()

    task = asyncio.create_task(caller.ask(asked, answer, timeout_s=_LIMIT_S, heard=heard))
    task.add_done_callback(lambda _: enough.set())
    if when == "in mid-stream":
        await enough.wait()
    else:
        await asyncio.sleep(plan.ttft_s / 2)
    left_at = time.perf_counter()
    if number % 2:
        caller.reset()
    else:
        caller.close()
    await task
    return id, left_at


def _row(
    side: Side, when: When, left_at: dict[str, float], logs: Sequence[dict[str, Any]], load: Sequence[Answer]
) -> Departures:
    seen = {
        entry["request_id"]: entry
        for entry in itertools.chain.from_iterable(log["requests"] for log in logs)
        if entry["request_id"] in left_at
    }
    told = {id: entry for id, entry in seen.items() if entry["cancelled"]}
    return Departures(
        side=side.name,
        when=when,
        left=len(left_at),
        told=Latency.of(entry["received_at"] + entry["ended_s"] - left_at[id] for id, entry in told.items()),
        not_told=len(seen) - len(told),
        unseen=len(left_at) - len(seen),
        others=ends(load),
    )
