"""Many connections held beside a load: idle ones, and callers that read slowly. Who is harmed, and what they cost."""

import asyncio
import json
from collections.abc import Sequence

import msgspec
import uvloop

from loramux_bench.errors import EndpointError
from loramux_bench.mock.process import MockProcess
from loramux_bench.overhead.cores import started_on
from loramux_bench.overhead.held_rows import Held, goals, held_table
from loramux_bench.overhead.open_files import open_files
from loramux_bench.overhead.paced_load import PacedLoad, ends, short_ones
from loramux_bench.overhead.paced_load import Shape as LoadShape
from loramux_bench.overhead.paced_mocks import before, compared, paced_mocks, sparing
from loramux_bench.overhead.part import Options, Outcome
from loramux_bench.overhead.raw_client import Answer, Caller, End, request
from loramux_bench.overhead.side import Side
from loramux_bench.overhead.slow_readers import Shape as SlowShape
from loramux_bench.overhead.slow_readers import SlowReaders, unread
from loramux_bench.overhead.usage import memory_bytes
from loramux_bench.overhead.workplace import Workplace

_AT_ONCE = 50
_LIMIT_S = 30.0
_AFTER = 100
_AFTER_S = 10.0
_SPARE_FILES = 500
"""Descriptors for everything else that this process has open."""
_ROOM = "4096"
_SETTINGS = {"ADMISSION__MAX_CONCURRENT": _ROOM, "ADMISSION__MAX_CONCURRENT_PER_ADAPTER": _ROOM}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    idle: int = 2000
    slow: SlowShape = SlowShape()
    load: LoadShape = LoadShape(streams=0, short_rps=200.0)
    seconds: float = 10.0
    """Of the load in each phase."""
    settle_s: float = 6.0
    """From the last slow reader's request to the load."""
    ttft_s: float = 0.02


def connections(place: Workplace, options: Options) -> Outcome:
    """The part."""
    plan = Plan()
    remarks = []
    files = open_files()
    if files < needed_files(plan):
        plan = fitting(plan, files)
        remarks.append(
            f"This process may open {files} files: {plan.idle} idle connections and {plan.slow.readers} slow readers "
            f"in place of more."
        )
    rows: list[Held] = []
    for name in compared(place, options):
        with (
            sparing(place, name),
            paced_mocks(place, 1, ttft_s=plan.ttft_s, itl_s=0.0) as mocks,
            before(place, name, mocks, name=f"{name}-connections", settings=_SETTINGS) as side,
            started_on(place.cores.load),
        ):
            found = uvloop.run(hold(side, mocks, plan))
            rows.extend(found)
            place.tell(f"{name}: {sum(row.served for row in found)} of {sum(row.held for row in found)} served")
    remarks.append(
        "A slow reader keeps its place at the engine: loramux ran with room for all of them (admission.max_concurrent "
        "and max_concurrent_per_adapter); by default they would wait for each other."
    )
    return Outcome({"plan": plan, "rows": rows}, [held_table(rows)], goals(rows), remarks)


async def hold(side: Side, mocks: Sequence[MockProcess], plan: Plan) -> list[Held]:
    """Quiet, beside idle connections, beside slow readers, and quiet again. One mock."""
    await _load(side, plan, "warm")
    first = await _load(side, plan, "quiet-1")
    without_bytes = _resident(side)
    callers = await _open(side, plan.idle)
    idle_bytes = _resident(side) - without_bytes
    beside_idle = await _load(side, plan, "beside-idle")
    again = await _ask_all(side, callers, "idle-again")
    for caller in callers:
        caller.close()
    after_idle = await _many(side, plan, "after-idle")
    right = await _text(side, plan.slow.tokens)
    without_bytes = _resident(side)
    async with SlowReaders(side, plan.slow, name="slow") as slow:
        await asyncio.sleep(plan.settle_s)
        slow_bytes = _resident(side) - without_bytes
        held_back = unread(int(mocks[0].url.rpartition(":")[2]))
        beside_slow = await _load(side, plan, "beside-slow")
        await slow.read_on(_LIMIT_S)
    after_slow = await _many(side, plan, "after-slow")
    second = await _load(side, plan, "quiet-2")
    quiet = short_ones([*first, *second])
    return [
        Held(
            side=side.name,
            what="idle connections",
            held=len(callers),
            quiet=quiet,
            beside=short_ones(beside_idle),
            others=ends(beside_idle),
            kib_each=idle_bytes / 1024 / max(1, len(callers)),
            served=sum(answer.end is End.WHOLE for answer in again),
            ends=ends(again),
            held_back=None,
            after=ends(after_idle),
        ),
        Held(
            side=side.name,
            what="slow readers",
            held=plan.slow.readers,
            quiet=quiet,
            beside=short_ones(beside_slow),
            others=ends(beside_slow),
            kib_each=slow_bytes / 1024 / max(1, plan.slow.readers),
            served=sum(answer.end is End.WHOLE and text(answer) == right for answer in slow.answers),
            ends=ends(slow.answers),
            held_back=held_back,
            after=ends(after_slow),
        ),
    ]


