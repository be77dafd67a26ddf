"""Versions on the real engine: going back is immediate, and what is deleted under load goes without a fault."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import DEMO
from tests.fixtures.gateway import GatewayProcess, eventually
from tests.fixtures.vllm import RealVllm, random_adapter

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

STREAMS = 8
TOKENS = 16
ROUNDS = 3
PROBES = 10
PROBE_EVERY_S = 0.02
GOAL_S = 0.1


@dataclass(eq=False)
class Asked:
    """One streamed request, by what its caller saw. `whole` once it has come to its end."""

    model: str
    begun: float = field(default_factory=time.perf_counter)
    status: int = 0
    version: int = 0
    began_to_answer: float = 0.0
    tokens: int = 0
    whole: bool = False
    fault: str = ""


def ask(client: httpx.Client, asked: Asked, max_tokens: int) -> None:
    body = {"model": asked.model, "prompt": "Once upon a time", "max_tokens": max_tokens, "temperature": 0}
    body |= {"stream": True, "ignore_eos": True}
    try:
        with client.stream("POST", "/v1/completions", json=body) as answer:
            asked.status, asked.began_to_answer = answer.status_code, time.perf_counter()
            asked.version = int(answer.headers.get("x-loramux-version", 0))
            for line in answer.iter_lines():
                asked.tokens += line.startswith('data: {"id"')
                asked.whole |= line == "data: [DONE]"
                asked.fault = line if '"error"' in line and asked.status == 200 else asked.fault
    except httpx.HTTPError as error:
        asked.fault = repr(error)


@contextmanager
def streams(gateway: GatewayProcess, model: str) -> Iterator[list[Asked]]:
    """Callers who stream one answer after the other, until the block ends or the name is gone."""
    found: list[Asked] = []
    over = threading.Event()

    def caller() -> None:
        with gateway.client() as client:
            while not over.is_set():
                asked = Asked(model)
                found.append(asked)
                ask(client, asked, TOKENS)
                if asked.status == 404:
                    return

    callers = [threading.Thread(target=caller) for _ in range(STREAMS)]
    for thread in callers:
        thread.start()
    try:
        eventually(lambda: sum(asked.tokens > 0 for asked in found) >= STREAMS, 60)
        yield found
    finally:
        over.set()
        for thread in callers:
            thread.join(120)


def engine_names(vllm: RealVllm, adapter: str) -> set[str]:
    """By the engine's own list of what it holds."""
    said = httpx.get(f"{vllm.url}/loramux/v1/adapters", timeout=60).raise_for_status().json()
    return {entry["name"] for entry in said if entry["tier"] != "disk" and entry["name"].startswith(f"{adapter}@")}


def add(gateway: GatewayProcess, name: str, *directories: Path) -> None:
    for directory in directories:
        files = [("file", (path.name, path.read_bytes())) for path in sorted(directory.iterdir())]
        answer = gateway.admin("PUT", f"/adapters/{name}/artifact?wait=true", files=files)
        assert answer.status_code == 201, answer.text


def test_a_rollback_is_immediate_under_load(gateway: GatewayProcess, vllm: RealVllm) -> None:
    """From the call to the first request on the version before, while streams run on the other."""
    add(gateway, "swift", DEMO / "adapters" / "pirate", DEMO / "adapters" / "pirate-v2")
    assert len(engine_names(vllm, "swift")) == 2
    switched: list[float] = []
    answered: list[float] = []
    with gateway.client() as operator, streams(gateway, "swift") as found:
        operator.get("/healthz")  # the connection is there
        for _ in range(ROUNDS):
            probes, threads = probe(gateway, "swift")
            called = time.perf_counter()
            answer = operator.post("/admin/v1/adapters/swift/rollback")
            acknowledged = time.perf_counter()
            assert answer.json()["live"] == 1, answer.text
            for thread in threads:
                thread.join(60)
            on_old = [asked for asked in (*probes, *found) if asked.version == 1 and asked.begun >= called]
            assert {asked.version for asked in probes if asked.begun > acknowledged} <= {1}
            switched.append(min(acknowledged, *(asked.begun for asked in on_old)) - called)
            answered.append(min(asked.began_to_answer for asked in on_old) - called)
            operator.post("/admin/v1/adapters/swift/promote", json={"version": 2}).raise_for_status()
    assert [asked for asked in found if asked.fault or asked.status != 200 or not asked.whole] == []
    print(f"call to first request on the old version: {milliseconds(switched)}; answered: {milliseconds(answered)}")
    assert statistics.median(switched) < GOAL_S


def probe(gateway: GatewayProcess, model: str) -> tuple[list[Asked], list[threading.Thread]]:
    """Requests that begin one after the other, each on a connection that is there already."""
    probes: list[Asked] = []
    start = threading.Barrier(PROBES + 1)

    def caller(number: int) -> None:
        with gateway.client() as client:
            client.get("/healthz")
            start.wait(60)
            threading.Event().wait(number * PROBE_EVERY_S)
            asked = Asked(model)
            probes.append(asked)
            ask(client, asked, 1)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(PROBES)]
    for thread in threads:
        thread.start()
    start.wait(60)
    return probes, threads


def milliseconds(times_s: list[float]) -> str:
    return ", ".join(f"{1e3 * time_s:.0f} ms" for time_s in times_s)


def test_delete_under_load(gateway: GatewayProcess, vllm: RealVllm, tmp_path: Path) -> None:
    """0 failed before the answer, 404 after it; streams finish whole; weights and files go."""
    add(gateway, "going", random_adapter(vllm.base, tmp_path / "going", seed=77))
    digest = gateway.admin("GET", "/adapters/going").json()["versions"][0]["sha256"]
    directory = gateway.home / "artifacts" / digest[:2] / digest
    assert directory.is_dir()
    with gateway.client() as operator, streams(gateway, "going") as found:
        under_way = [asked for asked in found if asked.tokens and not asked.whole]
        called = time.perf_counter()
        operation = operator.delete("/admin/v1/adapters/going").json()["operation"]
        acknowledged = time.perf_counter()
        body = {"model": "going", "prompt": "?", "max_tokens": 1}
        gone = operator.post("/v1/completions", json=body)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
        eventually(lambda: sum(asked.status == 404 for asked in found) == STREAMS, 60)
    assert under_way
    before = [asked for asked in found if asked.begun < called]
    assert [asked for asked in found if asked.fault] == []
    assert {(asked.status, asked.whole, asked.tokens) for asked in before} == {(200, True, TOKENS)}
    assert {asked.status for asked in found if asked.begun > acknowledged} == {404}
    ended = gateway.admin("GET", f"/operations/{operation['id']}?wait=true").json()
    assert ended["state"] == "succeeded"
    assert engine_names(vllm, "going") == set()
    assert not directory.exists()
    print(f"{len(before)} streams finished whole, {len(under_way)} of them under way when it was deleted; 0 failed")
