"""SageMaker's control plane as boto3 calls it: the real command, engines that are stand-ins, and a real S3 protocol.
Every answer is checked against botocore's own service model, as it was on the wire."""

import contextlib
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import httpx
import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError

from tests.fixtures.gateway import COMMAND, GatewayProcess, eventually
from tests.fixtures.sagemaker_model import faults
from tests.fixtures.vllm import random_adapter
from tests.fixtures.workers import ROOT

pytestmark = pytest.mark.timeout(240)

REGION = "eu-central-1"
ROLE = "arn:aws:iam::123456789012:role/service-role/anything"
IMAGE = "763104351884.dkr.ecr.eu-central-1.amazonaws.com/djl-inference:0.31.0-lmi13.0.0-cu124"
BUCKET = "adapters"
SOON = {"Delay": 0.1, "MaxAttempts": 300}


class Plane:
    """A gateway, and a client of it. What it answers is checked as it comes."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        with gateway.client() as client:
            made = client.post("/admin/v1/keys", json={"name": "notebook", "role": "admin", "aws": True}).json()
        self.credentials = {
            "aws_access_key_id": made["access_key_id"],
            "aws_secret_access_key": made["secret_access_key"],
        }
        self.checked: set[str] = set()
        self.client = self.connect(**self.credentials)

    def connect(self, service: str = "sagemaker", **credentials: str) -> Any:
        config = Config(retries={"total_max_attempts": 1})
        client: Any = boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.gateway.url,
            region_name=REGION,
            config=config,
            **{**self.credentials, **credentials},
        )
        if service == "sagemaker":
            client.meta.events.register("after-call.sagemaker", self._check)
        return client

    def _check(self, http_response: Any, model: Any, **_: Any) -> None:
        assert http_response.headers["content-type"] == "application/x-amz-json-1.1"
        assert http_response.headers["x-amzn-requestid"]
        if http_response.status_code >= 400:
            told = msgspec.json.decode(http_response.content)
            assert told.keys() == {"__type", "message"}
            assert http_response.headers["x-amzn-errortype"] == told["__type"]
            return
        self.checked.add(model.name)
        if model.output_shape is None:
            assert http_response.content == b""
        else:
            assert faults(msgspec.json.decode(http_response.content), model.output_shape) == []

    def invoke(self, component: str | None, endpoint: str = "chat") -> dict[str, Any]:
        """The body of `invoke_endpoint`."""
        name = {} if component is None else {"InferenceComponentName": component}
        body = msgspec.json.encode({"inputs": "Hi", "parameters": {"max_new_tokens": 4}})
        runtime = self.connect("sagemaker-runtime")
        answer = runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="application/json", **name)
        told: dict[str, Any] = msgspec.json.decode(answer["Body"].read())
        return told

    def status(self, name: str) -> str | None:
        """None where there is none."""
        try:
            found = self.client.describe_inference_component(InferenceComponentName=name)
        except ClientError as error:
            if "could not find" in str(error).lower():  # what the SDK's Session looks for
                return None
            raise
        return str(found["InferenceComponentStatus"])

    def comes(self, name: str, status: str | None) -> None:
        eventually(lambda: self.status(name) == status, 60.0)

    def endpoint(self, name: str = "chat") -> None:
        container = {"Image": IMAGE, "Environment": {"OPTION_ENABLE_LORA": "true", "OPTION_MAX_LORAS": "4"}}
        self.client.create_model(ModelName=f"{name}-model", ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {
            "VariantName": "AllTraffic",
            "InstanceType": "ml.g5.2xlarge",
            "InitialInstanceCount": 1,
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
        }
        self.client.create_endpoint_config(EndpointConfigName=name, ExecutionRoleArn=ROLE, ProductionVariants=[variant])
        self.client.create_endpoint(EndpointName=name, EndpointConfigName=name)
        self.client.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=SOON)

    def base(self, name: str = "base", copies: int = 1) -> None:
        self.client.create_inference_component(
            InferenceComponentName=name,
            EndpointName="chat",
            VariantName="AllTraffic",
            Specification={
                "ModelName": "chat-model",
                "StartupParameters": {"ContainerStartupHealthCheckTimeoutInSeconds": 300},
                "ComputeResourceRequirements": {
                    "MinMemoryRequiredInMb": 1024,
                    "NumberOfAcceleratorDevicesRequired": 1,
                },
            },
            RuntimeConfig={"CopyCount": copies},
        )

    def adapter(self, name: str, key: str, **more: Any) -> None:
        self.client.create_inference_component(
            InferenceComponentName=name,
            EndpointName="chat",
            Specification={
                "BaseInferenceComponentName": "base",
                "Container": {"ArtifactUrl": f"s3://{BUCKET}/{key}"},
            },
            **more,
        )


@contextlib.contextmanager
def refused(code: str, *words: str) -> Iterator[None]:
    with pytest.raises(ClientError) as raised:
        yield
    assert raised.value.response["Error"]["Code"] == code
    for word in words:
        assert word in raised.value.response["Error"]["Message"]


@pytest.fixture(scope="module")
def bucket(s3_url: str, tmp_path_factory: pytest.TempPathFactory, vllm_base: Path) -> str:
    """Its server's address; with the archives one.tar.gz and two.tar.gz."""
    work = tmp_path_factory.mktemp("archives")
    client = boto3.client(
        "s3", endpoint_url=s3_url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.create_bucket(Bucket=BUCKET)
    for seed, name in enumerate(("one", "two")):
        random_adapter(vllm_base, work / name, rank=8, seed=seed)
        with tarfile.open(work / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(work / name, arcname=".")
        client.upload_file(str(work / f"{name}.tar.gz"), BUCKET, f"{name}.tar.gz")
    return s3_url


def gateway(home: Path, s3_url: str, *args: str, **env: str) -> GatewayProcess:
    """Which starts no engine by itself, and two at most."""
    home.mkdir(parents=True, exist_ok=True)
    python = home / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests/fakes/slow_vllm.py"} "$@"\n')
    python.chmod(0o755)
    settings = {
        "LORAMUX_ENGINE__PYTHON": str(python),
        "LORAMUX_ENGINE__REPLICAS": "2",
        "LORAMUX_ENGINE__START_REPLICAS": "0",
        "LORAMUX_ARTIFACTS__S3_ENDPOINT_URL": s3_url,
        "LORAMUX_SAGEMAKER__ACCOUNT": "123456789012",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "PYTHONPATH": str(ROOT),
    }
    return GatewayProcess(home, *args, **{**settings, **env})


@contextlib.contextmanager
def running(process: GatewayProcess) -> Iterator[Plane]:
    process.start(ready=False)
    try:
        yield Plane(process)
    finally:
        process.stop()


@pytest.fixture
def plane(tmp_path: Path, bucket: str) -> Iterator[Plane]:
    with running(gateway(tmp_path / "home", bucket)) as plane:
        yield plane


def test_the_life_of_the_notebook(plane: Plane) -> None:
    client = plane.client
    plane.endpoint()
    with refused("ValidationError", "not found"):
        plane.invoke("base", endpoint="other")
    plane.base()
    assert plane.status("base") == "Creating"
    plane.comes("base", "InService")
    assert plane.invoke("base")["generated_text"]

    plane.adapter("tone", "one.tar.gz", Tags=[{"Key": "team", "Value": "a"}])
    plane.comes("tone", "InService")
    assert "generated_text" in plane.invoke("tone")
    described = client.describe_inference_component(InferenceComponentName="tone")
    arn = described["InferenceComponentArn"]
    assert arn == f"arn:aws:sagemaker:{REGION}:123456789012:inference-component/tone"
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "a"}]
    client.add_tags(ResourceArn=arn, Tags=[{"Key": "b", "Value": ""}])
    client.delete_tags(ResourceArn=arn, TagKeys=["team"])
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": ""}]

    client.update_inference_component(
        InferenceComponentName="tone",
        Specification={
            "BaseInferenceComponentName": "base",
            "Container": {"ArtifactUrl": f"s3://{BUCKET}/two.tar.gz"},
        },
    )
    plane.comes("tone", "InService")
    container = client.describe_inference_component(InferenceComponentName="tone")["Specification"]["Container"]
    assert container["ArtifactUrl"] == f"s3://{BUCKET}/two.tar.gz"

    client.update_inference_component_runtime_config(
        InferenceComponentName="base", DesiredRuntimeConfig={"CopyCount": 2}
    )
    plane.comes("base", "InService")
    copies = client.describe_inference_component(InferenceComponentName="base")["RuntimeConfig"]
    assert copies == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}

    pages = client.get_paginator("list_inference_components").paginate(PaginationConfig={"PageSize": 1})
    found = [each["InferenceComponentName"] for page in pages for each in page["InferenceComponents"]]
    assert found == ["tone", "base"]
    for listed, key in (
        (client.list_models(), "Models"),
        (client.list_endpoint_configs(), "EndpointConfigs"),
        (client.list_endpoints(StatusEquals="InService"), "Endpoints"),
    ):
        assert len(listed[key]) == 1
    client.describe_model(ModelName="chat-model")
    assert client.describe_endpoint_config(EndpointConfigName="chat")["ExecutionRoleArn"] == ROLE
    client.update_endpoint(EndpointName="chat", EndpointConfigName="chat")

    client.delete_inference_component(InferenceComponentName="base")
    plane.comes("base", None)
    assert plane.status("tone") is None
    assert plane.gateway.models() == {"SmolLM2-135M-Instruct"}
    eventually(lambda: plane.gateway.admin("GET", "/replicas").json()["ready"] == 0, 60.0)
    client.delete_endpoint(EndpointName="chat")
    client.get_waiter("endpoint_deleted").wait(EndpointName="chat", WaiterConfig=SOON)
    client.delete_endpoint_config(EndpointConfigName="chat")
    client.delete_model(ModelName="chat-model")
    assert len(plane.checked) == 22


