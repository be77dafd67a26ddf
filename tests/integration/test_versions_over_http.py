"""Versions over HTTP: the real command in a process of its own, with an engine that is a stand-in."""

import json
import math
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.gateway import GatewayProcess, eventually, free_port
from tests.fixtures.vllm import NAME, random_adapter

pytestmark = pytest.mark.timeout(240)

STAND_IN = Path(__file__).parents[1] / "fakes" / "vllm_server.py"
CLIENTS = 8
ROUNDS = 5
GOAL_S = 0.1


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, vllm_base: Path) -> Path:
    root = tmp_path_factory.mktemp("sources")
    for seed, name in enumerate(("one", "two", "three")):
        random_adapter(vllm_base, root / name, rank=8, seed=seed)
    return root


@pytest.fixture(scope="module")
def gateway(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    port = free_port()
    engine = subprocess.Popen(
        [sys.executable, str(STAND_IN), "--port", str(port), "--plugin", "--served-model-name", NAME],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process = GatewayProcess(
        tmp_path_factory.mktemp("home"),
        LORAMUX_ENGINE__URLS=f"http://127.0.0.1:{port}",
        LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(sources)]),
    )
    with process:
        yield process
    engine.terminate()
    engine.wait(20)


def add(gateway: GatewayProcess, name: str, *sources: Path) -> None:
    """One version for each source, the last one live."""
    for number, source in enumerate(sources):
        body: dict[str, Any] = {"source": str(source), "wait": True}
        path = f"/adapters/{name}/versions" if number else "/adapters"
        gateway.admin("POST", path, json=body if number else {"name": name, **body}).raise_for_status()


def act(gateway: GatewayProcess, name: str, call: str, **body: Any) -> dict[str, Any]:
    answer = gateway.admin("POST", f"/adapters/{name}/{call}", json=body or None)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def described(gateway: GatewayProcess, name: str) -> dict[str, Any]:
    found: dict[str, Any] = gateway.admin("GET", f"/adapters/{name}").json()
    return found


def ask(client: httpx.Client, model: str, **headers: str) -> httpx.Response:
    return client.post("/v1/completions", json={"model": model, "prompt": "?", "max_tokens": 1}, headers=headers)


@dataclass
class Load:
    """Answers as (begun, ended, status, version)."""

    answers: list[tuple[float, float, int, int]] = field(default_factory=list)

    def begun_after(self, at: float) -> list[tuple[float, float, int, int]]:
        return [answer for answer in list(self.answers) if answer[0] >= at]


@contextmanager
def load(gateway: GatewayProcess, model: str) -> Iterator[Load]:
    """Callers who ask without a pause, for the length of the block."""
    found, over = Load(), threading.Event()

    def caller() -> None:
        with gateway.client() as client:
            while not over.is_set():
                begun = time.perf_counter()
                answer = ask(client, model)
                version = int(answer.headers.get("x-loramux-version", 0))
                found.answers.append((begun, time.perf_counter(), answer.status_code, version))

    callers = [threading.Thread(target=caller) for _ in range(CLIENTS)]
    for thread in callers:
        thread.start()
    try:
        eventually(lambda: len(found.answers) > CLIENTS)
        yield found
    finally:
        over.set()
        for thread in callers:
            thread.join(30)


def test_a_rollback_of_a_staged_version_is_immediate_under_load(gateway: GatewayProcess, sources: Path) -> None:
    """From the call to the first answered request on the old version."""
    add(gateway, "quick", sources / "one", sources / "two")
    took: list[float] = []
    with gateway.client() as operator, load(gateway, "quick") as found:
        operator.get("/healthz")  # the connection is there
        for _ in range(ROUNDS):
            called = time.perf_counter()
            answer = operator.post("/admin/v1/adapters/quick/rollback")
            acknowledged = time.perf_counter()
            assert answer.json()["live"] == 1
            eventually(lambda at=acknowledged: len(found.begun_after(at)) > CLIENTS)  # type: ignore[misc]
            assert {version for *_, version in found.begun_after(acknowledged)} == {1}
            took.append(min(end for begin, end, _, version in found.begun_after(called) if version == 1) - called)
            assert act(gateway, "quick", "promote", version=2)["live"] == 2
    assert {status for _, _, status, _ in found.answers} == {200}
    print(f"call to first answer on the old version: {[f'{1e3 * each:.0f} ms' for each in took]}")
    assert statistics.median(took) < GOAL_S


