"""The crew of workers, with real processes, and the books in memory."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loramux_adapters.clock import SystemClock
from loramux_adapters.errors import SettingsInvalid
from loramux_adapters.events import EventLog
from loramux_serving.relay.doors import DoorPlan
from loramux_serving.settings import Settings
from loramux_serving.workers.crew import Crew, WorkerStatus
from loramux_serving.workers.port import SharedPort
from tests.fakes.gates import Scene
from tests.fakes.relay_services import until

pytestmark = pytest.mark.timeout(120)

COUNT = 2


@dataclass
class Bench:
    crew: Crew
    port: SharedPort
    address: tuple[str, int]
    control_path: str
    events: EventLog
    restarted: list[int] = field(default_factory=list)

    async def start(self) -> None:
        await self.crew.start(self.port, self.control_path)

    def at(self, index: int) -> WorkerStatus | None:
        """The worker that serves at a place."""
        found = [each for each in self.crew.statuses() if each.index == index and each.state == "serving"]
        return found[0] if found else None

    async def kill(self, index: int) -> None:
        worker = self.at(index)
        assert worker is not None
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: worker not in self.crew.statuses(), 20)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Not started."""
    scene, clock, restarted = Scene(), SystemClock(), list[int]()
    events = EventLog(clock)
    settings = Settings(workers=COUNT, shutdown_timeout_s=0)
    crew = Crew(settings, DoorPlan("base"), scene.books, scene.recorder, clock, events, restarted.append)
    with socket.socket() as claim:
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claim.bind(("127.0.0.1", 0))
        address = claim.getsockname()
        with SharedPort(claim, COUNT) as port:
            yield Bench(crew, port, address, str(tmp_path / "control" / "sock"), events, restarted)
            await crew.drain()
    assert crew.statuses() == []


async def test_all_serve_when_it_has_started(bench: Bench) -> None:
    await bench.start()
    assert [status.state for status in bench.crew.statuses()] == ["serving"] * COUNT
    assert bench.restarted == []


async def test_a_worker_that_can_not_start_is_told_of(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(SettingsInvalid, match="could not start"):
        await bench.start()
    assert bench.crew.statuses() == []


async def test_no_process_can_be_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(SettingsInvalid, match="could not start"):
        await bench.start()


async def test_the_port_was_taken_meanwhile(bench: Bench) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(bench.address)
        other.listen()
        with pytest.raises(SettingsInvalid, match="listened on"):
            await bench.start()


async def test_a_caller_who_waits_at_a_dead_worker_is_served_by_its_successor(bench: Bench) -> None:
    """Nothing that the kernel had taken for it is lost."""
    await bench.start()
    stopped = [bench.at(index) for index in range(COUNT)]
    for worker in stopped:
        assert worker is not None
        os.kill(worker.pid, signal.SIGSTOP)
    reader, writer = await asyncio.open_connection(*bench.address)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    for worker in stopped:
        assert worker is not None
        os.kill(worker.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        line = await reader.readline()
    assert line.startswith(b"HTTP/1.1 503 ")  # there is no control process's HTTP server here
    writer.close()
    await writer.wait_closed()
    assert sorted(bench.restarted) == [0, 1]


async def test_one_that_ends_again_and_again_is_waited_for_longer_and_its_callers_go_elsewhere(bench: Bench) -> None:
    await bench.start()
    other = bench.at(1)
    await bench.kill(0)
    await until(lambda: bench.at(0) is not None, 20)
    await bench.kill(0)
    await until(lambda: bench.restarted == [0, 0], 20)
    for _ in range(20):  # in the pause: at the other one
        reader, writer = await asyncio.open_connection(*bench.address)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 503 ")
        writer.close()
        await writer.wait_closed()
    await until(lambda: bench.at(0) is not None, 20)
    assert bench.at(1) == other
    async with bench.events.subscribe(after=0) as events:
        lost = [await anext(events) for _ in range(2)]
    assert [(event.type, event.data["worker"]) for event in lost] == [("worker.lost", 0)] * 2
    assert "signal 9" in lost[0].data["reason"]


async def test_one_that_does_not_end_is_killed(bench: Bench) -> None:
    await bench.start()
    worker = bench.at(0)
    assert worker is not None
    os.kill(worker.pid, signal.SIGSTOP)
    await bench.crew.drain()
    assert bench.crew.statuses() == []
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
