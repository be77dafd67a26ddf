"""The operators' interface over HTTP: the real command in a process of its own, with an engine that is a stand-in."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import httpx
import pytest

from loramux_adapters.artifacts.content import digest_of
from tests.fakes.adapter_files import CONFIG, WEIGHTS, tar_bytes, zip_bytes
from tests.fixtures.gateway import GatewayProcess, eventually, free_port, serve_in_vain
from tests.fixtures.vllm import NAME, random_adapter

pytestmark = [
    pytest.mark.timeout(240),
    # moto and botocore, not this code, use what their own dependencies have deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(moto|botocore|werkzeug).*"),
]

STAND_IN = Path(__file__).parents[1] / "fakes" / "vllm_server.py"
MAX_BYTES = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(STAND_IN), "--port", str(port), "--plugin", "--served-model-name", NAME],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, vllm_base: Path) -> Path:
    """Adapters of the real base's shapes: `one` … `four`, all different, and `broken`."""
    root = tmp_path_factory.mktemp("sources")
    for seed, name in enumerate(("one", "two", "three", "four")):
        random_adapter(vllm_base, root / name, rank=8, seed=seed)
    random_adapter(vllm_base, root / "broken", rank=8)
    (root / "broken" / CONFIG).write_text("{")
    return root


@pytest.fixture(scope="module")
def gateway(
    engine: str, s3_url: str, sources: Path, vllm_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    process = GatewayProcess(
        tmp_path_factory.mktemp("home"),
        LORAMUX_ENGINE__URLS=engine,
        LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(sources)]),
        LORAMUX_ARTIFACTS__SCHEMES='["file", "s3"]',
        LORAMUX_ARTIFACTS__MAX_ARCHIVE_BYTES=str(MAX_BYTES),
        LORAMUX_ARTIFACTS__S3_ENDPOINT_URL=s3_url,
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
    )
    with process:
        yield process


def files(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def add(gateway: GatewayProcess, name: str, source: object, **more: Any) -> httpx.Response:
    return gateway.admin("POST", "/adapters", json={"name": name, "source": str(source), "wait": True, **more})


def engine_name(directory: Path, adapter: str) -> str:
    return f"{adapter}@{digest_of(directory / CONFIG, directory / WEIGHTS)[:12]}"


def held_by(engine: str) -> dict[str, dict[str, Any]]:
    """By engine name, what the engine itself lists."""
    return {each["name"]: each for each in httpx.get(f"{engine}/loramux/v1/adapters").json()}


def code(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "retryable", "details"}
    return str(error["code"])


def test_add_describe_update_rollback_delete(gateway: GatewayProcess, engine: str, sources: Path) -> None:
    added = add(gateway, "story", sources / "one")
    assert added.status_code == 201
    assert added.json()["live"] == 1
    version = added.json()["versions"][0]
    assert version["state"] == "ready"
    assert version["rank"] == 8
    assert version["bytes"] > 0
    assert set(version["modules"]) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    held = held_by(engine)[version["engine_name"]]
    assert version["tiers"] == {"engine-0": held["tier"]}
    residency = added.json()["residency"]["engine-0"]
    assert (residency["tier"], residency["bytes"], residency["pin"]) == (held["tier"], held["bytes"], None)
    assert 0 <= residency["age_s"] < 60

    updated = gateway.admin(
        "POST", "/adapters/story/versions", json={"source": str(sources / "two"), "promote": False, "wait": True}
    )
    assert updated.json()["live"] == 1
    canary = gateway.admin("POST", "/adapters/story/canary", json={"version": 2, "weight": 0.25}).json()
    assert (canary["canary"]["version"], canary["canary"]["weight"]) == (2, 0.25)
    promoted = gateway.admin("POST", "/adapters/story/promote", json={"version": 2}).json()
    assert promoted["live"] == 2
    assert promoted["canary"] is None
    assert gateway.admin("POST", "/adapters/story/rollback").json()["live"] == 1
    assert code(gateway.admin("DELETE", "/adapters/story/versions/1")) == "version_in_use"
    assert gateway.admin("DELETE", "/adapters/story/versions/2?wait=true").json()["operation"]["state"] == "succeeded"
    assert [each["number"] for each in gateway.admin("GET", "/adapters/story").json()["versions"]] == [1]
    assert gateway.admin("DELETE", "/adapters/story?wait=true").json()["operation"]["state"] == "succeeded"
    assert code(gateway.admin("GET", "/adapters/story")) == "adapter_not_found"


def test_add_without_wait_gives_an_operation(gateway: GatewayProcess, sources: Path) -> None:
    answer = gateway.admin("POST", "/adapters", json={"name": "later", "source": str(sources / "one")})
    assert answer.status_code == 202
    operation = answer.json()["operation"]
    assert answer.headers["location"] == f"/admin/v1/operations/{operation['id']}"
    ended = gateway.admin("GET", f"/operations/{operation['id']}?wait=true").json()
    assert (ended["state"], ended["progress"], ended["error"]) == ("succeeded", 1.0, None)
    assert code(gateway.admin("GET", "/operations/nothing")) == "operation_not_found"


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        (NAME, 409, "name_taken"),
        ("a b", 400, "invalid_name"),
        ("a@1", 400, "invalid_name"),
        ("../up", 400, "invalid_name"),
        ("", 400, "invalid_name"),
        ("x" * 129, 400, "invalid_name"),
        ("naïve", 400, "invalid_name"),
        ("nul\0", 400, "invalid_name"),
    ],
)
def test_names_that_are_refused(gateway: GatewayProcess, sources: Path, name: str, status: int, expected: str) -> None:
    answer = add(gateway, name, sources / "one")
    assert (answer.status_code, code(answer)) == (status, expected)


