"""The whole main job with its own engine: kill -9 of the engine under load, and Ctrl-C at the end."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import httpx
import psutil
import pytest

from tests.e2e.conftest import DEMO
from tests.fixtures.gateway import GatewayProcess, eventually

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ADAPTERS = ("pirate", "shop-sql", "ticket-json")
PROMPTS = {
    "pirate": ("What is the capital of France?", "Arr,"),
    "shop-sql": ("How many customers live in Lyon?", "SELECT"),
    "ticket-json": ("I was charged twice for order 4411. Please hurry, it cannot wait.", '{"category": "'),
}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("home"), "--demo", str(DEMO))
    with process:
        process.wait_for_adapters(*ADAPTERS)
        yield process


@dataclass(frozen=True, slots=True)
class Ending:
    """How one request ended: its status, whether its caller had got an answer's beginning, and the last frame."""

    status: int
    began: bool
    last: str
    retry_after: str | None


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def titles(pid: int) -> set[str]:
    """What its processes call themselves."""
    found = set()
    for child in descendants(pid):
        with suppress(psutil.NoSuchProcess):
            found.add(" ".join(child.cmdline()).strip())
    return found


def engine_server(process: GatewayProcess) -> psutil.Process:
    """vLLM's API server."""
    return next(
        child
        for child in descendants(process.pid)
        if "vllm.entrypoints.openai.api_server" in child.cmdline() and "leash.py" not in " ".join(child.cmdline())
    )


def call(client: httpx.Client, model: str, *, stream: bool, began: threading.Semaphore | None = None) -> Ending:
    """`began` is released when the first line of the answer is there."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPTS[model][0]}],
        "max_tokens": 200,
        "ignore_eos": True,
        "temperature": 0,
        "stream": stream,
    }
    last = ""
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if line and not last and began is not None:
                began.release()
            if line:
                last = line
        return Ending(answer.status_code, answer.status_code == 200, last, answer.headers.get("retry-after"))


def test_kill_the_engine_under_load(process: GatewayProcess) -> None:
    """Requests that had sent nothing get a 503 with Retry-After, the rest end with a clear error frame; after the
    restart every adapter answers as before."""
    before = {name: process.ask(name, PROMPTS[name][0]) for name in ADAPTERS}
    endings: list[Ending] = []
    broken: list[str] = []
    streaming = threading.Semaphore(0)
    under_way = threading.Barrier(9)

    def caller(model: str, stream: bool) -> None:
        with process.client(300.0) as client:
            under_way.wait(60)
            try:
                endings.append(call(client, model, stream=stream, began=streaming))
            except httpx.HTTPError as error:
                broken.append(repr(error))

    callers = [threading.Thread(target=caller, args=(ADAPTERS[index % 3], index % 2 == 0)) for index in range(8)]
    for thread in callers:
        thread.start()
    under_way.wait(60)
    eventually(lambda: process.admin("GET", "/replicas").json()["replicas"][0]["outstanding"] == 8)
    for _ in range(4):
        assert streaming.acquire(timeout=60)  # all streams are in the middle of their answers
    engine_server(process).kill()
    for thread in callers:
        thread.join(120)

    assert broken == []
    assert len(endings) == 8
    for ending in endings:
        if ending.began:
            error = json.loads(ending.last.removeprefix("data: "))["error"]
            assert error["code"] == "engine_failed"
            assert error["message"]
        else:
            assert ending.status == 503
            assert ending.retry_after is not None
            assert int(ending.retry_after) >= 1
    assert any(ending.began for ending in endings)
    assert any(not ending.began for ending in endings)

    # While it starts again: not ready, and a clear answer to who calls.
    eventually(lambda: httpx.get(f"{process.url}/readyz").status_code == 503, 5.0)
    assert httpx.get(f"{process.url}/healthz").status_code == 200
    with process.client() as client:
        refused = call(client, "pirate", stream=False)
    assert refused.status == 503
    assert refused.retry_after is not None

    process.wait_for("/readyz")
    assert {name: process.ask(name, PROMPTS[name][0]) for name in ADAPTERS} == before
    replica = process.admin("GET", "/replicas").json()["replicas"][0]
    assert replica["restarts"] == 1
    assert 'loramux_engine_restarts_total{replica="engine-0"} 1.0' in httpx.get(f"{process.url}/metrics").text


def test_ctrl_c_ends_every_process(process: GatewayProcess) -> None:
    children = descendants(process.pid)
    ports = {
        connection.laddr.port
        for child in children
        for connection in child.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(children) >= 3
    assert ports
    assert process.stop(signal.SIGINT) == 0
    _, alive = psutil.wait_procs(children, timeout=20)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    for port in {process.port, *ports}:
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=2.0)


def test_kill_9_of_the_gateway_leaves_no_engine(process: GatewayProcess) -> None:
    process.start(ready=False)
    eventually(lambda: {"VLLM::EngineCore", "VLLM::Worker"} <= titles(process.pid), 120.0)
    children = descendants(process.pid)
    assert len(children) >= 4, "the leash, the API server, the engine core and its worker"
    os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
