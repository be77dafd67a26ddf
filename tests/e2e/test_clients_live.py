"""Each example, run by the client that it is written for, against a gateway with the demo adapters, real vLLM and a
server of the S3 protocol."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loramux_serving.base.default import NAME
from tests.e2e.conftest import DEMO
from tests.fixtures.clients import EXAMPLES, run_example
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.vllm import RealVllm

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(400),
    # moto and botocore, not this code, use what their own dependencies have deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(moto|botocore|werkzeug).*"),
]

ADAPTERS = DEMO / "adapters"
REGION = "us-east-1"


@pytest.fixture(scope="module")
def gateway(vllm: RealVllm, s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """As `make serve` starts it, and it may read from a store and from the demo's directories."""
    process = GatewayProcess(
        tmp_path_factory.mktemp("home"),
        "--demo",
        str(DEMO),
        LORAMUX_ENGINE__URLS=vllm.url,
        LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(ADAPTERS)]),
        LORAMUX_ARTIFACTS__SCHEMES='["file", "s3"]',
        LORAMUX_ARTIFACTS__S3_ENDPOINT_URL=s3_url,
        AWS_ACCESS_KEY_ID="of-the-gateway",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_DEFAULT_REGION=REGION,
    )
    with process:
        process.wait_for_adapters("pirate", "shop-sql", "ticket-json")
        yield process


@pytest.fixture(scope="module")
def environment(gateway: GatewayProcess) -> dict[str, str]:
    """For the examples: where, and with which key."""
    key = gateway.admin("POST", "/keys", json={"name": "examples"}).raise_for_status().json()["key"]
    return {"LORAMUX_URL": gateway.url, "LORAMUX_API_KEY": key}


def said(lines: list[str], label: str) -> str:
    """What the one line says that begins with the label."""
    found = [line.removeprefix(f"{label}: ") for line in lines if line.startswith(f"{label}: ")]
    assert len(found) == 1, f"{label} is said {len(found)} times in:\n" + "\n".join(lines)
    return found[0]


def test_openai(environment: dict[str, str], tmp_path: Path) -> None:
    lines = run_example("openai_client.py", tmp_path, **environment)
    assert set(said(lines, "models").split(", ")) == {NAME, "pirate", "shop-sql", "ticket-json"}
    assert said(lines, "pirate").startswith("Arr,")
    assert not said(lines, NAME).startswith("Arr,")
    assert said(lines, "streamed") == said(lines, "pirate")
    assert int(said(lines, "tokens")) > 0


def test_litellm(environment: dict[str, str], tmp_path: Path) -> None:
    lines = run_example("litellm_client.py", tmp_path, **environment)
    assert said(lines, "pirate").startswith("Arr,")
    assert said(lines, "streamed") == said(lines, "pirate")
    assert int(said(lines, "tokens")) > 0
    assert said(lines, "an unknown adapter") == "404"


def test_langchain(environment: dict[str, str], tmp_path: Path) -> None:
    lines = run_example("langchain_client.py", tmp_path, **environment)
    assert said(lines, "pirate").startswith("Arr,")
    assert said(lines, "streamed") == said(lines, "pirate")
    assert [line.startswith("one of a batch: Arr,") for line in lines if "batch" in line] == [True, True]


def test_huggingface_hub(environment: dict[str, str], tmp_path: Path) -> None:
    lines = run_example("huggingface_client.py", tmp_path, **environment)
    assert said(lines, "pirate").startswith("Arr,")
    assert not said(lines, "base").startswith("Arr,")
    assert said(lines, "streamed") == said(lines, "pirate")
    assert said(lines, "chat").startswith("Arr,")
    assert said(lines, "tokens") in {"24, ended by length", *(f"{count}, ended by eos_token" for count in range(25))}


def test_curl(gateway: GatewayProcess, environment: dict[str, str], tmp_path: Path) -> None:
    """The key of the gateway for what only an admin may do."""
    admin = {"LORAMUX_ADMIN_KEY": gateway.key}
    lines = run_example("curl.sh", tmp_path, str(ADAPTERS / "shop-sql"), **environment, **admin)
    text = "\n".join(lines)
    answers = {part.splitlines()[0].strip(): "\n".join(part.splitlines()[1:]) for part in text.split("== ")[1:]}
    assert "Arr," in json.loads(answers["POST /v1/chat/completions"])["choices"][0]["message"]["content"]
    assert json.loads(answers["POST /v1/completions"])["choices"][0]["text"].startswith("Arr,")
    assert json.loads(answers["POST /generate"])["generated_text"].startswith("Arr,")
    frames = [json.loads(line[5:]) for line in answers["POST /generate_stream"].splitlines() if line[:5] == "data:"]
    assert "".join(frame["token"]["text"] for frame in frames).startswith("Arr,")
    assert frames[-1]["generated_text"].startswith("Arr,")
    assert answers["GET /ping"] == "200"
    assert answers["POST and DELETE /adapters"]
    assert "curl-made" not in gateway.models()


def test_the_sagemaker_notebook(gateway: GatewayProcess, s3_url: str, tmp_path: Path) -> None:
    """Nothing but addresses and credentials are other than at Amazon's."""
    made = gateway.admin("POST", "/keys", json={"name": "notebook", "role": "admin", "aws": True})
    key = made.raise_for_status().json()
    before = gateway.models()
    lines = run_example(
        "sagemaker_notebook.py",
        tmp_path,
        *(str(ADAPTERS / "pirate"), str(ADAPTERS / "pirate-v2"), "--model", NAME),
        AWS_ENDPOINT_URL_SAGEMAKER=gateway.url,
        AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=gateway.url,
        AWS_ENDPOINT_URL_S3=s3_url,
        AWS_ACCESS_KEY_ID=key["access_key_id"],
        AWS_SECRET_ACCESS_KEY=key["secret_access_key"],
        AWS_DEFAULT_REGION=REGION,
    )
    assert said(lines, "endpoint") == "InService"
    assert said(lines, "base").endswith(":inference-component/notebook-base")
    assert said(lines, "components") == "notebook-adapter, notebook-base"
    assert said(lines, "notebook-adapter says").startswith("Arr,")
    assert not said(lines, "notebook-base says").startswith("Arr,")
    assert said(lines, "streamed") == said(lines, "notebook-adapter says")
    assert said(lines, "notebook-adapter says, updated").startswith("Forsooth,")
    assert said(lines, "notebook-adapter, deleted") == "ValidationError"
    assert said(lines, "left") == "0"
    assert gateway.models() == before, "what came by other ways stays"


def test_each_example_is_run() -> None:
    """By a test here that names it."""
    tests = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh") and path.name not in tests] == []
