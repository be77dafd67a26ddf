"""`loramux serve --workers 2`: the real command and its processes, with an engine that is a stand-in."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.fixtures.gateway import COMMAND, START_TIMEOUT_S, eventually
from tests.fixtures.vllm import NAME, random_adapter
from tests.fixtures.workers import WORKERS, Stream, WorkersGateway, slow_engine, streams

pytestmark = pytest.mark.timeout(240)

CONNECTIONS = 16
"""That all of them come to one of two workers is one chance in 32,768."""


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with slow_engine() as url:
        yield url


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, vllm_base: Path) -> Path:
    root = tmp_path_factory.mktemp("sources")
    for seed, name in enumerate(("one", "two")):
        random_adapter(vllm_base, root / name, rank=8, seed=seed)
    return root


@pytest.fixture(scope="module")
def gateway(engine: str, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkersGateway]:
    """For tests that leave it as it was."""
    with WorkersGateway(tmp_path_factory.mktemp("home"), engine, sources) as gateway:
        yield gateway


@pytest.fixture
def own(engine: str, sources: Path, tmp_path: Path) -> Iterator[WorkersGateway]:
    """One for a test that kills."""
    with WorkersGateway(tmp_path / "home", engine, sources) as gateway:
        yield gateway


@pytest.fixture
def callers(gateway: WorkersGateway) -> Iterator[list[httpx.Client]]:
    """Each with a connection that is there and stays, so over both workers."""
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.client()) for _ in range(CONNECTIONS)]
        for client in clients:
            client.get("/healthz").raise_for_status()
        yield clients


def ask(client: httpx.Client, model: str, tokens: int = 1, **headers: str) -> httpx.Response:
    return client.post("/v1/completions", json={"model": model, "prompt": "?", "max_tokens": tokens}, headers=headers)


def scraped(gateway: WorkersGateway, sample: str) -> float:
    lines = httpx.get(f"{gateway.url}/metrics", timeout=30.0).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def control_directory(pid: int) -> Path:
    """Of the socket that a worker was told of."""
    plan = json.loads(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2])
    return Path(plan["control_path"]).parent


# --- one gateway ---


def test_both_workers_carry_requests_and_they_are_counted_together(gateway: WorkersGateway) -> None:
    before = scraped(gateway, "loramux_requests_total")
    under_way = streams(gateway, CONNECTIONS, tokens=50)
    eventually(lambda: all(worker["requests"] > 0 for worker in gateway.workers()))
    workers = gateway.workers()
    assert [worker["index"] for worker in workers] == list(range(WORKERS))
    assert {worker["state"] for worker in workers} == {"serving"}
    assert len({worker["pid"] for worker in workers} | {gateway.pid}) == WORKERS + 1
    assert all(stream.ended().whole for stream in under_way)
    eventually(lambda: scraped(gateway, "loramux_requests_total") == before + CONNECTIONS)
    assert sum(worker["requests"] for worker in gateway.workers()) == 0
    assert gateway.outstanding() == 0


def test_a_change_holds_for_every_worker_when_it_is_acknowledged(
    gateway: WorkersGateway, sources: Path, callers: list[httpx.Client]
) -> None:
    with gateway.client() as operator:
        gateway.add("tone", sources / "one", sources / "two")
        assert [ask(caller, "tone").headers["x-loramux-version"] for caller in callers] == ["2"] * CONNECTIONS
        for number in (1, 2) * 3:
            answer = operator.post("/admin/v1/adapters/tone/promote", json={"version": number})
            assert answer.status_code == 200
            served = [ask(caller, "tone").headers["x-loramux-version"] for caller in callers]
            assert served == [str(number)] * CONNECTIONS
        operator.delete("/admin/v1/adapters/tone").raise_for_status()
        assert [ask(caller, "tone").status_code for caller in callers] == [404] * CONNECTIONS


def test_a_key_is_refused_by_every_worker_when_it_was_revoked(
    gateway: WorkersGateway, callers: list[httpx.Client]
) -> None:
    made = gateway.admin("POST", "/keys", json={"name": "shop"}).json()
    mine = {"Authorization": f"Bearer {made['key']}"}
    assert [ask(caller, NAME, **mine).status_code for caller in callers] == [200] * CONNECTIONS
    gateway.admin("DELETE", f"/keys/{made['id']}").raise_for_status()
    assert [ask(caller, NAME, **mine).status_code for caller in callers] == [401] * CONNECTIONS


def test_requests_a_minute_are_counted_over_all_workers(gateway: WorkersGateway, callers: list[httpx.Client]) -> None:
    made = gateway.admin("POST", "/keys", json={"name": "few", "requests_per_minute": 5}).json()
    answers = [ask(caller, NAME, Authorization=f"Bearer {made['key']}") for caller in callers]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * (CONNECTIONS - 5)
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].json()["error"]["code"] == "rate_limited"


def test_no_more_run_at_a_time_than_may_over_all_workers(engine: str, sources: Path, tmp_path: Path) -> None:
    with (
        slow_engine() as unused,
        WorkersGateway(tmp_path / "home", unused, sources, LORAMUX_ADMISSION__MAX_CONCURRENT="3") as gateway,
    ):
        under_way = streams(gateway, CONNECTIONS, tokens=10)
        eventually(lambda: all(worker["requests"] > 0 for worker in gateway.workers()))
        assert all(stream.ended().whole for stream in under_way)
        assert httpx.get(f"{unused}/fake/most").json() == 3


def test_an_adapter_that_is_deleted_under_load_is_404_from_the_answer_on(
    gateway: WorkersGateway, sources: Path
) -> None:
    gateway.add("gone", sources / "one")
    under_way = streams(gateway, CONNECTIONS, tokens=40, model="gone")
    eventually(lambda: all(stream.began for stream in under_way))
    gateway.admin("DELETE", "/adapters/gone").raise_for_status()
    late = [Stream(gateway.url, gateway.key, "gone", 1) for _ in range(CONNECTIONS)]
    assert {stream.ended().status for stream in late} == {404}
    assert all(stream.ended().whole for stream in under_way)
    eventually(lambda: gateway.admin("GET", "/adapters/gone").status_code == 404)


# --- what workers pass on ---


def test_an_upload_goes_through_a_worker(gateway: WorkersGateway, sources: Path, tmp_path: Path) -> None:
    archive = tmp_path / "one.tar.gz"
    subprocess.run(["tar", "-czf", str(archive), "-C", str(sources / "one"), "."], check=True)
    whole = archive.read_bytes()

    def pieces() -> Iterator[bytes]:
        for begin in range(0, len(whole), 50_000):
            yield whole[begin : begin + 50_000]

    for name, content in (("sent", whole), ("in-pieces", pieces())):
        answer = gateway.admin("PUT", f"/adapters/{name}/artifact?wait=true", content=content)
        assert answer.status_code in (200, 201, 202), answer.text
        with gateway.client() as client:
            assert ask(client, name).status_code == 200
        gateway.admin("DELETE", f"/adapters/{name}").raise_for_status()


def test_who_may_not_upload_hears_so_before_it_sends(gateway: WorkersGateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as caller:
        caller.sendall(
            b"PUT /admin/v1/adapters/x/artifact HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n"
            b"expect: 100-continue\r\n\r\n"
        )
        assert caller.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_a_body_that_is_expected_is_asked_for(gateway: WorkersGateway) -> None:
    body = json.dumps({"name": "asked"}).encode()
    head = f"POST /admin/v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nexpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as caller:
        caller.sendall(head.encode())
        assert caller.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.sendall(body)
        assert caller.recv(65536).startswith(b"HTTP/1.1 201 ")


def test_events_come_as_they_happen(gateway: WorkersGateway, sources: Path) -> None:
    with (
        gateway.client(20.0) as listener,
        listener.stream("GET", "/admin/v1/events") as events,
    ):
        lines = events.iter_lines()
        gateway.add("heard", sources / "one")
        assert any(line == "event: version.ready" for line in lines)
        gateway.admin("DELETE", "/adapters/heard").raise_for_status()
        assert any(line == "event: adapter.deleted" for line in lines)


def test_everything_else_is_the_control_processs_answer(gateway: WorkersGateway) -> None:
    with gateway.client() as client:
        assert client.get("/openapi.json").json()["info"]["title"] == "loramux"
        assert client.get("/docs").status_code == 200
        missing = client.get("/admin/v1/adapters/nobody")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "adapter_not_found")
        assert client.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"
        wrong = client.head("/healthz")
        assert (wrong.status_code, wrong.content) == (405, b"")
        assert client.get("/healthz").json() == {"status": "ok"}  # the connection is as before
        assert len(client.get("/healthz").headers.get_list("date")) == 1


def test_a_second_gateway_does_not_share_the_port(gateway: WorkersGateway, tmp_path: Path) -> None:
    for args in ([], ["--workers", "2"]):
        env = {"PATH": os.defpath, "LORAMUX_HOME": str(tmp_path), "LORAMUX_PORT": str(gateway.port)}
        done = subprocess.run(
            [COMMAND, "serve", *args], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert "can not be listened on" in done.stderr


class AnyPortGateway(WorkersGateway):
    """Found by what it says."""

    def wait_for(self, path: str, timeout_s: float = START_TIMEOUT_S) -> None:
        address = re.compile(r'"address": "(http://127\.0\.0\.1:\d+)"')
        eventually(lambda: address.search(self.log) is not None)
        found = address.search(self.log)
        assert found is not None
        self.url = found[1]
        super().wait_for(path, timeout_s)


def test_any_free_port_is_one_port(engine: str, sources: Path, tmp_path: Path) -> None:
    with AnyPortGateway(tmp_path / "home", engine, sources, LORAMUX_PORT="0") as gateway:
        under_way = streams(gateway, CONNECTIONS, tokens=20)
        eventually(lambda: all(worker["requests"] > 0 for worker in gateway.workers()))
        assert all(stream.ended().whole for stream in under_way)


# --- ends ---


def test_a_worker_that_is_killed_under_load(own: WorkersGateway, sources: Path) -> None:
    own.add("tone", sources / "one")
    under_way = streams(own, CONNECTIONS, tokens=100, model="tone")
    eventually(lambda: all(stream.began for stream in under_way))
    victim, other = own.workers()
    assert victim["requests"] + other["requests"] == CONNECTIONS
    os.kill(victim["pid"], signal.SIGKILL)
    eventually(lambda: own.outstanding() == other["requests"])  # at once, not with the others
    assert any(not stream.text.endswith("[DONE]\n\n") for stream in under_way)
    with own.client() as caller:
        assert ask(caller, "tone").status_code == 200
    whole = [stream.ended().whole for stream in under_way]
    assert whole.count(True) == other["requests"]
    eventually(lambda: len(own.pids()) == WORKERS)
    (successor,) = set(own.pids()) - {other["pid"]}
    assert successor != victim["pid"]
    assert scraped(own, 'loramux_worker_restarts_total{worker="0"}') == 1
    assert (
        scraped(own, 'loramux_requests_total{adapter="tone",endpoint="/v1/completions",outcome="cancelled"')
        == (victim["requests"])
    )
    own.admin("DELETE", "/adapters/tone").raise_for_status()  # nothing holds it
    eventually(lambda: own.admin("GET", "/adapters/tone").status_code == 404)
    under_way = streams(own, CONNECTIONS, tokens=30)
    eventually(lambda: all(worker["requests"] > 0 for worker in own.workers()))
    assert all(stream.ended().whole for stream in under_way)


def test_a_worker_that_is_told_to_stop_drains_and_is_replaced(own: WorkersGateway) -> None:
    under_way = streams(own, CONNECTIONS, tokens=60)
    eventually(lambda: all(stream.began for stream in under_way))
    leaving, staying = own.workers()
    failed: list[object] = []
    over = threading.Event()

    def keep_asking() -> None:
        while not over.is_set():
            stream = Stream(own.url, own.key, NAME, 1).ended()
            if not stream.whole:
                failed.append(stream)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    os.kill(leaving["pid"], signal.SIGTERM)
    eventually(lambda: leaving["pid"] not in own.pids())
    over.set()
    asking.join(60)
    assert failed == []
    assert all(stream.ended().whole for stream in under_way)
    eventually(lambda: [worker["state"] for worker in own.workers()] == ["serving"] * WORKERS)
    assert staying["pid"] in own.pids()
    assert scraped(own, "loramux_worker_restarts_total{") == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_gateway_that_is_told_to_stop_lets_requests_end(own: WorkersGateway, how: signal.Signals) -> None:
    pids = own.pids()
    under_way = streams(own, CONNECTIONS, tokens=100)
    eventually(lambda: all(stream.began for stream in under_way))
    with own.client() as listener, listener.stream("GET", "/admin/v1/events"):
        assert own.stop(how) == 0
    assert all(stream.ended().whole for stream in under_way)
    assert not any(alive(pid) for pid in pids)
    assert own.log.count('"event":"request"') == CONNECTIONS
    assert own.log.count('"outcome":"ok"') == CONNECTIONS


def test_what_outlasts_the_time_to_stop_is_ended_and_told(engine: str, sources: Path, tmp_path: Path) -> None:
    gateway = WorkersGateway(tmp_path / "home", engine, sources, LORAMUX_SHUTDOWN_TIMEOUT_S="1")
    with gateway:
        under_way = streams(gateway, 4, tokens=2000)
        eventually(lambda: all(stream.began for stream in under_way))
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 15
        assert not any(stream.ended().whole for stream in under_way)
        assert gateway.log.count('"outcome":"cancelled"') == 4


def test_a_second_ctrl_c_waits_for_nobody(own: WorkersGateway) -> None:
    pids = own.pids()
    under_way = streams(own, 4, tokens=2000)
    eventually(lambda: all(stream.began for stream in under_way))
    os.kill(own.pid, signal.SIGINT)
    eventually(lambda: "Shutting down" in own.log)
    assert own.stop(signal.SIGINT) is not None
    assert not any(stream.ended().whole for stream in under_way)
    eventually(lambda: not any(alive(pid) for pid in pids))


def test_workers_end_with_the_control_process(own: WorkersGateway) -> None:
    pids = own.pids()
    under_way = streams(own, 4, tokens=2000)
    eventually(lambda: all(stream.began for stream in under_way))
    directory = control_directory(pids[0])
    assert directory.stat().st_mode & 0o777 == 0o700
    own.kill()
    eventually(lambda: not any(alive(pid) for pid in pids))
    assert not any(stream.ended().whole for stream in under_way)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", own.port))
    assert not directory.exists()
    own.start()
    assert len(own.pids()) == WORKERS