def test_what_is_deleted_under_load_is_404_from_the_answer_on(gateway: GatewayProcess, sources: Path) -> None:
    add(gateway, "leaving", sources / "one", sources / "two")
    digests = [version["sha256"] for version in described(gateway, "leaving")["versions"]]
    alone = {digest for digest in digests if digest not in _digests_of_others(gateway, "leaving")}
    with load(gateway, "leaving") as found:
        called = time.perf_counter()
        operation = gateway.admin("DELETE", "/adapters/leaving").json()["operation"]
        acknowledged = time.perf_counter()
        eventually(lambda: len(found.begun_after(acknowledged)) > CLIENTS)
    assert {status for begun, _, status, _ in found.answers if begun >= acknowledged} == {404}
    assert {status for _, ended, status, _ in found.answers if ended < called} == {200}
    assert {status for _, _, status, _ in found.answers} == {200, 404}
    assert gateway.admin("GET", f"/operations/{operation['id']}?wait=true").json()["state"] == "succeeded"
    held = {name for replica in gateway.admin("GET", "/replicas").json()["replicas"] for name in replica["adapters"]}
    assert not {name for name in held if name.startswith("leaving@")}
    assert not [digest for digest in alone if (gateway.home / "artifacts" / digest[:2] / digest).exists()]


def _digests_of_others(gateway: GatewayProcess, name: str) -> set[str]:
    adapters = gateway.admin("GET", "/adapters").json()["adapters"]
    return {version["sha256"] for each in adapters if each["name"] != name for version in each["versions"]}


def test_a_rule_promotes_and_the_next_one_rolls_back(gateway: GatewayProcess, sources: Path) -> None:
    add(gateway, "ruled", sources / "one", sources / "two", sources / "three")
    rule = {"window_s": 60, "min_requests": 5, "max_error_rate": 0.1, "promote_after_s": 1.0}
    with load(gateway, "ruled") as found:
        begun = act(gateway, "ruled", "canary", version=1, weight=0.5, rule=rule)["canary"]
        assert begun["rule"] == {**rule, "max_p95_s": None, "max_p95_ratio": None}
        eventually(lambda: described(gateway, "ruled")["live"] == 1)
        view = described(gateway, "ruled")
        assert (view["canary"], view["previous"]) == (None, 3)
        end = view["canary_end"]
        assert (end["version"], end["promoted"], end["by_rule"]) == (1, True, True)
        assert end["figures"]["requests"] >= 5
        assert end["figures"]["live_requests"] > 0

        act(gateway, "ruled", "canary", version=2, weight=0.5, rule={"min_requests": 5, "max_p95_s": 1e-6})
        eventually(lambda: described(gateway, "ruled")["canary"] is None)
        end = described(gateway, "ruled")["canary_end"]
        assert (end["version"], end["promoted"], end["by_rule"]) == (2, False, True)
        assert end["reason"].startswith("p95 was ")
        settled = time.perf_counter()
        eventually(lambda: len(found.begun_after(settled)) > CLIENTS)
        assert {version for *_, version in found.begun_after(settled)} == {1}
    assert {status for _, _, status, _ in found.answers} == {200}

    act(gateway, "ruled", "canary", version=2, weight=0.5)
    assert described(gateway, "ruled")["canary_end"] is None
    ended = act(gateway, "ruled", "canary", version=None)["canary_end"]
    assert (ended["promoted"], ended["by_rule"], ended["figures"]) == (False, False, None)


NO_NUMBERS: tuple[Any, ...] = (math.nan, math.inf, -math.inf, -1, "x", "0.5", True, [], {})
NO_LIMITS = (*NO_NUMBERS, 0)
NO_VERSIONS = (*NO_LIMITS, 1.5, 2**31, 10**20)
NO_TIERS = ("remote", "GPU", "vram", "", 1, None, math.nan)
SPLIT = {"version": 2, "weight": 0.5}


def rule(**fields: Any) -> dict[str, Any]:
    return {**SPLIT, "rule": fields}


ODD: list[tuple[str, dict[str, Any]]] = [
    *(("promote", {"version": odd}) for odd in (*NO_VERSIONS, None)),
    *(("versions", {"source": "/x", "promote": odd}) for odd in (*NO_LIMITS[:6], 0, 1, None)),
    *((call, {"tier": odd}) for call in ("pin", "prefetch") for odd in NO_TIERS),
    *(("canary", {**SPLIT, "version": odd}) for odd in NO_VERSIONS),
    *(("canary", {**SPLIT, "weight": odd}) for odd in (*NO_LIMITS, 1, None)),
    *(("canary", {**SPLIT, "sticky": odd}) for odd in ("cookie", "KEY", 1, None)),
    *(("canary", {**SPLIT, "rule": odd}) for odd in ([], "x", 1)),
    *(("canary", rule(promote_after_s=60, window_s=odd)) for odd in (*NO_LIMITS, 86401, None)),
    *(("canary", rule(promote_after_s=60, min_requests=odd)) for odd in (*NO_VERSIONS, None)),
    *(("canary", rule(max_error_rate=odd)) for odd in (*NO_NUMBERS, 1, None)),
    *(
        ("canary", rule(**{name: odd}))
        for name in ("max_p95_s", "max_p95_ratio", "promote_after_s")
        for odd in NO_LIMITS
    ),
    ("canary", rule()),
    ("canary", rule(max_error_rate=0.1, unknown=1)),
    ("canary", {**rule(promote_after_s=60), "version": None}),
]


