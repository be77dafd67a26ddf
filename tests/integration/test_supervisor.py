"""The supervisor over real processes: a stand-in for vLLM that starts in a moment."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from loramux_adapters.clock import SystemClock
from loramux_adapters.errors import EngineTimeout
from loramux_adapters.model import Capabilities
from loramux_adapters.ports import LoraEngine
from loramux_serving.engine import health
from loramux_serving.engine.client import VllmEngine
from loramux_serving.engine.host import Host, child, elsewhere
from loramux_serving.engine.process import free_port
from loramux_serving.engine.replica import EngineReplica, ReplicaState
from loramux_serving.engine.spec import LaunchPlan
from loramux_serving.engine.supervisor import Patience, Supervisor
from tests.fakes import vllm_server

ASSUMED = Capabilities(dynamic_lora=True, max_loras=8, max_cpu_loras=32, max_lora_rank=16, evict=False)
PATIENCE = Patience(start_timeout_s=20.0, restart_backoff_s=0.05, restart_backoff_max_s=0.2)


def fake_vllm(port: int, *options: str) -> LaunchPlan:
    argv = (sys.executable, str(Path(vllm_server.__file__)), "--port", str(port), "--plugin", *options)
    return LaunchPlan(argv, {"PATH": os.environ["PATH"]})


def fake_host(*options: str, lines: list[str] | None = None, stop_timeout_s: float = 5.0) -> Host:
    return child(
        lambda port: fake_vllm(port, *options),
        port=0,
        stop_timeout_s=stop_timeout_s,
        sink=(lines if lines is not None else []).append,
    )


class Calls:
    """What the supervisor told the manager. `fail` times, reconciling raises."""

    def __init__(self, replica: EngineReplica, fail: int = 0) -> None:
        self.told: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._replica = replica
        self._fail = fail

    async def ready(self, engine: LoraEngine) -> None:
        self.told.append(f"ready {engine.replica_id} while {self._replica.state}")
        await self.gate.wait()
        if self._fail:
            self._fail -= 1
            raise EngineTimeout("The engine did not answer within 1 s.")

    def lost(self, replica_id: str) -> None:
        self.told.append(f"lost {replica_id}")


@asynccontextmanager
async def supervised(
    host: Host, *, fail: int = 0, patience: Patience = PATIENCE, url: str = ""
) -> AsyncIterator[tuple[EngineReplica, Calls]]:
    replica = EngineReplica("engine-0", clock=SystemClock(), url=url)
    calls = Calls(replica, fail)
    async with httpx.AsyncClient() as client:
        engine = VllmEngine(replica, client, assumed=ASSUMED, load_timeout_s=5.0)
        async with Supervisor(
            replica,
            engine,
            host,
            client,
            patience=patience,
            health_interval_s=0.1,
            on_ready=calls.ready,
            on_lost=calls.lost,
        ):
            yield replica, calls


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_state(replica: EngineReplica, state: ReplicaState) -> None:
    await until(lambda: replica.state is state)


def group(pid: int) -> set[int]:
    """The processes of the group of `pid` that run."""
    found = set()
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == os.getpgid(pid) and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


async def test_an_engine_becomes_ready_after_it_is_reconciled_and_is_gone_in_the_end(tmp_path: Path) -> None:
    async with supervised(fake_host("--children", str(tmp_path / "pids"))) as (replica, calls):
        calls.gate.clear()
        await until(lambda: bool(calls.told))
        assert replica.state is ReplicaState.STARTING
        calls.gate.set()
        await until_state(replica, ReplicaState.READY)
        server, _ = map(int, (tmp_path / "pids").read_text().split())
        members = group(server)
        assert len(members) == 3, "the leash, the server and its child"
        assert os.getpgid(server) != os.getpgid(0)
        status = replica.status()
        assert status.capabilities is not None
        assert status.capabilities.max_cpu_loras == 32
        assert (status.restarts, status.detail) == (0, "")

    assert calls.told == ["ready engine-0 while starting", "lost engine-0"]
    assert replica.state is ReplicaState.STOPPED
    await until(lambda: not any(_runs(pid) for pid in members), 5.0)


async def test_an_engine_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    host = fake_host("--ignore-term", "--children", str(tmp_path / "pids"), stop_timeout_s=0.2)
    async with supervised(host) as (replica, _):
        await until_state(replica, ReplicaState.READY)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]

    await until(lambda: not any(_runs(pid) for pid in pids), 5.0)


@pytest.mark.parametrize("victim", ["server", "leash"])
async def test_a_killed_engine_is_started_again_whole(tmp_path: Path, victim: str) -> None:
    async with supervised(fake_host("--children", str(tmp_path / "pids"))) as (replica, calls):
        await until_state(replica, ReplicaState.READY)
        server, worker = map(int, (tmp_path / "pids").read_text().split())
        leash = psutil.Process(server).ppid()
        os.kill(server if victim == "server" else leash, signal.SIGKILL)
        await until(lambda: replica.restarts == 1 and replica.state is ReplicaState.READY)

        assert not _runs(worker), "what it left behind is gone"
        assert not _runs(server)
        assert calls.told[:3] == ["ready engine-0 while starting", "lost engine-0", "ready engine-0 while starting"]
        assert (await _get(f"{replica.url}/health")) == 200


async def test_a_crash_loop_says_why_and_backs_off() -> None:
    lines: list[str] = []
    words = "api_server.py: error: unrecognized arguments: --nope"
    begun = time.monotonic()
    async with supervised(fake_host("--crash", words, lines=lines)) as (replica, calls):
        await until(lambda: replica.restarts >= 3)
        await until_state(replica, ReplicaState.FAILED)
        status = replica.status()

    assert time.monotonic() - begun > 0.05 + 0.1 + 0.2
    assert status.code == "engine_config_invalid"
    assert words in status.detail
    assert words in status.log
    assert lines[0] == "[engine-0] fake vLLM is starting"
    assert calls.told == []


async def test_a_program_that_is_not_there_fails_with_its_name() -> None:
    def plan(port: int) -> LaunchPlan:
        return LaunchPlan(("/nowhere/python",), {})

    async with supervised(child(plan, port=0, stop_timeout_s=1.0, sink=lambda line: None)) as (replica, _):
        await until_state(replica, ReplicaState.FAILED)
        assert replica.status().code == "engine_config_invalid"
        assert "/nowhere/python" in replica.status().detail


async def test_a_start_that_takes_too_long_is_given_up() -> None:
    patience = Patience(start_timeout_s=0.5, restart_backoff_s=30.0, restart_backoff_max_s=30.0)
    async with supervised(fake_host("--start-s", "60"), patience=patience) as (replica, _):
        await until_state(replica, ReplicaState.FAILED)
        assert "start_timeout_s" in replica.status().detail


@pytest.mark.parametrize("fault", ["hang", "ill"])
async def test_an_engine_that_hangs_or_reports_illness_is_started_again(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT_S", 0.3)
    patience = Patience(start_timeout_s=20.0, restart_backoff_s=0.3, restart_backoff_max_s=0.3)
    async with supervised(fake_host(), patience=patience) as (replica, _):
        await until_state(replica, ReplicaState.READY)
        assert await _get(f"{replica.url}/{fault}") == 200
        await until_state(replica, ReplicaState.FAILED)
        assert replica.status().detail.startswith("The engine was up, and now ")
        await until_state(replica, ReplicaState.READY)


async def test_reconciling_that_fails_is_tried_again_without_a_restart() -> None:
    async with supervised(fake_host(), fail=2) as (replica, calls):
        await until_state(replica, ReplicaState.READY)
        assert calls.told == ["ready engine-0 while starting"] * 3
        assert replica.restarts == 0


async def test_many_and_long_lines_are_passed_on_and_the_last_fifty_kept() -> None:
    lines: list[str] = []
    async with supervised(fake_host("--noise", "500", "--chunk", "200000", lines=lines)) as (replica, _):
        await until_state(replica, ReplicaState.READY)
        assert len(replica.status().log) == 50

    assert "[engine-0] line 499" in lines
    assert sum(line.count("x") for line in lines if set(line) == set("[engine-0] x")) == 200000


async def test_an_engine_that_somebody_else_runs_is_followed_by_its_health() -> None:
    port = free_port()
    async with supervised(elsewhere, url=f"http://127.0.0.1:{port}") as (replica, calls):
        await until(lambda: "refuses" in replica.status().detail)
        assert replica.state is ReplicaState.STARTING
        first = await _other(port)
        await until_state(replica, ReplicaState.READY)
        first.kill()
        await first.wait()
        replica.suspect()
        await until_state(replica, ReplicaState.FAILED)
        second = await _other(port)
        await until_state(replica, ReplicaState.READY)

    assert calls.told == ["ready engine-0 while starting", "lost engine-0"] * 2
    assert await _get(f"{replica.url}/health") == 200, "it is not ours to stop"
    second.kill()
    await second.wait()


async def test_suspicion_is_checked_at_once() -> None:
    async with httpx.AsyncClient() as client:
        replica = EngineReplica("engine-0", clock=SystemClock(), url=f"http://127.0.0.1:{free_port()}")
        watch = health.HealthWatch(replica, client, interval_s=3600.0)
        server = await _other(int(replica.url.rpartition(":")[2]))
        await watch.until_well(lambda found: None)
        ill = asyncio.create_task(watch.until_ill())
        await asyncio.wait({ill}, timeout=0.2)
        server.kill()
        await server.wait()
        replica.suspect()

        assert await asyncio.wait_for(ill, 5.0) is health.Health.GONE


async def test_nothing_is_left_when_the_gateway_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = textwrap.dedent(
        f"""
        import asyncio
        import sys
        from tests.integration.test_supervisor import fake_host, supervised, until_state
        from loramux_serving.engine.replica import ReplicaState

        async def main():
            async with supervised(fake_host("--children", {str(pids)!r}, "--ignore-term")) as (replica, _):
                await until_state(replica, ReplicaState.READY)
                print("@ready", file=sys.stderr, flush=True)
                await asyncio.sleep(3600)

        asyncio.run(main())
        """
    )
    gateway = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert gateway.stderr is not None
        assert await asyncio.wait_for(gateway.stderr.readline(), 30.0) == b"@ready\n"
        engine = [int(pid) for pid in pids.read_text().split()]
    finally:
        gateway.kill()
        await gateway.wait()

    await until(lambda: not any(_runs(pid) for pid in engine), 5.0)


async def _other(port: int) -> asyncio.subprocess.Process:
    plan = fake_vllm(port)
    return await asyncio.create_subprocess_exec(*plan.argv, env=dict(plan.env), stdout=subprocess.DEVNULL)


async def _get(url: str) -> int:
    async with httpx.AsyncClient() as client:
        return (await client.get(url)).status_code


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