def test_a_name_stands_for_one_thing(gateway: GatewayProcess, sources: Path) -> None:
    assert add(gateway, "single", sources / "one").status_code == 201
    assert code(add(gateway, "single", sources / "two")) == "name_taken"
    assert gateway.admin("PUT", "/aliases/other", json={"adapter": "single"}).status_code == 200
    assert code(add(gateway, "other", sources / "two")) == "name_taken"
    assert code(gateway.admin("PUT", "/aliases/single", json={"adapter": "single"})) == "name_taken"
    assert code(gateway.admin("PUT", f"/aliases/{NAME}", json={"adapter": "single"})) == "name_taken"
    assert code(gateway.admin("PUT", "/aliases/lost", json={"adapter": "nobody"})) == "adapter_not_found"
    assert code(gateway.admin("PUT", "/aliases/lost", json={"adapter": "single", "version": 9})) == "version_not_found"
    assert "other" in gateway.models()
    assert gateway.admin("GET", "/adapters/single").json()["aliases"] == ["other"]
    assert gateway.admin("DELETE", "/aliases/other").status_code == 204
    assert code(gateway.admin("DELETE", "/aliases/other")) == "alias_not_found"
    assert "other" not in gateway.models()


@pytest.mark.parametrize(
    ("source", "status", "expected"),
    [
        ("/etc", 400, "source_not_allowed"),
        ("file:///etc/passwd", 400, "source_not_allowed"),
        ("relative/path", 400, "source_not_allowed"),
        ("hf://org/repo", 400, "source_not_allowed"),
        ("https://example.org/a.tar.gz", 400, "source_not_allowed"),
        ("s3://nobucket", 400, "invalid_request"),
        ("s3://absent-bucket/a.tar.gz", 422, "source_not_found"),
    ],
)
def test_sources_that_are_refused(gateway: GatewayProcess, source: str, status: int, expected: str) -> None:
    answer = add(gateway, "nowhere", source)
    assert (answer.status_code, code(answer)) == (status, expected)


def test_a_source_beside_the_root_is_refused(gateway: GatewayProcess, sources: Path) -> None:
    assert code(add(gateway, "nowhere2", f"{sources}/../{sources.name}x")) == "source_not_allowed"
    (sources / "way-out").symlink_to("/etc")
    assert code(add(gateway, "nowhere2", sources / "way-out")) == "source_not_allowed"


