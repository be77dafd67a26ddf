"""The bench's admin side against the real gateway, whose engine is a stand-in: what it changes, and that all of it is
taken back. Once in plain threads, and once below gevent's patching as the load process runs it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loramux_bench.admin.churn import Churner
from loramux_bench.admin.endpoint import Endpoint
from loramux_bench.admin.patience import Tell
from loramux_bench.admin.prepare import Prepared, prepare
from loramux_bench.admin.restoration import Restoration
from loramux_bench.admin.scrape import Scraper
from loramux_bench.errors import EndpointError
from loramux_bench.run_dir import ChurnRecord, Sample
from loramux_bench.scenario import Scenario, find_source, parse
from tests.fakes.vllm_server import Engine, Handler, listening
from tests.fixtures.gateway import GatewayProcess, eventually
from tests.fixtures.vllm import NAME

pytestmark = pytest.mark.timeout(240)

DEMO = find_source("deploy/demo/adapters/pirate").parent
TEMPLATE_TOKENS = 9


class Answering(Handler):
    """Chat completions too; a word is a token."""

    wbufsize = -1

    def do_POST(self) -> None:
        if self.path != "/v1/chat/completions":
            return super().do_POST()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = len(body["messages"][0]["content"].split())
        choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "length"}
        usage = {"prompt_tokens": words + TEMPLATE_TOKENS, "completion_tokens": 1, "total_tokens": words + 10}
        said = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
        return self.answer(200, {**said, "choices": [choice], "usage": usage})


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with listening(Answering, Engine(NAME, plugin=True, staging=True)) as url:
        yield url


@pytest.fixture(scope="module")
def gateway(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """With one adapter of an operator's own, which has a canary."""
    process = GatewayProcess(
        tmp_path_factory.mktemp("home"),
        LORAMUX_ENGINE__URLS=engine,
        LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(DEMO)]),
    )
    with process:
        source = {"name": "sql", "source": str(DEMO / "shop-sql"), "wait": True}
        assert process.admin("POST", "/adapters", json=source).status_code == 201
        second = {"source": str(DEMO / "pirate"), "promote": False, "wait": True}
        assert process.admin("POST", "/adapters/sql/versions", json=second).status_code == 201
        canary = {"version": 2, "weight": 0.25, "sticky": "key", "rule": {"max_error_rate": 0.1}}
        assert process.admin("POST", "/adapters/sql/canary", json=canary).status_code == 200
        yield process


def scenario(**parts: Any) -> Scenario:
    return parse({"name": "x", "load": {"requests": 1}, **parts}, "x")


def silent(_sentence: str, _done: int = 0, _total: int = 0) -> None: ...


def prepare_at(gateway: GatewayProcess, described: Scenario, restoration: Restoration, tell: Tell = silent) -> Prepared:
    env = {"LORAMUX_URL": gateway.url, "LORAMUX_API_KEY": gateway.key}
    endpoint = Endpoint.of(described.targets[0], env)
    return prepare(described, [endpoint], restoration, tell=tell, sleep=time.sleep, now=time.monotonic, environment=env)


def registry(gateway: GatewayProcess) -> dict[str, tuple[Any, Any, list[int]]]:
    """What is live, what is the canary and how, and the versions, by adapter."""
    listed = gateway.admin("GET", "/adapters?limit=1000").json()["adapters"]
    return {
        each["name"]: (
            each["live"],
            each["canary"] and {key: each["canary"][key] for key in ("version", "weight", "sticky", "rule")},
            [version["number"] for version in each["versions"]],
        )
        for each in listed
    }


def keys(gateway: GatewayProcess) -> list[str]:
    listed = gateway.admin("GET", "/keys").json()["keys"]
    return [key["name"] for key in listed if key["revoked_at"] is None]


FIVE = {"provision": {"count": 5}}
CHURN = {"adds_per_min": 600, "updates_per_min": 600, "deletes_per_min": 300}


