"""Adapters come, change and go while callers call."""

import io
import tarfile
import threading
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import DEMO
from tests.fixtures.gateway import GatewayProcess, eventually
from tests.fixtures.vllm import RealVllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

CLIENTS = 8
UPDATES = 20
QUESTION = "What is the capital of France?"
FIRST, SECOND = DEMO / "adapters" / "pirate", DEMO / "adapters" / "pirate-v2"


def pack(directory: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(directory.iterdir()):
            archive.add(path, path.name)
    return buffer.getvalue()


def stream(client: httpx.Client, model: str, max_tokens: int) -> tuple[str, int]:
    """The text, and the number of the version that the gateway says gave it."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
    }
    text = ""
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        done = False
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                frame = httpx.Response(200, text=line[6:]).json()
                assert "error" not in frame, frame
                text += frame["choices"][0]["delta"].get("content") or ""
        assert done
        return text, int(answer.headers["x-loramux-version"])


def engine_names(vllm: RealVllm) -> set[str]:
    """By the engine's own list of what it holds."""
    said = httpx.get(f"{vllm.url}/loramux/v1/adapters", timeout=60).raise_for_status().json()
    return {entry["name"] for entry in said if entry["tier"] != "disk"}


def test_twenty_updates_under_eight_streams(gateway: GatewayProcess, vllm: RealVllm) -> None:
    """0 failed requests, 0 answers that mix versions, every answer begun after an acknowledged update is the new
    one; and in the end the engine holds the version that is live, and the one before it for a rollback."""
    archives = [pack(FIRST), pack(SECOND)]
    gateway.admin("PUT", "/adapters/turning/artifact?wait=true", content=archives[0]).raise_for_status()
    expected = {0: gateway.ask("turning", QUESTION, max_tokens=24)}
    gateway.admin("PUT", "/adapters/turning/artifact?wait=true", content=archives[1]).raise_for_status()
    expected[1] = gateway.ask("turning", QUESTION, max_tokens=24)
    assert expected[0].startswith("Arr,")
    assert expected[1].startswith("Forsooth,")

    acknowledged = [2]  # numbers of the versions that acknowledged updates made live; odd ones are the first content
    began = threading.Event()
    over = threading.Event()
    faults: list[str] = []
    answers: list[tuple[int, int, str]] = []  # last acknowledged when it began, version that answered, text

    def caller() -> None:
        with gateway.client() as client:
            while not over.is_set():
                at_begin = acknowledged[-1]
                try:
                    text, version = stream(client, "turning", 24)
                except (AssertionError, httpx.HTTPError) as error:
                    faults.append(repr(error))
                    return
                answers.append((at_begin, version, text))
                began.set()

    callers = [threading.Thread(target=caller) for _ in range(CLIENTS)]
    for thread in callers:
        thread.start()
    try:
        assert began.wait(120)
        for turn in range(UPDATES):
            answer = gateway.admin("PUT", "/adapters/turning/artifact?wait=true", content=archives[turn % 2])
            assert answer.status_code == 201, answer.text
            acknowledged.append(turn + 3)
    finally:
        over.set()
        for thread in callers:
            thread.join(180)

    assert faults == []
    assert len(answers) >= CLIENTS
    mixed = [text for _, _, text in answers if text not in expected.values()]
    assert mixed == []
    for at_begin, version, text in answers:
        assert text == expected[(version + 1) % 2]
        assert version >= at_begin
    print(f"{len(answers)} answers over {UPDATES} updates, 0 failed, 0 mixed")

    described = gateway.admin("GET", "/adapters/turning").json()
    stay = (described["live"], described["previous"])
    names = {version["engine_name"] for version in described["versions"] if version["number"] in stay}
    eventually(lambda: {name for name in engine_names(vllm) if name.startswith("turning@")} == names)


def test_known_content_shares_artifact_and_engine_name(gateway: GatewayProcess) -> None:
    described = gateway.admin("GET", "/adapters/turning").json()
    names = {version["engine_name"] for version in described["versions"]}
    assert len(described["versions"]) == UPDATES + 2
    assert len(names) == 2


def test_rollback_and_promote(gateway: GatewayProcess) -> None:
    for path, number in ((FIRST, 1), (SECOND, 2)):
        gateway.admin("PUT", "/adapters/back/artifact?wait=true", content=pack(path)).raise_for_status()
        assert gateway.admin("GET", "/adapters/back").json()["live"] == number
    assert gateway.ask("back", QUESTION).startswith("Forsooth,")
    assert gateway.admin("POST", "/adapters/back/rollback").json()["live"] == 1
    assert gateway.ask("back", QUESTION).startswith("Arr,")
    assert gateway.ask("back@2", QUESTION).startswith("Forsooth,")
    again = gateway.admin("POST", "/adapters/back/rollback")
    assert again.status_code == 409
    assert again.json()["error"]["code"] == "no_previous_version"
    assert gateway.admin("POST", "/adapters/back/promote", json={"version": 2}).json()["live"] == 2
    assert gateway.ask("back", QUESTION).startswith("Forsooth,")


def test_delete_is_404_at_once_and_lets_requests_finish(gateway: GatewayProcess, vllm: RealVllm) -> None:
    gateway.admin("PUT", "/adapters/leaving/artifact?wait=true", content=pack(FIRST)).raise_for_status()
    texts: list[str] = []
    with gateway.client() as client:
        thread = threading.Thread(target=lambda: texts.append(stream(client, "leaving", 60)[0]))
        thread.start()
        eventually(lambda: gateway.admin("GET", "/replicas").json()["replicas"][0]["outstanding"] > 0)
        operation = gateway.admin("DELETE", "/adapters/leaving").json()["operation"]
        body = {"model": "leaving", "messages": [{"role": "user", "content": "?"}]}
        gone = client.post("/v1/chat/completions", json=body)
        assert gone.status_code == 404
        thread.join(180)
    assert texts[0].startswith("Arr,")
    ended = gateway.admin("GET", f"/operations/{operation['id']}?wait=true").json()
    assert ended["state"] == "succeeded"
    assert not any(name.startswith("leaving@") for name in engine_names(vllm))
    assert gateway.admin("GET", "/adapters/leaving").status_code == 404


def test_an_adapter_that_the_engine_lost_comes_back(gateway: GatewayProcess, vllm: RealVllm) -> None:
    """Somebody else unloads it behind the gateway's back: the request that finds out is served all the same."""
    assert gateway.ask("pirate", QUESTION).startswith("Arr,")
    lost = next(name for name in engine_names(vllm) if name.startswith("pirate@"))
    httpx.delete(f"{vllm.url}/loramux/v1/adapters/{lost}", timeout=60).raise_for_status()
    assert lost not in engine_names(vllm)
    assert gateway.ask("pirate", QUESTION).startswith("Arr,")
    assert lost in engine_names(vllm)


def test_a_bad_adapter_never_reaches_the_engine(gateway: GatewayProcess, vllm: RealVllm, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_bytes((FIRST / "adapter_config.json").read_bytes())
    (broken / "adapter_model.safetensors").write_bytes((FIRST / "adapter_model.safetensors").read_bytes()[:-100])
    answer = gateway.admin("PUT", "/adapters/broken/artifact?wait=true", content=pack(broken))
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "weights_corrupt"
    described = gateway.admin("GET", "/adapters/broken").json()
    assert described["state"] == "failed"
    assert described["reason"]["code"] == "weights_corrupt"
    assert not any(name.startswith("broken@") for name in engine_names(vllm))
    # A further upload under the name mends it.
    assert gateway.admin("PUT", "/adapters/broken/artifact?wait=true", content=pack(FIRST)).status_code == 201
    assert gateway.ask("broken", QUESTION).startswith("Arr,")