def test_errors_come_as_client_errors(plane: Plane) -> None:
    plane.endpoint()
    client = plane.client
    with refused("ValidationException", "Could not find endpoint"):
        client.describe_endpoint(EndpointName="no")
    with pytest.raises(WaiterError):
        client.get_waiter("endpoint_in_service").wait(EndpointName="no", WaiterConfig=SOON)
    with refused("ValidationException", "Cannot create already existing endpoint"):
        client.create_endpoint(EndpointName="chat", EndpointConfigName="chat")
    with pytest.raises(client.exceptions.ResourceLimitExceeded):
        plane.base(copies=3)
    container = {"Image": IMAGE, "Environment": {"HF_MODEL_ID": "somebody/else", "OPTION_MAX_LORA_RANK": "512"}}
    client.create_model(ModelName="other", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    with refused("ValidationException", "HF_MODEL_ID", "OPTION_MAX_LORA_RANK"):
        client.create_inference_component(
            InferenceComponentName="base", EndpointName="chat", Specification={"ModelName": "other"}
        )
    with refused("UnknownOperationException", "StopNotebookInstance", "not supported"):
        client.stop_notebook_instance(NotebookInstanceName="mine")
    plane.base()
    plane.comes("base", "InService")
    plane.adapter("tone", "nowhere.tar.gz")
    plane.comes("tone", "Failed")
    reason = client.describe_inference_component(InferenceComponentName="tone")["FailureReason"]
    assert "nowhere.tar.gz" in reason
    with refused("ValidationException", "already existing inference component"):
        plane.adapter("tone", "one.tar.gz")


def test_who_may_not(plane: Plane) -> None:
    with plane.gateway.client() as client:
        made = client.post("/admin/v1/keys", json={"name": "app", "aws": True}).json()
    caller = plane.connect(aws_access_key_id=made["access_key_id"], aws_secret_access_key=made["secret_access_key"])
    with refused("AccessDeniedException"):
        caller.list_models()
    with refused("InvalidSignatureException"):
        plane.connect(aws_secret_access_key="wrong").list_models()
    with refused("UnrecognizedClientException"):
        plane.connect(aws_access_key_id="AKIAIOSFODNN7EXAMPLE").list_models()
    target = {"X-Amz-Target": "SageMaker.ListModels"}
    for headers in (target, {**target, "Authorization": f"Bearer {plane.gateway.key}"}):
        answer = httpx.post(plane.gateway.url, headers=headers, content=b"{}")
        assert 400 <= answer.status_code < 500
        assert answer.json().keys() == {"__type", "message"}
    answer = httpx.post(plane.gateway.url, headers=target, content=b"x" * (33 * 2**20))
    assert answer.status_code == 413
    assert answer.json()["__type"] == "ValidationException"


def test_of_many_at_once_one_does(plane: Plane) -> None:
    plane.endpoint()
    plane.base()
    plane.comes("base", "InService")

    def attempt(_: int) -> str:
        try:
            plane.adapter("tone", "one.tar.gz")
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "made"

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(attempt, range(8)))
    assert sorted(done) == ["ValidationException"] * 7 + ["made"]
    plane.comes("tone", "InService")


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, bucket: str) -> None:
    process = gateway(tmp_path / "home", bucket)
    with running(process) as plane:
        plane.endpoint()
        plane.base(copies=2)
        process.kill()
        process.start(ready=False)
        plane.comes("base", "InService")
        assert plane.client.describe_inference_component(InferenceComponentName="base")["RuntimeConfig"] == {
            "DesiredCopyCount": 2,
            "CurrentCopyCount": 2,
        }
        for number in range(3):
            plane.adapter(f"tone-{number}", "one.tar.gz", Tags=[{"Key": "n", "Value": str(number)}])
        process.kill()
        process.start(ready=False)
        for number in range(3):
            plane.comes(f"tone-{number}", "InService")
            arn = f"arn:aws:sagemaker:{REGION}:123456789012:inference-component/tone-{number}"
            assert plane.client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "n", "Value": str(number)}]
        plane.client.delete_inference_component(InferenceComponentName="base")
        process.kill()
        process.start(ready=False)
        plane.comes("base", None)
        assert plane.gateway.models() == {"SmolLM2-135M-Instruct"}


