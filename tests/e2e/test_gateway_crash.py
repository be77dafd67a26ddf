"""kill -9 of the gateway at any moment: what was acknowledged is there, what was not is finished or rolled back."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import DEMO
from tests.fixtures.gateway import GatewayProcess, eventually, serve_in_vain
from tests.fixtures.vllm import RealVllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

QUESTION = "What is the capital of France?"
SOURCES = {number: str(DEMO / "adapters" / name) for number, name in ((1, "pirate"), (0, "pirate-v2"))}
MARKERS = {1: "Arr,", 0: "Forsooth,"}
ROUNDS = 6
SEED = 20261121


@pytest.fixture
def process(vllm: RealVllm, tmp_path: Path) -> Iterator[GatewayProcess]:
    """Not started."""
    process = GatewayProcess(
        tmp_path / "home",
        LORAMUX_ENGINE__URLS=vllm.url,
        LORAMUX_ARTIFACTS__ROOTS=f'["{DEMO / "adapters"}"]',
    )
    with process:
        yield process


class Operator:
    """Adds, updates and deletes adapters one after another, and remembers what was acknowledged."""

    def __init__(self, process: GatewayProcess, name: str) -> None:
        self._process = process
        self.name = name
        self.acknowledged: dict[str, int] = {}
        """Number of the version that an acknowledged call made live."""
        self.deleted: set[str] = set()
        self.accepted: list[str] = []
        """Operations that were answered with 202."""

    def work(self) -> None:
        turn = 0
        try:
            with self._process.client(30.0) as client:
                while True:
                    turn += 1
                    self._round(client, f"{self.name}-{turn}")
        except httpx.TransportError:
            return  # the gateway was killed

    def _round(self, client: httpx.Client, adapter: str) -> None:
        admin = "/admin/v1/adapters"
        client.post(admin, json={"name": adapter, "source": SOURCES[1], "wait": True}).raise_for_status()
        self.acknowledged[adapter] = 1
        later = client.post(f"{admin}/{adapter}/versions", json={"source": SOURCES[0], "promote": False})
        self.accepted.append(later.raise_for_status().json()["operation"]["id"])
        client.post(f"{admin}/{adapter}/versions", json={"source": SOURCES[0], "wait": True}).raise_for_status()
        self.acknowledged[adapter] = 3
        if adapter.endswith(("2", "5", "8")):
            gone = client.delete(f"{admin}/{adapter}").raise_for_status()
            self.deleted.add(adapter)
            self.accepted.append(gone.json()["operation"]["id"])


def test_kill_during_add_update_and_delete(process: GatewayProcess) -> None:
    moments = random.Random(SEED)
    operators: list[Operator] = []
    for turn in range(ROUNDS):
        both = [Operator(process, f"r{turn}{side}") for side in "ab"]
        operators += both
        threads = [threading.Thread(target=operator.work) for operator in both]
        for thread in threads:
            thread.start()
        time.sleep(moments.uniform(0.2, 2.5))  # the moment of the kill, not a wait for something
        process.kill()
        for thread in threads:
            thread.join(60)
        process.start()

    for operator in operators:
        for operation in operator.accepted:
            ended = process.admin("GET", f"/operations/{operation}?wait=true").raise_for_status().json()
            if ended["state"] == "failed" and ended["kind"] == "update":
                # Its adapter was deleted while it was still arriving.
                assert ended["adapter"].endswith(("2", "5", "8")), ended
                assert ended["error"]["code"] in ("adapter_busy", "adapter_not_found"), ended
                continue
            assert ended["state"] == "succeeded", ended
    page = process.admin("GET", "/adapters?limit=1000").json()["adapters"]
    described = {adapter["name"]: adapter for adapter in page}
    asked = 0
    for operator in operators:
        assert not operator.deleted & described.keys()
        for name, number in operator.acknowledged.items():
            if name in operator.deleted:
                continue
            if name not in described:
                # Its deletion may have been committed without its answer getting out.
                assert name.endswith(("2", "5", "8"))
                continue
            assert described[name]["live"] >= number, described[name]
            if asked < 8:
                asked += 1
                live = described[name]["live"]
                assert process.ask(name, QUESTION).startswith(MARKERS[1 if live == 1 else 0])
    unfinished = [
        (adapter["name"], version["number"], version["state"])
        for adapter in page
        for version in adapter["versions"]
        if version["state"] not in ("ready", "failed")
    ]
    assert unfinished == []
    assert sum(len(operator.acknowledged) for operator in operators) > ROUNDS
    print(f"{sum(len(operator.acknowledged) for operator in operators)} adapters over {ROUNDS} kills, none lost")


def test_kill_during_upload_leaves_nothing(process: GatewayProcess) -> None:
    def slow_body() -> Iterator[bytes]:
        yield b"\x1f\x8b" + b"\0" * 1000
        begun.set()
        assert killed.wait(60)
        yield b"\0"

    begun, killed = threading.Event(), threading.Event()

    def upload() -> None:
        with pytest.raises(httpx.TransportError), process.client() as client:
            client.put("/admin/v1/adapters/half/artifact", content=slow_body())

    thread = threading.Thread(target=upload)
    thread.start()
    assert begun.wait(60)
    eventually(lambda: any((process.home / "uploads").iterdir()))
    process.kill()
    killed.set()
    thread.join(60)
    process.start()
    assert list((process.home / "uploads").iterdir()) == []
    assert process.admin("GET", "/adapters/half").status_code == 404


def test_a_second_gateway_on_the_same_home_is_refused(process: GatewayProcess) -> None:
    assert "Another gateway uses" in serve_in_vain(process.home, "--port", "0")