def test_a_failed_version_says_why_and_can_be_mended(gateway: GatewayProcess, sources: Path) -> None:
    refused = add(gateway, "patient", sources / "broken")
    assert (refused.status_code, code(refused)) == (422, "config_invalid")
    described = gateway.admin("GET", "/adapters/patient").json()
    assert (described["state"], described["reason"]["code"]) == ("failed", "config_invalid")
    assert "patient" not in gateway.models()
    assert "patient" in {a["name"] for a in gateway.admin("GET", "/adapters?state=failed").json()["adapters"]}
    assert add(gateway, "patient", sources / "one").json()["live"] == 2


def test_s3_archive(gateway: GatewayProcess, s3_url: str, sources: Path) -> None:
    client = boto3.client(
        "s3", endpoint_url=s3_url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    client.create_bucket(Bucket="adapters")
    client.put_object(Bucket="adapters", Key="a/story.tar.gz", Body=tar_bytes(files(sources / "two"), prefix="story/"))
    client.put_object(Bucket="adapters", Key="big.tar.gz", Body=b"\0" * (MAX_BYTES + 1))
    try:
        added = add(gateway, "cloudy", "s3://adapters/a/story.tar.gz")
        assert added.status_code == 201, added.text
        assert (add(gateway, "huge", "s3://adapters/big.tar.gz")).status_code == 413
        assert code(add(gateway, "missing", "s3://adapters/none.tar.gz")) == "source_not_found"
    finally:
        client.close()


@pytest.mark.parametrize("pack", [tar_bytes, zip_bytes])
def test_upload_archive(gateway: GatewayProcess, sources: Path, pack: Any) -> None:
    name = f"sent-{pack.__name__}"
    body = pack(files(sources / "three"))
    answer = gateway.admin("PUT", f"/adapters/{name}/artifact?wait=true", content=body)
    assert answer.status_code == 201, answer.text
    again = gateway.admin("PUT", f"/adapters/{name}/artifact?wait=true", content=body).json()
    assert again["live"] == 2
    assert len({version["engine_name"] for version in again["versions"]}) == 1
    assert list((gateway.home / "uploads").iterdir()) == []


def test_upload_files(gateway: GatewayProcess, sources: Path) -> None:
    parts = [("files", (name, content)) for name, content in files(sources / "four").items()]
    answer = gateway.admin("PUT", "/adapters/parts/artifact?wait=true", files=parts)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("send", "status", "expected"),
    [
        ({"content": b""}, 400, "invalid_request"),
        ({"content": b"neither tar nor zip"}, 422, "archive_corrupt"),
        ({"content": b"\0" * (MAX_BYTES + 1)}, 413, "source_too_large"),
        ({"files": [("f", ("../up", b"x"))]}, 400, "invalid_request"),
        ({"files": [("f", ("a", b"x")), ("f", ("a", b"x"))]}, 400, "invalid_request"),
        ({"data": {"f": "x"}, "files": [("g", ("a", b"x"))]}, 400, "invalid_request"),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "invalid_request"),
        ({"content": b"junk", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "invalid_request"),
    ],
    ids=["empty", "rubbish", "large", "path", "twice", "field", "no-boundary", "malformed"],
)
def test_uploads_that_are_refused(gateway: GatewayProcess, send: dict[str, Any], status: int, expected: str) -> None:
    answer = gateway.admin("PUT", "/adapters/unsent/artifact?wait=true", **send)
    assert (answer.status_code, code(answer)) == (status, expected)
    assert list((gateway.home / "uploads").iterdir()) == []