def test_nothing_is_half_made_wherever_it_dies(tmp_path: Path, bucket: str) -> None:
    """Killed in the middle of calls, again and again: each name is there whole, or not at all, and all that were
    acknowledged are."""
    process = gateway(tmp_path / "home", bucket)
    with running(process) as plane:
        plane.endpoint()
        plane.base()
        plane.comes("base", "InService")
        acknowledged: list[str] = []

        def grown(to: int) -> bool:
            return len(acknowledged) >= to

        for turn in range(3):
            stop = threading.Event()

            def make(turn: int = turn, stop: threading.Event = stop) -> None:
                for number in range(1000):
                    name = f"tone-{turn}-{number}"
                    try:
                        plane.adapter(name, "one.tar.gz", Tags=[{"Key": "name", "Value": name}])
                    except Exception:
                        return
                    acknowledged.append(name)
                    if stop.is_set():
                        return

            before = len(acknowledged)
            thread = threading.Thread(target=make)
            thread.start()
            eventually(partial(grown, before + 3))
            process.kill()
            stop.set()
            thread.join(30)
            process.start(ready=False)
        pages = plane.client.get_paginator("list_inference_components").paginate()
        there = {each["InferenceComponentName"] for page in pages for each in page["InferenceComponents"]} - {"base"}
        assert there >= set(acknowledged)
        for name in there:
            arn = f"arn:aws:sagemaker:{REGION}:123456789012:inference-component/{name}"
            assert plane.client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "name", "Value": name}]
        for name in there:
            plane.comes(name, "InService")


def test_over_several_workers(tmp_path: Path, bucket: str) -> None:
    with running(gateway(tmp_path / "home", bucket, "--workers", "2")) as plane:
        plane.endpoint()
        plane.base()
        plane.comes("base", "InService")
        plane.adapter("tone", "one.tar.gz")
        plane.comes("tone", "InService")
        assert "generated_text" in plane.invoke("tone")
        with refused("ValidationError", "header is required"):
            plane.invoke(None)


def test_keys_of_the_command_line(plane: Plane) -> None:
    made = subprocess.run(
        [COMMAND, "keys", "create", "notebook", "--role", "admin", "--aws"],
        env={"PATH": "/usr/bin:/bin", "LORAMUX_URL": plane.gateway.url, "LORAMUX_ADMIN_KEY": plane.gateway.key},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = dict(line.split("=", 1) for line in made.stdout.split())
    client = plane.connect(
        aws_access_key_id=told["AWS_ACCESS_KEY_ID"], aws_secret_access_key=told["AWS_SECRET_ACCESS_KEY"]
    )
    assert client.list_models()["Models"] == []