def test_a_run_leaves_the_registry_as_it_was(gateway: GatewayProcess) -> None:
    before, keys_before = registry(gateway), keys(gateway)
    complaints: list[str] = []
    told: list[tuple[str, int, int]] = []
    changes: list[ChurnRecord] = []
    samples: list[Sample] = []
    described = scenario(adapters=FIVE, churn=CHURN, tenants=[{"name": "a", "adapters": ["bench-000"]}])
    with Restoration(complaints.append) as restoration:
        prepared = prepare_at(
            gateway, described, restoration, lambda sentence, done=0, total=0: told.append((sentence, done, total))
        )
        assert prepared.adapters == tuple(f"bench-00{number}" for number in range(5))
        assert prepared.base == NAME
        assert prepared.ready_wait_s == 0.0
        assert prepared.observations is not None
        assert all(tokens == words + TEMPLATE_TOKENS for words, tokens in prepared.observations)
        assert prepared.facts["engines"]["engine-0"]["version"] == "0.0.0+fake"
        assert told[-1] == ("Uploading adapters", 5, 5)
        views = gateway.admin("GET", "/adapters").json()["adapters"]
        digests = {each["versions"][0]["sha256"] for each in views if each["name"].startswith("bench-")}
        assert len(digests) == 5, "each has content of its own"
        own_key = gateway.client()
        with own_key:
            own_key.headers["Authorization"] = f"Bearer {prepared.tenants['a']}"
            assert [model["id"] for model in own_key.get("/v1/models").json()["data"]] == ["bench-000"]

        assert prepared.control is not None
        stop, began = threading.Event(), time.monotonic()
        # `sql` is somebody's: it gets back what was live.
        churner = Churner(
            prepared.control,
            described.churn,
            adapters=(*prepared.updatable, "sql"),
            own=prepared.provisioned,
            restoration=restoration,
            keep=changes.append,
            now=lambda: time.monotonic() - began,
        )
        scraper = Scraper(
            prepared.control,
            described.scrape,
            admin=prepared.admin,
            keep=samples.append,
            now=lambda: time.monotonic() - began,
        )
        threads = [threading.Thread(target=runs, args=(stop,)) for runs in (churner.run, scraper.run)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: {change.action for change in changes} == {"add", "update", "delete"}, 60.0)
            eventually(lambda: any(change.adapter == "sql" for change in changes), 60.0)
            eventually(lambda: len(samples) > 1, 60.0)
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert [change.error for change in changes] == [""] * len(changes)
        assert {change.status for change in changes} == {200}
        assert registry(gateway)["sql"][0] > 1
        assert restoration.run() == ()
    assert complaints == []
    assert registry(gateway) == before
    assert keys(gateway) == keys_before

    sample = samples[0]
    assert sample.metrics is not None
    assert sample.metrics['loramux_replica_state{replica="engine-0",state="ready"}'] == 1.0
    assert sample.replicas == {"engine-0": "ready"}
    assert sample.tiers is not None
    assert sample.tiers["bench-000"] in ("cpu", "gpu", "disk")