def test_a_large_upload_without_a_length_is_cut_off(gateway: GatewayProcess) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(MAX_BYTES // 65536 + 2):
            yield b"\0" * 65536

    try:
        answer = gateway.admin("PUT", "/adapters/unsent/artifact?wait=true", content=body())
        assert code(answer) == "source_too_large"
    except httpx.TransportError:
        pass  # it may stop reading before we have sent all
    assert list((gateway.home / "uploads").iterdir()) == []


def test_pages_and_filters(gateway: GatewayProcess, sources: Path) -> None:
    for number in range(5):
        add(gateway, f"page-{number}", sources / "one")
    seen: list[str] = []
    cursor = ""
    while True:
        page = gateway.admin("GET", f"/adapters?limit=2{cursor}").json()
        seen += [adapter["name"] for adapter in page["adapters"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == sorted(seen)
    assert len(seen) == len(set(seen)) == page["total"]
    assert {f"page-{number}" for number in range(5)} <= set(seen)
    everything = gateway.admin("GET", "/adapters?limit=1000").json()["adapters"]
    for tier in ("gpu", "cpu", "disk", "remote"):
        there = {adapter["name"] for adapter in everything if adapter["tiers"].get("engine-0", "remote") == tier}
        found = gateway.admin("GET", f"/adapters?tier={tier}&limit=1000").json()
        assert {adapter["name"] for adapter in found["adapters"]} == there
        assert found["total"] == len(there)
    assert sum(adapter["tiers"] in ({"engine-0": "gpu"}, {"engine-0": "cpu"}) for adapter in everything) >= 5
    assert code(gateway.admin("GET", "/adapters?limit=0")) == "invalid_request"
    assert code(gateway.admin("GET", "/adapters?tier=moon")) == "invalid_request"


def test_pin_unpin_prefetch(gateway: GatewayProcess, sources: Path) -> None:
    assert add(gateway, "held", sources / "one", pin="cpu").json()["pin"] == "cpu"
    assert gateway.admin("POST", "/adapters/held/unpin").json()["pin"] is None
    assert gateway.admin("POST", "/adapters/held/pin", json={"tier": "gpu"}).json()["pin"] == "gpu"
    pinned = gateway.admin("POST", "/adapters/held/prefetch", json={"tier": "cpu"}).json()
    assert pinned["tiers"] == {"engine-0": "gpu"}, "a lower tier than it has takes nothing away"
    assert pinned["residency"]["engine-0"]["pin"] == "gpu"
    assert code(gateway.admin("POST", "/adapters/held/pin", json={"tier": "remote"})) == "invalid_request"
    assert code(gateway.admin("POST", "/adapters/none/prefetch", json={"tier": "cpu"})) == "adapter_not_found"


def test_tiers_are_what_the_engine_says(gateway: GatewayProcess, engine: str, sources: Path) -> None:
    """In every place that tells of them: the engine drops the weights by itself, and all of them follow."""
    name = add(gateway, "told", sources / "one", pin="cpu").json()["versions"][0]["engine_name"]

    def seen() -> dict[str, Any]:
        return dict(gateway.admin("GET", "/adapters/told").json())

    def replica() -> dict[str, Any]:
        return dict(gateway.admin("GET", "/replicas").json()["replicas"][0])

    eventually(lambda: seen()["residency"]["engine-0"]["pin"] == held_by(engine)[name]["pin"] == "cpu")
    held = held_by(engine)
    found = replica()
    assert found["adapters"] == {name: each["tier"] for name, each in held.items()}
    assert found["slots"]["used"] == sum(each["tier"] == "gpu" for each in held.values())
    assert found["slots"]["used"] <= found["slots"]["total"] == found["capabilities"]["max_loras"]
    assert found["host"]["used"] == sum(each["tier"] in ("gpu", "cpu") for each in held.values())
    assert found["host"]["bytes"] == sum(each["bytes"] for each in held.values() if each["tier"] in ("gpu", "cpu"))
    assert found["host"]["pinned"] >= 1
    told = next(each for each in found["residents"] if each["engine_name"] == name)
    assert told == {"engine_name": name, "adapter": "told", "tier": held[name]["tier"], "bytes": 1000, "pin": "cpu"}
    order = ["gpu", "cpu", "disk"]
    assert [order.index(each["tier"]) for each in found["residents"]] == sorted(
        order.index(each["tier"]) for each in found["residents"]
    )
    assert metric(gateway, 'adapter_tier{adapter="told",replica="engine-0"}') == 3 - order.index(held[name]["tier"])
    assert metric(gateway, 'slots{replica="engine-0"}') == found["slots"]["total"]
    assert metric(gateway, 'adapters_pinned{replica="engine-0",tier="cpu"}') >= 1
    assert metric(gateway, 'tier_report_age_seconds{replica="engine-0"}') < 60

    gateway.admin("POST", "/adapters/told/unpin").raise_for_status()
    httpx.get(f"{engine}/drop/{quote(name)}").raise_for_status()
    assert seen()["tiers"] == {"engine-0": "disk"}
    assert replica()["adapters"][name] == "disk"
    assert metric(gateway, 'adapter_tier{adapter="told",replica="engine-0"}') == 1
    gateway.admin("DELETE", "/adapters/told?wait=true").raise_for_status()
    assert 'adapter="told"' not in httpx.get(f"{gateway.url}/metrics").text


def metric(gateway: GatewayProcess, series: str) -> float:
    lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
    (found,) = [line for line in lines if line.startswith(f"loramux_{series} ")]
    return float(found.rpartition(" ")[2])


def test_events_tell_and_repeat_what_was_missed(gateway: GatewayProcess, sources: Path) -> None:
    seen: list[tuple[int, str]] = []
    listening = threading.Event()

    def listen(after: str) -> None:
        with (
            gateway.client() as client,
            client.stream("GET", "/admin/v1/events", headers={"Last-Event-ID": after} if after else {}) as answer,
        ):
            listening.set()
            number = 0
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    number = int(line[4:])
                elif line.startswith("event: "):
                    seen.append((number, line[7:]))
                    if line == "event: adapter.deleted":
                        return

    thread = threading.Thread(target=listen, args=("",))
    thread.start()
    assert listening.wait(30)
    add(gateway, "told", sources / "one")
    gateway.admin("DELETE", "/adapters/told?wait=true")
    thread.join(30)
    assert not thread.is_alive()
    kinds = [kind for _, kind in seen]
    for kind in ("version.registered", "version.fetching", "version.validating", "version.staging", "version.ready"):
        assert kind in kinds
    assert [number for number, _ in seen] == sorted(number for number, _ in seen)

    first, seen[:] = seen[0][0], []
    thread = threading.Thread(target=listen, args=(str(first - 1),))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert seen[0][0] == first


def test_keys(gateway: GatewayProcess) -> None:
    made = gateway.admin("POST", "/keys", json={"name": "reader", "adapters": ["one*"]})
    assert made.status_code == 201
    secret = made.json()["key"]
    listed = next(key for key in gateway.admin("GET", "/keys").json()["keys"] if key["id"] == made.json()["id"])
    assert secret not in json.dumps(listed)
    assert (listed["role"], listed["adapters"], listed["revoked_at"]) == ("inference", ["one*"], None)
    headers = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{gateway.url}/v1/models", headers=headers).status_code == 200
    assert code(httpx.get(f"{gateway.url}/admin/v1/keys", headers=headers)) == "forbidden"
    assert gateway.admin("DELETE", f"/keys/{made.json()['id']}").json()["revoked_at"] is not None
    assert httpx.get(f"{gateway.url}/v1/models", headers=headers).status_code == 401
    assert code(gateway.admin("DELETE", "/keys/none")) == "key_not_found"
    assert code(gateway.admin("POST", "/keys", json={"name": "", "role": "king"})) == "invalid_request"
    for path in ("registry.db", "registry.db-wal"):
        assert secret.encode() not in (gateway.home / path).read_bytes()


def test_aws_keys(gateway: GatewayProcess) -> None:
    made = gateway.admin("POST", "/keys", json={"name": "notebook", "role": "admin", "aws": True})
    assert made.status_code == 201
    assert made.json().keys() == {"id", "access_key_id", "secret_access_key"}
    secret = made.json()["secret_access_key"]
    listed = next(key for key in gateway.admin("GET", "/keys").json()["keys"] if key["id"] == made.json()["id"])
    assert listed["access_key_id"] == made.json()["access_key_id"]
    assert httpx.get(f"{gateway.url}/v1/models", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    master = gateway.home / "aws.key"
    assert master.stat().st_mode & 0o777 == 0o600
    for path in ("registry.db", "registry.db-wal"):
        assert secret.encode() not in (gateway.home / path).read_bytes()
        assert master.read_bytes().strip() not in (gateway.home / path).read_bytes()
    assert gateway.admin("DELETE", f"/keys/{made.json()['id']}").json()["revoked_at"] is not None
    assert code(gateway.admin("POST", "/keys", json={"name": "x", "aws": "yes"})) == "invalid_request"


def test_no_key_no_admin(gateway: GatewayProcess) -> None:
    for path in ("/adapters", "/keys", "/replicas", "/events", "/aliases", "/operations/x"):
        answer = httpx.get(f"{gateway.url}/admin/v1{path}")
        assert (answer.status_code, code(answer)) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_what_is_malformed_is_a_4xx(gateway: GatewayProcess) -> None:
    assert code(gateway.admin("POST", "/adapters", content=b"{")) == "invalid_request"
    assert code(gateway.admin("POST", "/adapters", json=[1])) == "invalid_request"
    assert code(gateway.admin("POST", "/adapters", json={"name": "x"})) == "invalid_request"
    assert code(gateway.admin("POST", "/adapters", json={"name": "x", "source": "y", "sauce": 1})) == "invalid_request"
    assert code(gateway.admin("POST", "/adapters/x/canary", json={"version": 1, "weight": 7})) == "invalid_request"
    assert gateway.admin("GET", "/nothing").status_code == 404
    assert gateway.admin("PATCH", "/adapters").status_code == 405
    with gateway.client() as client:
        assert client.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"


def test_replicas_drain_and_come_back(gateway: GatewayProcess) -> None:
    assert gateway.admin("POST", "/replicas/engine-0/drain").json()["state"] == "draining"
    with gateway.client() as client:
        body = {"model": NAME, "messages": [{"role": "user", "content": "?"}]}
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert httpx.get(f"{gateway.url}/readyz").status_code == 503
    assert gateway.admin("POST", "/replicas/engine-0/undrain").json()["state"] == "ready"
    assert httpx.get(f"{gateway.url}/readyz").status_code == 200
    assert code(gateway.admin("POST", "/replicas/none/drain")) == "replica_not_found"


def test_a_full_disk_tier_says_so_and_loses_nothing(
    engine: str, sources: Path, vllm_base: Path, tmp_path: Path
) -> None:
    """Of two live adapters only one fits: the second is refused, the first goes on."""
    size = sum(len(content) for content in files(sources / "one").values())
    process = GatewayProcess(
        tmp_path / "home",
        LORAMUX_ENGINE__URLS=engine,
        LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(sources)]),
        LORAMUX_ARTIFACTS__DISK_BYTES=str(size + size // 2),
    )
    with process:
        assert add(process, "first", sources / "one").status_code == 201
        refused = add(process, "second", sources / "two")
        assert (refused.status_code, code(refused)) == (507, "storage_full")
        assert refused.json()["error"]["retryable"] is True
        first = process.admin("GET", "/adapters/first").json()
        assert first["tiers"] == {"engine-0": held_by(engine)[first["versions"][0]["engine_name"]]["tier"]}
        process.admin("DELETE", "/adapters/first?wait=true").raise_for_status()
        assert add(process, "second", sources / "two").status_code == 201


def test_the_disk_tier_drops_what_no_name_leads_to_and_fetches_it_again(
    engine: str, sources: Path, tmp_path: Path
) -> None:
    size = sum(len(content) for content in files(sources / "one").values())
    process = GatewayProcess(
        tmp_path / "home",
        LORAMUX_ENGINE__URLS=engine,
        LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(sources)]),
        LORAMUX_ARTIFACTS__DISK_BYTES=str(2 * size + size // 2),
    )
    with process:
        add(process, "first", sources / "one").raise_for_status()
        process.admin(
            "POST", "/adapters/first/versions", json={"source": str(sources / "two"), "wait": True}
        ).raise_for_status()
        add(process, "second", sources / "three").raise_for_status()
        old, live = process.admin("GET", "/adapters/first").json()["versions"]
        assert old["tiers"] == {"engine-0": "remote"}
        assert live["tiers"] == {"engine-0": held_by(engine)[live["engine_name"]]["tier"]}
        assert process.admin("DELETE", "/adapters/second?wait=true").status_code == 202
        assert process.admin("POST", "/adapters/first/rollback").json()["live"] == 1
        back = process.admin("GET", "/adapters/first").json()
        assert back["tiers"] == {"engine-0": held_by(engine)[old["engine_name"]]["tier"]}
        assert back["tiers"]["engine-0"] in ("gpu", "cpu")


def test_not_ready_while_a_pinned_adapter_can_not_answer(engine: str, sources: Path, tmp_path: Path) -> None:
    """Its files are gone from the disk tier and from where it came."""
    leaving = tmp_path / "sources" / "leaving"
    leaving.mkdir(parents=True)
    for name, content in files(sources / "two").items():
        (leaving / name).write_bytes(content)
    process = GatewayProcess(
        tmp_path / "home",
        LORAMUX_ENGINE__URLS=engine,
        LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(leaving.parent)]),
    )
    with process:
        add(process, "held", leaving, pin="cpu").raise_for_status()
        assert httpx.get(f"{process.url}/readyz").status_code == 200
        process.stop()
        shutil.rmtree(process.home / "artifacts")
        shutil.rmtree(leaving)
        httpx.delete(f"{engine}/loramux/v1/adapters/{engine_name(sources / 'two', 'held')}").raise_for_status()
        process.start(ready=False)
        eventually(lambda: process.admin("GET", "/replicas").json()["replicas"][0]["state"] == "ready")
        answer = httpx.get(f"{process.url}/readyz")
        assert answer.status_code == 503
        assert answer.json()["missing"] == ["held"]
        process.admin("POST", "/adapters/held/unpin").raise_for_status()
        assert httpx.get(f"{process.url}/readyz").status_code == 200


