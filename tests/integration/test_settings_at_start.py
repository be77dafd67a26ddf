"""`loramux serve` with the environments of LMI's and TGI's containers, before an engine that is a stand-in."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.fakes.hub_server import hub_server
from tests.fixtures.gateway import COMMAND, GatewayProcess, free_port
from tests.fixtures.tiny_model import write_tiny_model

pytestmark = [
    pytest.mark.timeout(240),
    # moto and botocore, not this code, use what their own dependencies have deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(moto|botocore|werkzeug).*"),
]

STAND_IN = Path(__file__).parents[1] / "fakes" / "vllm_server.py"
TOKEN = "hf_sesameOpenUp"
AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(STAND_IN), "--port", str(port), "--plugin", "--served-model-name", "tiny"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def base(vllm_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(vllm_base, tmp_path_factory.mktemp("bases") / "tiny")


def files_of(base: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()}


def lines(gateway: GatewayProcess, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def test_an_lmi_environment_with_a_base_from_the_hub(engine: str, base: Path, tmp_path: Path) -> None:
    with hub_server() as hub:
        hub.token = TOKEN
        hub.repositories["org/tiny"] = files_of(base)
        environment = {
            "LORAMUX_ENGINE__URLS": engine,
            "HF_MODEL_ID": "org/tiny",
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_TOKEN": TOKEN,
            "OPTION_ROLLING_BATCH": "vllm",
            "OPTION_ENABLE_LORA": "true",
            "OPTION_MAX_LORAS": "4",
            "OPTION_MAX_LORA": "4",
            "OPTION_ENTRYPOINT": "djl_python.huggingface",
        }
        with GatewayProcess(tmp_path / "home", **environment) as gateway:
            assert gateway.models() == {"tiny"}
            assert [
                (line["variable"], line["setting"], line["value"]) for line in lines(gateway, "variable sets a setting")
            ] == [
                ("HF_MODEL_ID", "engine.model", "org/tiny"),
                ("OPTION_MAX_LORAS", "engine.max_loras", 4),
            ]
            warned = {line["variable"]: line["reason"] for line in lines(gateway, "variable is not used")}
            assert warned.keys() == {"OPTION_ENTRYPOINT", "OPTION_MAX_LORA"}
            assert "OPTION_MAX_LORAS" in warned["OPTION_MAX_LORA"]
            assert TOKEN not in gateway.log
        assert any("/resolve/" in line for line in hub.requests)


def test_a_tgi_environment_with_a_base_from_s3(engine: str, base: Path, s3_url: str, tmp_path: Path) -> None:
    client = boto3.session.Session(
        aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    ).client("s3", endpoint_url=s3_url)
    client.create_bucket(Bucket="bases")
    for name, content in files_of(base).items():
        client.put_object(Bucket="bases", Key=f"models/tiny/{name}", Body=content)
    client.close()
    environment = {
        "LORAMUX_ENGINE__URLS": engine,
        "LORAMUX_CACHE": str(tmp_path / "cache"),
        "AWS_ENDPOINT_URL_S3": s3_url,
        "MODEL_ID": "s3://bases/models/tiny/",
        "MAX_CONCURRENT_REQUESTS": "16",
        "HOSTNAME": "web-7f9c",
        **AWS,
    }
    with GatewayProcess(tmp_path / "home", **environment) as gateway:
        assert gateway.models() == {"tiny"}
        told = {line["variable"]: line["value"] for line in lines(gateway, "variable sets a setting")}
        assert told == {"MODEL_ID": "s3://bases/models/tiny", "MAX_CONCURRENT_REQUESTS": 16}
    (kept,) = (path for path in (tmp_path / "cache").rglob("config.json"))
    assert files_of(kept.parent) == files_of(base)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HF_MODEL_ID": "a/b", "MODEL_ID": "a/c"}, "HF_MODEL_ID=a/b and MODEL_ID=a/c contradict each other"),
        ({"OPTION_ROLLING_BATCH": "trtllm"}, "OPTION_ROLLING_BATCH=trtllm is not possible"),
        ({"OPTION_ENABLE_LORA": "false"}, "since loramux serves adapters"),
        ({"PORT": "80", "LORAMUX_PORT": "8080"}, "PORT=80 and LORAMUX_PORT=8080 contradict each other"),
        ({"MODEL_ID": "s3://"}, "must read s3://bucket/key"),
    ],
)
def test_what_can_not_be_stops_the_start_with_a_sentence(
    environment: dict[str, str], words: str, tmp_path: Path
) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LORAMUX_")}
    ended = subprocess.run(
        [COMMAND, "serve", "--engine-urls", "http://127.0.0.1:9"],
        env=inherited | {"LORAMUX_HOME": str(tmp_path), "HF_TOKEN": TOKEN, "COLUMNS": "400"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr
