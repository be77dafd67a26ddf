"""Replicas started and stopped while `loramux serve` runs: the real command, with engines that are stand-ins."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loramux_serving.base.default import NAME
from tests.fixtures.gateway import COMMAND, GatewayProcess, eventually
from tests.fixtures.vllm import random_adapter
from tests.fixtures.workers import ROOT, Stream

pytestmark = pytest.mark.timeout(240)


class ScaledGateway(GatewayProcess):
    """Starts engines of its own, at most two."""

    def __init__(self, home: Path, sources: Path, *args: str, start: int | None = None, **env: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        python = home / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests/fakes/slow_vllm.py"} "$@"\n')
        python.chmod(0o755)
        if start is not None:
            env["LORAMUX_ENGINE__START_REPLICAS"] = str(start)
        super().__init__(
            home,
            *args,
            LORAMUX_ENGINE__PYTHON=str(python),
            LORAMUX_ENGINE__REPLICAS="2",
            LORAMUX_ENGINE__RESTART_BACKOFF_S="0.1",
            LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(sources)]),
            PYTHONPATH=str(ROOT),
            **env,
        )

    def fleet(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.admin("GET", "/replicas").raise_for_status().json()
        return answer

    def states(self) -> list[str]:
        return [replica["state"] for replica in self.fleet()["replicas"]]

    def scale(self, wanted: int) -> None:
        answer = self.admin("PUT", "/replicas", json={"wanted": wanted})
        assert (answer.status_code, answer.json()["wanted"]) == (202, wanted)

    def settle(self) -> None:
        def settled() -> bool:
            fleet = self.fleet()
            stopped = sum(replica["state"] == "stopped" for replica in fleet["replicas"])
            return bool(fleet["ready"] == fleet["wanted"] == fleet["limit"] - stopped)

        eventually(settled, 60.0)

    def engines(self) -> list[psutil.Process]:
        """Stand-ins that run, without their leashes."""
        with_all = psutil.Process(self.pid).children(recursive=True)
        return [each for each in with_all if "slow_vllm.py" in " ".join(_cmdline(each)[:2])]


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        found: list[str] = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, vllm_base: Path) -> Path:
    root = tmp_path_factory.mktemp("sources")
    for seed, name in enumerate(("one", "two")):
        random_adapter(vllm_base, root / name, rank=8, seed=seed)
    return root


class Traffic:
    """Callers who stream one answer after the other. `failed` has what went wrong, `done` counts whole answers."""

    def __init__(self, gateway: GatewayProcess, models: tuple[str, ...]) -> None:
        self._gateway = gateway
        self._key = gateway.key
        self._end = threading.Event()
        self.failed: list[str] = []
        self.done = 0
        self._threads = [threading.Thread(target=self._call, args=(model,)) for model in models]

    def _call(self, model: str) -> None:
        while not self._end.is_set():
            stream = Stream(self._gateway.url, self._key, model, 15).ended()
            if stream.whole:
                self.done += 1
            else:
                self.failed.append(f"{model}: {stream.status} {stream.error} {stream.text[-200:]}")

    def more(self, count: int = 8) -> None:
        """Until so many more have been answered."""
        so_far = self.done
        eventually(lambda: self.done >= so_far + count or bool(self.failed), 60.0)
        assert self.failed == []

    @contextmanager
    def flowing(self) -> Iterator["Traffic"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._end.set()
            for thread in self._threads:
                thread.join(60)


def add(gateway: GatewayProcess, name: str, source: Path) -> httpx.Response:
    return gateway.admin("POST", "/adapters", json={"name": name, "source": str(source), "wait": True})


def ask(gateway: GatewayProcess, model: str = NAME) -> httpx.Response:
    with gateway.client() as client:
        return client.post("/v1/completions", json={"model": model, "prompt": "?", "max_tokens": 1})


def test_up_and_down_under_streams_no_request_fails(tmp_path: Path, sources: Path) -> None:
    with ScaledGateway(tmp_path / "home", sources, start=1) as gateway:
        assert gateway.states() == ["ready", "stopped"]
        assert add(gateway, "tone", sources / "one").status_code == 201
        with Traffic(gateway, (NAME, "tone", NAME, "tone")).flowing() as traffic:
            traffic.more()
            for wanted in (2, 1, 2, 1):
                gateway.scale(wanted)
                gateway.settle()
                assert len(gateway.engines()) == wanted
                traffic.more()
            for wanted in (2, 1, 2, 1, 2):  # faster than engines start
                gateway.scale(wanted)
            gateway.settle()
            traffic.more()
        assert traffic.failed == []

        last = [Stream(gateway.url, gateway.key, NAME, 40) for _ in range(4)]
        eventually(lambda: all(stream.began for stream in last))
        gateway.scale(0)
        refused = ask(gateway)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "engine_unavailable"
        assert "loramux replicas scale" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) > 1
        assert all(stream.ended().whole for stream in last)
        gateway.settle()
        assert gateway.engines() == []
        assert httpx.get(f"{gateway.url}/readyz").status_code == 200

        gateway.scale(1)
        assert httpx.get(f"{gateway.url}/readyz").status_code == 503
        gateway.settle()
        assert ask(gateway, "tone").status_code == 200
        scraped = httpx.get(f"{gateway.url}/metrics").text
        assert "loramux_replicas_wanted 1.0" in scraped
        assert 'loramux_replica_state{replica="engine-1",state="stopped"} 1.0' in scraped


def test_a_gateway_that_waits_for_its_base(tmp_path: Path, sources: Path) -> None:
    with ScaledGateway(tmp_path / "home", sources, start=0) as gateway:
        assert gateway.states() == ["stopped", "stopped"]
        assert gateway.engines() == []
        probes = ("/readyz", "/ping", "/health")
        assert [httpx.get(f"{gateway.url}{path}").status_code for path in probes] == [200, 503, 503]
        added = add(gateway, "tone", sources / "one")
        assert (added.status_code, added.json()["live"], added.json()["tiers"]) == (201, 1, {})
        assert ask(gateway, "tone").status_code == 503

        env = {**os.environ, "LORAMUX_HOME": str(gateway.home), "LORAMUX_PORT": str(gateway.port)}
        scaled = subprocess.run(
            [COMMAND, "replicas", "scale", "1", "--wait"],
            env=env,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert scaled.stdout == "1 of at most 2 wanted, 1 ready\n"
        residents = gateway.fleet()["replicas"][0]["residents"]
        assert [resident["adapter"] for resident in residents] == ["tone"], "it was loaded before it took requests"
        assert ask(gateway, "tone").status_code == 200
        assert [httpx.get(f"{gateway.url}{path}").status_code for path in probes] == [200, 200, 200]
        refused = gateway.admin("PUT", "/replicas", json={"wanted": 3})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")

        gateway.stop()
        gateway.start()
        assert gateway.states() == ["stopped", "stopped"], "the setting counts again"


def test_a_killed_engine_meanwhile(tmp_path: Path, sources: Path) -> None:
    with ScaledGateway(tmp_path / "home", sources) as gateway:
        gateway.settle()
        for wanted in (1, 2, 1):
            gateway.engines()[0].kill()
            gateway.scale(wanted)
            gateway.settle()
            assert len(gateway.engines()) == wanted
            assert ask(gateway).status_code == 200


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 1), (1, 0)])
def test_the_gateway_stops_during_a_change(tmp_path: Path, sources: Path, before: int, after: int) -> None:
    with ScaledGateway(tmp_path / "home", sources, start=before) as gateway:
        gateway.settle()
        under_way = [Stream(gateway.url, gateway.key, NAME, 20) for _ in range(before)]
        eventually(lambda: all(stream.began for stream in under_way))
        gateway.scale(after)
        eventually(lambda: len(gateway.engines()) == max(before, after))
        engines = gateway.engines()
        began = time.monotonic()
        assert gateway.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 20
        assert all(stream.ended().whole for stream in under_way)
        eventually(lambda: not any(engine.is_running() for engine in engines))


def test_workers_follow(tmp_path: Path, sources: Path) -> None:
    with ScaledGateway(tmp_path / "home", sources, "--workers", "2", start=0) as gateway:
        assert ask(gateway).status_code == 503
        gateway.scale(2)
        gateway.settle()
        with Traffic(gateway, (NAME, NAME)).flowing() as traffic:
            traffic.more(4)
            gateway.scale(1)
            gateway.settle()
            traffic.more(4)
        assert traffic.failed == []