def test_odd_values_are_refused_and_change_nothing(gateway: GatewayProcess, sources: Path) -> None:
    add(gateway, "odd", sources / "one", sources / "two")
    add(gateway, "longer", sources / "one", sources / "two", sources / "three")
    before = described(gateway, "odd")

    with gateway.client() as client:
        client.headers["Content-Type"] = "application/json"

        def refused(method: str, path: str, body: object = None) -> tuple[int, str]:
            answer = client.request(method, f"/admin/v1{path}", content=json.dumps(body))
            return answer.status_code, answer.json()["error"]["code"]

        for call, body in ODD:
            assert refused("POST", f"/adapters/odd/{call}", body) == (400, "invalid_request"), (call, body)
        for odd in NO_VERSIONS:
            assert refused("PUT", "/aliases/oddly", {"adapter": "odd", "version": odd}) == (400, "invalid_request"), odd
        for odd in (*NO_NUMBERS, 1.5, 2**31):
            body = {"name": "odd", "requests_per_minute": odd}
            assert refused("POST", "/keys", body) == (400, "invalid_request"), odd
        for odd in ("x", 1.5, 10**20):
            assert refused("DELETE", f"/adapters/odd/versions/{odd}") == (400, "invalid_request"), odd
        # Version 3 is another adapter's.
        unknown = (404, "version_not_found")
        assert refused("POST", "/adapters/odd/promote", {"version": 3}) == unknown
        assert refused("POST", "/adapters/odd/canary", {**SPLIT, "version": 3}) == unknown
        assert refused("PUT", "/aliases/oddly", {"adapter": "odd", "version": 3}) == unknown
        assert refused("DELETE", "/adapters/odd/versions/3") == unknown
        assert refused("DELETE", "/adapters/odd/versions/-1") == unknown
    assert {**described(gateway, "odd"), "residency": None} == {**before, "residency": None}


def test_keys_keep_to_their_side_over_a_restart(gateway: GatewayProcess, sources: Path) -> None:
    add(gateway, "sided", sources / "one", sources / "two")
    gateway.admin("PUT", "/aliases/side", json={"adapter": "sided"}).raise_for_status()
    keys = [
        gateway.admin("POST", "/keys", json={"name": f"k{number}", "role": "inference"}).json()["key"]
        for number in range(12)
    ]
    assert act(gateway, "sided", "canary", version=1, weight=0.5, sticky="key")["canary"]["sticky"] == "key"

    def sides(model: str, **headers: str) -> list[str]:
        found = []
        with httpx.Client(base_url=gateway.url, timeout=30) as client:
            for key in keys:
                answer = ask(client, model, Authorization=f"Bearer {key}", **headers)
                found.append(answer.headers["x-loramux-version"])
        return found

    first = sides("sided")
    assert set(first) == {"1", "2"}
    assert sides("sided") == sides("side") == first
    assert len(set(sides("sided", **{"X-Loramux-Sticky": "a caller"}))) == 1
    gateway.stop()
    gateway.start()
    assert sides("side") == first


def test_requests_are_counted_by_version(gateway: GatewayProcess, sources: Path) -> None:
    add(gateway, "counted", sources / "one", sources / "two", sources / "three")
    act(gateway, "counted", "canary", version=2, weight=0.5)
    with gateway.client() as client:
        for model, times in (("counted@1", 2), ("counted@2", 3), ("counted@3", 4)):
            for _ in range(times):
                assert ask(client, model).status_code == 200

    def told() -> set[str]:
        lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
        return {line for line in lines if line.startswith("loramux_version_") and 'adapter="counted"' in line}

    name = "loramux_version_requests_total"
    assert {line for line in told() if line.startswith(name)} == {
        f'{name}{{adapter="counted",outcome="ok",version="other"}} 2.0',
        f'{name}{{adapter="counted",outcome="ok",version="2"}} 3.0',
        f'{name}{{adapter="counted",outcome="ok",version="3"}} 4.0',
    }
    assert 'loramux_version_request_duration_seconds_count{adapter="counted",version="2"} 3.0' in told()
    act(gateway, "counted", "canary", version=None)
    assert not [line for line in told() if 'version="2"' in line]
    gateway.admin("DELETE", "/adapters/counted?wait=true").raise_for_status()
    assert told() == set()
