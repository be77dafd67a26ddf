"""The gateway as an endpoint's own container, and as SageMaker's runtime, as operators run it: the real command, with
two workers, before an engine that is a stand-in."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.fakes.adapter_files import CONFIG
from tests.fakes.driven_clients import Driver
from tests.fixtures.gateway import GatewayProcess, free_port
from tests.fixtures.vllm import NAME, random_adapter

pytestmark = pytest.mark.timeout(240)

STAND_IN = "tests.fakes.completing_vllm"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", STAND_IN, "--port", str(port), "--served-model-name", NAME],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, vllm_base: Path) -> Path:
    root = tmp_path_factory.mktemp("sources")
    for seed, name in enumerate(("one", "two")):
        random_adapter(vllm_base, root / name, rank=8, seed=seed)
    random_adapter(vllm_base, root / "broken", rank=8)
    (root / "broken" / CONFIG).write_text("{")
    return root


@pytest.fixture(scope="module")
def container(engine: str, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Only SageMaker reaches it: no call has a key."""
    process = GatewayProcess(
        tmp_path_factory.mktemp("container"),
        "--workers",
        "2",
        LORAMUX_ENGINE__URLS=engine,
        LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(sources)]),
        LORAMUX_SAGEMAKER__CONTAINER="true",
        LORAMUX_ALLOW_ANONYMOUS="true",
    )
    with process:
        yield process


@pytest.fixture
def caller(container: GatewayProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=container.url, timeout=60.0) as client:
        yield client
        for each in client.get("/adapters").json()["adapters"]:
            client.delete(f"/adapters/{each['name']}")


def register(caller: httpx.Client, name: str, src: object, **more: Any) -> httpx.Response:
    return caller.post("/adapters", json={"name": name, "src": str(src), **more})


def invoke(caller: httpx.Client, adapter: str | None) -> httpx.Response:
    headers = {} if adapter is None else {"X-Amzn-SageMaker-Adapter-Identifier": adapter}
    return caller.post("/invocations", json={"inputs": "Ahoy"}, headers=headers)


def test_ping(caller: httpx.Client) -> None:
    answer = caller.get("/ping")
    assert (answer.status_code, answer.json()) == (200, {"status": "Healthy"})


def test_an_adapters_life(caller: httpx.Client, engine: str, sources: Path) -> None:
    assert invoke(caller, None).json() == {"generated_text": "Ahoy"}
    assert invoke(caller, "a1").status_code == 424

    registered = register(caller, "a1", sources / "one")
    assert (registered.status_code, registered.json()) == (200, {"status": "Adapter a1 registered"})
    assert invoke(caller, "a1").json() == {"generated_text": "Ahoy"}
    first = httpx.get(f"{engine}/fake/asked").json()[0]["model"]
    assert first.startswith("a1@")

    described = {"name": "a1", "src": str(sources / "one"), "pin": False}
    assert caller.get("/adapters/a1").json() == described
    assert caller.get("/adapters").json() == {"adapters": [described], "nextPageToken": None}

    gone = caller.delete("/adapters/a1")
    assert (gone.status_code, gone.json()) == (200, {"status": "Adapter a1 unregistered"})
    assert invoke(caller, "a1").status_code == 424
    for missing in (caller.delete("/adapters/a1"), caller.get("/adapters/a1")):
        assert missing.status_code == 404
        assert missing.json() == {
            "code": 404,
            "type": "BadRequestException",
            "message": "The adapter a1 was not found",
        }


def test_registered_again(caller: httpx.Client, container: GatewayProcess, sources: Path) -> None:
    assert register(caller, "a1", sources / "one").status_code == 200
    for src in ("one", "two"):
        again = register(caller, "a1", sources / src)
        assert (again.status_code, again.json()["code"]) == (409, 409)
        assert again.json()["message"].startswith("The adapter a1 already exists.")
    assert len(container.admin("GET", "/adapters/a1").json()["versions"]) == 1
    assert caller.get("/adapters/a1").json()["src"] == str(sources / "one")
    assert caller.delete("/adapters/a1").status_code == 200
    assert register(caller, "a1", sources / "two").status_code == 200
    assert caller.get("/adapters/a1").json()["src"] == str(sources / "two")