def test_an_interrupt_in_the_middle_of_it_is_taken_back(gateway: GatewayProcess) -> None:
    before, keys_before = registry(gateway), keys(gateway)
    complaints: list[str] = []

    def interrupt(_sentence: str, done: int = 0, _total: int = 0) -> None:
        if done == 3:
            assert len(registry(gateway)) > len(before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Restoration(complaints.append) as restoration:
        prepare_at(gateway, scenario(adapters={"provision": {"count": 20}}), restoration, interrupt)
    assert complaints == []
    assert registry(gateway) == before
    assert keys(gateway) == keys_before


def test_what_a_killed_run_has_left_is_replaced(gateway: GatewayProcess) -> None:
    before = registry(gateway)
    kept = scenario(adapters={"provision": {"count": 2, "keep": True}})
    complaints: list[str] = []
    with Restoration(complaints.append) as restoration:
        assert prepare_at(gateway, kept, restoration).provisioned == ()
    assert registry(gateway)["bench-001"] == (1, None, [1])
    with Restoration(complaints.append) as restoration:
        assert prepare_at(gateway, scenario(adapters=FIVE), restoration).adapters[1] == "bench-001"
        assert registry(gateway)["bench-001"] == (2, None, [1, 2])
    assert registry(gateway) == before
    assert complaints == []


def test_an_adapter_that_the_gateway_refuses(gateway: GatewayProcess, tmp_path: Path) -> None:
    before = registry(gateway)
    for file in (DEMO / "pirate").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "adapter_config.json").write_text("{}")
    broken = scenario(adapters={"provision": {"count": 3, "source": str(tmp_path)}})
    complaints: list[str] = []
    with pytest.raises(EndpointError, match="could not add 'bench-00"), Restoration(complaints.append) as restoration:
        prepare_at(gateway, broken, restoration)
    assert registry(gateway) == before
    assert complaints == []


def test_somebodys_adapter_is_left_alone(gateway: GatewayProcess) -> None:
    before = registry(gateway)
    gateway.admin("POST", "/adapters", json={"name": "own-000", "source": str(DEMO / "pirate"), "wait": True})
    described = scenario(adapters={"provision": {"count": 2, "prefix": "own"}})
    with pytest.raises(EndpointError, match="no bench has uploaded: own-000"), Restoration(print) as restoration:
        prepare_at(gateway, described, restoration)
    assert registry(gateway) == {**before, "own-000": (1, None, [1])}
    gateway.admin("DELETE", "/adapters/own-000?wait=true")


BELOW_GEVENT = """
from gevent import monkey
monkey.patch_all()
import os, sys, threading, time
import gevent
from loramux_bench.admin.churn import Churner
from loramux_bench.admin.endpoint import Endpoint
from loramux_bench.admin.prepare import prepare
from loramux_bench.admin.restoration import Restoration
from loramux_bench.admin.scrape import Scraper
from loramux_bench.scenario import parse

described = parse({"name": "x", "load": {"requests": 1}, "adapters": {"provision": {"count": 3}},
                   "churn": {"adds_per_min": 600, "updates_per_min": 600, "deletes_per_min": 600}}, "x")
changes, samples, beats = [], [], []
with Restoration(lambda sentence: sys.exit(sentence)) as restoration:
    prepared = prepare(described, [Endpoint.of(described.targets[0])], restoration, tell=lambda *_: None,
                       sleep=time.sleep, now=time.monotonic)
    began, stop = time.monotonic(), threading.Event()
    now = lambda: time.monotonic() - began
    churner = Churner(prepared.control, described.churn, adapters=prepared.updatable, own=prepared.provisioned,
                      restoration=restoration, keep=changes.append, now=now)
    scraper = Scraper(prepared.control, described.scrape, admin=prepared.admin, keep=samples.append, now=now)
    tasks = [gevent.spawn(runs, stop) for runs in (churner.run, scraper.run)]
    with gevent.Timeout(60):
        while len(changes) < 9 or not samples:
            gevent.sleep(0.01)
            beats.append(now())
    stop.set()
    gevent.joinall(tasks, timeout=60, raise_error=True)
    assert all(task.dead for task in tasks)
assert not any(change.error for change in changes), changes
assert samples[0].metrics and samples[0].tiers and samples[0].replicas
# Other greenlets ran while it worked: nothing here held the loop for the whole time.
assert len(beats) > 9, beats
print("restored")
"""


def test_below_gevent(gateway: GatewayProcess) -> None:
    before = registry(gateway)
    done = subprocess.run(
        [sys.executable, "-c", BELOW_GEVENT],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "LORAMUX_URL": gateway.url,
            "LORAMUX_ADMIN_KEY": gateway.key,
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "restored\n"
    assert registry(gateway) == before
