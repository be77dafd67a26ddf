"""What the bench makes of what it saw of faults, memory and held connections."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

import pytest

from loramux_bench.overhead import connections, memory
from loramux_bench.overhead.departures import Departures
from loramux_bench.overhead.fault_rows import rows
from loramux_bench.overhead.memory import Sample, growth
from loramux_bench.overhead.outages import Killed
from loramux_bench.overhead.paced_load import Latency
from loramux_bench.overhead.raw_client import DONE, Answer, Caller, End, request
from loramux_bench.overhead.shutdown import Shutdown

_NONE = Latency(count=0, p50_s=None, p99_s=None, max_s=None)
_MIB = 2**20

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def samples(bytes_each: float, noise_bytes: float = 0.0, count: int = 40) -> list[Sample]:
    random = Random(1)
    return [
        Sample(
            requests=number * 5000,
            memory_bytes=int(100 * _MIB + number * 5000 * bytes_each + random.uniform(-noise_bytes, noise_bytes)),
        )
        for number in range(count)
    ]


def test_memory_that_grows_with_requests_is_found() -> None:
    found = growth(samples(bytes_each=100, noise_bytes=64 * 1024))
    assert found is not None
    assert found.value == pytest.approx(100 * 1000 / 1024, rel=0.05)
    assert found.low <= found.value <= found.high
    assert found.verdict == "grows"


def test_memory_that_goes_up_and_down_is_flat() -> None:
    found = growth(samples(bytes_each=0, noise_bytes=128 * 1024))
    assert found is not None
    assert found.verdict == "flat"


def test_growth_at_the_start_does_not_count() -> None:
    found = growth([Sample(requests=one.requests, memory_bytes=_MIB) for one in samples(1)[:1]] + samples(0)[1:])
    assert found is not None
    assert found.value == 0.0


def test_noise_larger_than_the_goal_leaves_it_open() -> None:
    found = growth(samples(bytes_each=8, noise_bytes=16 * _MIB))
    assert found is not None
    assert found.verdict == "not known"


def test_few_samples_say_nothing() -> None:
    assert growth(samples(100, count=6)) is None
    row = memory.Row(side="loramux", requests=1, errors=0, rps=1.0, samples=tuple(samples(1, count=2)), growth=None)
    (goal,) = memory.goals([row], memory.Plan())
    assert goal.kept is None


def left(*, told_s: float, not_told: int = 0) -> Departures:
    told = Latency(count=3, p50_s=told_s, p99_s=told_s, max_s=told_s)
    return Departures(
        side="loramux", when="in mid-stream", left=3, told=told, not_told=not_told, unseen=0, others={"whole": 3}
    )


@pytest.mark.parametrize(
    ("found", "kept"),
    [(left(told_s=0.05), True), (left(told_s=0.15), False), (left(told_s=0.05, not_told=1), False)],
)
def test_engines_must_be_told_in_time(found: Departures, kept: bool) -> None:
    (row,) = rows([found])
    assert row.kept is kept


def killed(**groups: dict[str, int]) -> Killed:
    given = {"streaming": {"error frame": 4}, "waiting": {"whole": 2}, "later": {"whole": 9}} | groups
    return Killed(side="loramux", **given, short_before=_NONE, short_after=_NONE, out_of_service_s=None)


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (killed(), []),
        (killed(waiting={"whole": 1, "error status": 1}), ["requests that had got nothing, or came later"]),
        (killed(later={"whole": 8, "refused": 1}), ["requests that had got nothing, or came later"]),
        (killed(streaming={"cut": 1}), ["streams under way, on both engines"]),
        (killed(streaming={"hung": 1}), ["streams under way, on both engines", "hung"]),
    ],
)
def test_what_an_engines_death_may_not_do(found: Killed, missed: list[str]) -> None:
    assert [row.what for row in rows([found]) if row.kept is False] == missed


def stopped(**told: object) -> Shutdown:
    given = {
        "side": "loramux",
        "limit_s": 2.0,
        "under_way": {"whole": 3, "cut": 1},
        "first_cut_s": 2.1,
        "last_end_s": 2.1,
        "later": {"refused": 5},
        "exit_s": 2.4,
    } | told
    return Shutdown(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (stopped(), []),
        (stopped(first_cut_s=1.9), ["requests under way"]),
        (stopped(limit_s=None), ["requests under way"]),
        (stopped(later={"cut": 1}), ["requests begun after it"]),
        (stopped(exit_s=4.5), ["process ended"]),
        (stopped(exit_s=None), ["process ended"]),
    ],
)
def test_what_a_gateway_that_stops_may_not_do(found: Shutdown, missed: list[str]) -> None:
    assert [row.what for row in rows([found]) if row.kept is False] == missed


def test_fewer_connections_where_files_are_few() -> None:
    plan = connections.Plan()
    fewer = connections.fitting(plan, 1024)
    assert connections.needed_files(fewer) <= 1024
    assert fewer.idle < plan.idle
    assert connections.fitting(plan, connections.needed_files(plan)) == plan


def asked(serve: Serve, *, streamed: bool = True, timeout_s: float = 5.0) -> Answer:
    """Of a server that does this with its first connection."""

    async def run() -> Answer:
        over = asyncio.Event()

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):  # a caller that hangs up resets
                await serve(reader, writer)
                writer.close()
                await writer.wait_closed()
            over.set()

        server = await asyncio.start_server(once, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()[:2]
            caller = await Caller.connected(address)
            answer = Answer("one", streamed=streamed)
            await caller.ask(request(address, {}, "m", "one", tokens=2, stream=streamed), answer, timeout_s=timeout_s)
            caller.close()
            await over.wait()
        return answer

    return asyncio.run(run())


def answering(head: bytes, *pieces: bytes, close: bool) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces))
        if not close:
            await reader.read()  # until the caller goes

    return serve


_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_FRAME = b'data: {"choices":[]}\n\n'
_FAILED = b'data: {"error":{"message":"The engine failed."}}\n\n'


@pytest.mark.parametrize(
    ("serve", "end"),
    [
        (answering(_HEAD, _FRAME, DONE, b"", close=False), End.WHOLE),
        (answering(_HEAD, _FRAME, _FAILED, b"", close=False), End.ERROR_FRAME),
        (answering(_HEAD, _FRAME, b"", close=False), End.CUT),
        (answering(_HEAD, _FRAME, close=True), End.CUT),
        (answering(b"", close=True), End.CLOSED),
        (answering(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", close=False), End.STATUS),
        (answering(b"rubbish\r\n\r\n", close=False), End.CUT),
    ],
)
def test_a_caller_knows_how_its_answer_ended(serve: Serve, end: End) -> None:
    assert asked(serve).end is end


def test_a_caller_does_not_wait_for_ever() -> None:
    answer = asked(answering(_HEAD, _FRAME, close=False), timeout_s=0.2)
    assert answer.end is End.HUNG
    assert len(answer.pieces_at) == 1