def test_registered_by_many_at_once(caller: httpx.Client, container: GatewayProcess, sources: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: register(caller, "a1", sources / "one"), range(4)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert any(answer.status_code == 200 for answer in answers)
    assert len(container.admin("GET", "/adapters/a1").json()["versions"]) == 1


def test_as_lmi_has_it(caller: httpx.Client, sources: Path) -> None:
    alias = {"X-Amzn-SageMaker-Adapter-Alias": "pirate"}
    registered = caller.post("/adapters", params={"name": "a1", "src": str(sources / "one")}, headers=alias)
    assert registered.json() == {"status": "Adapter pirate registered"}
    assert caller.delete("/adapters/a1", headers=alias).json() == {"status": "Adapter pirate unregistered"}
    assert caller.get("/adapters/a1", headers=alias).json()["message"] == "The adapter pirate was not found"


def test_pinned(caller: httpx.Client, container: GatewayProcess, sources: Path) -> None:
    register(caller, "a1", sources / "one", pin=True)
    assert caller.get("/adapters/a1").json()["pin"] is True
    assert container.admin("GET", "/adapters/a1").json()["pin"] == "gpu"


def test_pages(caller: httpx.Client, sources: Path) -> None:
    for name in ("c", "a", "b"):
        register(caller, name, sources / "one")
    first = caller.get("/adapters?limit=2").json()
    assert ([each["name"] for each in first["adapters"]], first["nextPageToken"]) == (["a", "b"], "2")
    second = caller.get("/adapters", params={"limit": 2, "next_page_token": first["nextPageToken"]}).json()
    assert ([each["name"] for each in second["adapters"]], second["nextPageToken"]) == (["c"], None)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"name": "a1"}, 400),
        ({"src": "/x"}, 400),
        ({"name": "", "src": "/x"}, 400),
        ({"name": "no such/name", "src": "/x"}, 400),
        ({"name": "a1", "src": "relative"}, 400),
        ({"name": "a1", "src": "/etc"}, 400),
        ({"name": "a1", "src": "ftp://x"}, 400),
        ({"name": "a1", "src": 5}, 400),
        ({"name": NAME, "src": "{sources}/one"}, 409),
        ({"name": "a1", "src": "{sources}/one", "preload": False, "pin": True}, 400),
        ({"name": "a1", "src": "{sources}/nothing"}, 424),
        ({"name": "a1", "src": "{sources}/broken"}, 424),
        ([], 400),
    ],
)
def test_what_is_refused(caller: httpx.Client, sources: Path, body: Any, status: int) -> None:
    text = json.dumps(body).replace("{sources}", str(sources))
    answer = caller.post("/adapters", content=text, headers={"Content-Type": "application/json"})
    said = answer.json()
    assert (answer.status_code, said.get("code"), set(said)) == (status, status, {"code", "type", "message"})
    assert caller.get("/adapters").json()["adapters"] == []


def test_an_adapter_that_failed_can_be_registered_again(caller: httpx.Client, sources: Path) -> None:
    assert register(caller, "a2", sources / "broken").status_code == 424
    assert register(caller, "a2", sources / "one").status_code == 200
    assert invoke(caller, "a2").status_code == 200


def test_no_key_opens_the_rest(caller: httpx.Client) -> None:
    assert caller.get("/admin/v1/adapters").status_code == 403


# With keys


@pytest.fixture(scope="module")
def gateway(engine: str, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(
        tmp_path_factory.mktemp("gateway"),
        "--workers",
        "2",
        LORAMUX_ENGINE__URLS=engine,
        LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(sources)]),
    )
    with process:
        body = {"name": "pirate", "source": str(sources / "one"), "wait": True}
        process.admin("POST", "/adapters", json=body).raise_for_status()
        yield process


@pytest.fixture(scope="module")
def aws_key(gateway: GatewayProcess) -> dict[str, str]:
    made: dict[str, str] = (
        gateway.admin("POST", "/keys", json={"name": "notebook", "aws": True}).raise_for_status().json()
    )
    return made