async def _load(side: Side, plan: Plan, name: str) -> list[Answer]:
    async with PacedLoad(side, plan.load, name=name) as load:
        await asyncio.sleep(plan.seconds)
    return load.answers


async def _many(side: Side, plan: Plan, name: str) -> list[Answer]:
    """Streams at the same time: as many as connections to the engine can have been kept, or a hundred."""
    answers = [Answer(f"{name}-{number}", streamed=True) for number in range(min(plan.slow.readers, _AFTER))]

    async def ask(answer: Answer) -> None:
        caller = await Caller.connected(side.address)
        await _ask(side, caller, answer, tokens=16, limit_s=_AFTER_S)
        caller.close()

    await asyncio.gather(*map(ask, answers))
    return answers


async def _open(side: Side, count: int) -> list[Caller]:
    """Each of them has had one request answered."""
    callers: list[Caller] = []
    for first in range(0, count, _AT_ONCE):
        fresh = await asyncio.gather(*(Caller.connected(side.address) for _ in range(min(_AT_ONCE, count - first))))
        await _ask_all(side, fresh, f"idle-{first}")
        callers += fresh
    return callers


async def _ask_all(side: Side, callers: Sequence[Caller], name: str) -> list[Answer]:
    answers: list[Answer] = []
    for first in range(0, len(callers), _AT_ONCE):
        some = callers[first : first + _AT_ONCE]
        fresh = [Answer(f"{name}-{first + number}", streamed=False) for number in range(len(some))]
        await asyncio.gather(
            *(_ask(side, caller, answer, tokens=1) for caller, answer in zip(some, fresh, strict=True))
        )
        answers += fresh
    return answers


async def _ask(side: Side, caller: Caller, answer: Answer, *, tokens: int, limit_s: float = _LIMIT_S) -> None:
    asked = request(side.address, side.headers, side.model, answer.id, tokens=tokens, stream=answer.streamed)
    await caller.ask(asked, answer, timeout_s=limit_s)


async def _text(side: Side, tokens: int) -> str:
    """What a caller is told who reads at once. Raises `EndpointError` where that is not all."""
    caller = await Caller.connected(side.address)
    answer = Answer("read-at-once", streamed=True)
    await _ask(side, caller, answer, tokens=tokens)
    caller.close()
    if answer.end is not End.WHOLE:
        raise EndpointError(f"{side.name} did not answer a long stream whole: {answer.end}.")
    return text(answer)


def text(answer: Answer) -> str:
    """Of a whole stream: its tokens, joined, and its usage."""
    said: list[str] = []
    for frame in answer.body.split(b"\n\n"):
        data = frame.removeprefix(b"data: ")
        if data.startswith(b"{"):
            event = json.loads(data)
            said += [choice["delta"].get("content") or "" for choice in event.get("choices", [])]
            said += [str(event["usage"])] if event.get("usage") else []
    return "".join(said)


def needed_files(plan: Plan) -> int:
    """The gateway has one for its caller and one for the engine."""
    return 2 * max(plan.idle, plan.slow.readers) + _SPARE_FILES


def fitting(plan: Plan, files: int) -> Plan:
    most = max(10, (files - _SPARE_FILES) // 2)
    return msgspec.structs.replace(
        plan,
        idle=min(plan.idle, most),
        slow=msgspec.structs.replace(plan.slow, readers=min(plan.slow.readers, most)),
    )


def _resident(side: Side) -> int:
    return sum(memory_bytes(pid) for pid in side.pids)