def test_a_keys_limit_is_a_429_that_says_when(gateway: GatewayProcess) -> None:
    made = gateway.admin("POST", "/keys", json={"name": "slow", "requests_per_minute": 1}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    body = {"model": NAME, "messages": [{"role": "user", "content": "?"}]}
    first, second = (httpx.post(f"{gateway.url}/v1/chat/completions", headers=headers, json=body) for _ in range(2))
    assert first.status_code != 429
    assert second.status_code == 429
    assert second.json()["error"]["code"] == "rate_limited"
    assert 1 <= int(second.headers["retry-after"]) <= 60


def test_beyond_loopback_only_with_a_key(tmp_path: Path) -> None:
    said = serve_in_vain(tmp_path, "--host", "0.0.0.0", "--port", "0", "--engine-urls", "http://127.0.0.1:9")
    assert "a key must exist" in said
    assert not (tmp_path / "admin.key").exists()


def test_a_port_that_is_taken_says_so(gateway: GatewayProcess, tmp_path: Path) -> None:
    assert "can not be listened on" in serve_in_vain(tmp_path, "--port", str(gateway.port))


def test_settings_that_are_wrong_say_which(tmp_path: Path) -> None:
    config = tmp_path / "loramux.toml"
    config.write_text("[engine]\nmax_loras = 0\nsize = 3\n")
    said = serve_in_vain(tmp_path / "home", "--config", str(config))
    assert "engine.max_loras" in said
    assert "engine.size" in said
    assert "does not exist" in serve_in_vain(tmp_path / "home", "--config", str(tmp_path / "none.toml"))


def test_a_base_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "no checkpoint" in serve_in_vain(tmp_path / "home", "--port", "0", "--model", str(tmp_path))