def test_adapters_need_an_admins_key(gateway: GatewayProcess, sources: Path) -> None:
    with httpx.Client(base_url=gateway.url) as nobody, gateway.client() as admin:
        for call in (nobody.get, nobody.delete):
            assert call("/adapters/pirate").status_code == 401
        refused = register(nobody, "a1", sources / "one")
        assert (refused.status_code, refused.json()["code"]) == (401, 401)
        assert refused.headers["www-authenticate"] == "Bearer"
        assert register(admin, "a1", sources / "one").status_code == 200
        assert admin.delete("/adapters/a1").status_code == 200
        key = gateway.admin("POST", "/keys", json={"name": "app"}).json()["key"]
        other = nobody.get("/adapters", headers={"Authorization": f"Bearer {key}"})
        assert other.status_code == 403
        assert nobody.get("/ping").status_code == 200


def test_boto3(gateway: GatewayProcess, aws_key: dict[str, str]) -> None:
    client = boto3.session.Session().client(
        "sagemaker-runtime",
        endpoint_url=gateway.url,
        region_name="eu-west-1",
        aws_access_key_id=aws_key["access_key_id"],
        aws_secret_access_key=aws_key["secret_access_key"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    body = json.dumps({"inputs": "Ahoy", "parameters": {"details": True}, "stream": True})
    events = client.invoke_endpoint_with_response_stream(
        EndpointName="shop", InferenceComponentName="pirate", Body=body
    )["Body"]
    last = b"".join(event["PayloadPart"]["Bytes"] for event in events).splitlines()[-1]
    assert json.loads(last)["generated_text"] == "Ahoy"
    assert json.loads(last)["details"]["finish_reason"] == "eos_token"
    for missing in ({"InferenceComponentName": "nobody"}, {"InferenceComponentName": f"{NAME}-2"}):
        with pytest.raises(client.exceptions.ValidationError) as caught:
            client.invoke_endpoint(EndpointName="shop", Body=body, **missing)
        assert "not found" in str(caught.value)
    with pytest.raises(client.exceptions.ModelError) as refused:
        client.invoke_endpoint(
            EndpointName="shop", Body=json.dumps({"inputs": "a", "parameters": {"max_new_tokens": 5000}})
        )
    assert refused.value.response["OriginalStatusCode"] == 400
    body = json.dumps({"inputs": "a", "adapters": ["nobody"]})
    with pytest.raises(client.exceptions.ModelError) as refused:
        client.invoke_endpoint(EndpointName="shop", Body=body)
    assert refused.value.response["OriginalStatusCode"] == 424
    answer = client.invoke_endpoint(EndpointName="shop", Body=body.replace("nobody", "pirate"))
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-loramux-adapter"] == "pirate"
    assert json.loads(answer["Body"].read()) == {"generated_text": "a"}
    client.close()


def test_a_key_that_was_revoked(gateway: GatewayProcess) -> None:
    made = gateway.admin("POST", "/keys", json={"name": "short", "aws": True}).json()
    client = boto3.session.Session().client(
        "sagemaker-runtime",
        endpoint_url=gateway.url,
        region_name="eu-west-1",
        aws_access_key_id=made["access_key_id"],
        aws_secret_access_key=made["secret_access_key"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    ask = {"EndpointName": "shop", "Body": b'{"inputs": "Ahoy"}'}
    assert json.loads(client.invoke_endpoint(**ask)["Body"].read()) == {"generated_text": "Ahoy"}
    gateway.admin("DELETE", f"/keys/{made['id']}").raise_for_status()
    with pytest.raises(ClientError) as caught:
        client.invoke_endpoint(**ask)
    assert caught.value.response["Error"]["Code"] == "UnrecognizedClientException"
    client.close()


@pytest.mark.parametrize("form", ["inputs", "openai-chat"])
def test_the_benchs_own_user(driver: Driver, gateway: GatewayProcess, aws_key: dict[str, str], form: str) -> None:
    key = f"{aws_key['access_key_id']}:{aws_key['secret_access_key']}"
    extra = {"EndpointName": "shop", "region": "eu-west-1", "form": form}
    target = {"extra": extra}
    trace = driver.trace(gateway.url, "sagemaker", {"max_tokens": 50, "extra": extra}, key=key, target=target)
    if form == "openai-chat":  # the stand-in speaks completions only
        assert trace["status"] == 424
        return
    assert (trace["error"], trace["message"], trace["status"]) == ("", "", 200)
    assert "".join(trace["text"]).startswith("Ahoy?")
    assert trace["output_tokens"]
    assert trace["request_id"]
    assert trace["replica"]
    assert trace["version"] == "1"
