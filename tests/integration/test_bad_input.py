"""Bad input at every door: the error is the one that the door's own service gives, and nothing is lost: what was
registered is as before, and a good request at the same door works.

What each door can be told wrongly in detail is in the tests of its own; here are the same faults at all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import httpx
import pytest

from tests.fixtures.doors import (
    ADAPTER,
    BASE,
    ENDPOINT,
    GENERATE,
    GOOD,
    INPUTS,
    LARGE,
    MAX_BODY_BYTES,
    PROMPT,
    Door,
    Doors,
    code_of,
)
from tests.fixtures.gateway import eventually

pytestmark = [
    pytest.mark.timeout(240),
    # moto and botocore, not this code, use what their own dependencies have deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(moto|botocore|werkzeug).*"),
]


@dataclass(frozen=True)
class Bad:
    door: Door
    fault: str
    send: Callable[[Doors], httpx.Response]
    status: int
    code: str

    def __str__(self) -> str:
        return f"{self.door}: {self.fault}"


def component(**specification: object) -> dict[str, object]:
    return {"InferenceComponentName": "other", "EndpointName": ENDPOINT, "Specification": specification}


NAMED = {"InferenceComponentName": "nobody"}
OLD = timedelta(hours=1)
OF_S3 = {"ArtifactUrl": "s3://shop/one.tar.gz"}

TABLE = [
    Bad(
        "openai",
        "no key",
        lambda d: d.post("/v1/completions", {"model": ADAPTER, **PROMPT}, key=""),
        401,
        "unauthenticated",
    ),
    Bad(
        "openai",
        "wrong key",
        lambda d: d.post("/v1/completions", {"model": ADAPTER, **PROMPT}, key="lmx_no"),
        401,
        "unauthenticated",
    ),
    Bad("openai", "no JSON", lambda d: d.post("/v1/completions", b"{"), 400, "invalid_request"),
    Bad("openai", "wrong types", lambda d: d.post("/v1/completions", {"model": 7, **PROMPT}), 400, "invalid_request"),
    Bad(
        "openai",
        "unknown adapter",
        lambda d: d.post("/v1/completions", {"model": "nobody", **PROMPT}),
        404,
        "model_not_found",
    ),
    Bad("openai", "oversize", lambda d: d.post("/v1/completions", LARGE), 413, "body_too_large"),
    Bad("tgi", "no key", lambda d: d.post("/generate", GENERATE, key=""), 401, "unauthenticated"),
    Bad("tgi", "no JSON", lambda d: d.post("/generate", b"["), 422, "validation"),
    Bad("tgi", "wrong types", lambda d: d.post("/generate", {"inputs": 7}), 422, "validation"),
    Bad(
        "tgi",
        "a parameter out of bounds",
        lambda d: d.post("/", {"inputs": "x", "parameters": {"top_p": 7}}),
        422,
        "validation",
    ),
    Bad(
        "tgi",
        "a parameter that vLLM lacks",
        lambda d: d.post("/generate_stream", {"inputs": "x", "parameters": {"typical_p": 0.5}}),
        422,
        "validation",
    ),
    Bad(
        "tgi",
        "unknown adapter",
        lambda d: d.post("/generate", {"inputs": "x", "parameters": {"adapter_id": "nobody"}}),
        422,
        "validation",
    ),
    Bad("tgi", "oversize", lambda d: d.post("/generate", LARGE), 413, "body_too_large"),
    Bad("container", "no key", lambda d: d.post("/invocations", INPUTS, key=""), 401, "401"),
    Bad("container", "no JSON", lambda d: d.post("/invocations", b"{"), 424, "424"),
    Bad("container", "wrong types", lambda d: d.post("/invocations", {"inputs": 7}), 424, "424"),
    Bad(
        "container",
        "unknown adapter",
        lambda d: d.post("/invocations", INPUTS, **{"X-Amzn-SageMaker-Adapter-Identifier": "nobody"}),
        424,
        "424",
    ),
    Bad("container", "oversize", lambda d: d.post("/invocations", LARGE), 413, "413"),
    Bad(
        "adapters",
        "no admin's key",
        lambda d: d.post("/adapters", {"name": "x", "src": "s3://shop/one.tar.gz"}),
        403,
        "BadRequestException",
    ),
    Bad("adapters", "wrong types", lambda d: d.as_admin("POST", "/adapters", {"name": 7}), 400, "BadRequestException"),
    Bad("adapters", "no JSON", lambda d: d.as_admin("POST", "/adapters", b"{"), 400, "BadRequestException"),
    Bad(
        "adapters",
        "a name that is there",
        lambda d: d.as_admin("POST", "/adapters", {"name": ADAPTER, "src": "s3://shop/one.tar.gz"}),
        409,
        "BadRequestException",
    ),
    Bad("adapters", "unknown adapter", lambda d: d.as_admin("DELETE", "/adapters/nobody"), 404, "BadRequestException"),
    Bad(
        "runtime",
        "no signature",
        lambda d: d.post(f"/endpoints/{ENDPOINT}/invocations", INPUTS, key=""),
        403,
        "MissingAuthenticationTokenException",
    ),
    Bad("runtime", "wrong signature", lambda d: d.invoke(INPUTS, secret="x" * 40), 403, "InvalidSignatureException"),
    Bad(
        "runtime",
        "another body than was signed",
        lambda d: d.invoke(INPUTS, sent={"inputs": "y"}),
        403,
        "InvalidSignatureException",
    ),
    Bad(
        "runtime",
        "unknown access key",
        lambda d: d.invoke(INPUTS, access_key_id="LMXNOBODY"),
        403,
        "UnrecognizedClientException",
    ),
    Bad("runtime", "an old signature", lambda d: d.invoke(INPUTS, age=OLD), 403, "InvalidSignatureException"),
    Bad("runtime", "unknown endpoint", lambda d: d.invoke(INPUTS, endpoint="nobody"), 400, "ValidationError"),
    Bad("runtime", "unknown component", lambda d: d.invoke(INPUTS, component="nobody"), 400, "ValidationError"),
    Bad("runtime", "a name that can be none", lambda d: d.invoke(INPUTS, component="a b"), 400, "ValidationError"),
    Bad("runtime", "no JSON", lambda d: d.invoke(b"{"), 424, "ModelError"),
    Bad("runtime", "wrong types", lambda d: d.invoke({"inputs": 7}), 424, "ModelError"),
    Bad("runtime", "wrong types, streamed", lambda d: d.invoke({"inputs": 7}, stream=True), 424, "ModelError"),
    Bad("runtime", "oversize", lambda d: d.invoke(LARGE), 413, ""),
    Bad(
        "control",
        "wrong signature",
        lambda d: d.control("ListEndpoints", {}, secret="x" * 40),
        400,
        "InvalidSignatureException",
    ),
    Bad(
        "control",
        "unknown access key",
        lambda d: d.control("ListEndpoints", {}, access_key_id="LMXNOBODY"),
        400,
        "UnrecognizedClientException",
    ),
    Bad(
        "control",
        "an old signature",
        lambda d: d.control("ListEndpoints", {}, age=OLD),
        400,
        "InvalidSignatureException",
    ),
    Bad("control", "unknown operation", lambda d: d.control("CreateUnicorn", {}), 400, "UnknownOperationException"),
    Bad("control", "no JSON", lambda d: d.control("ListEndpoints", b"{"), 400, "SerializationException"),
    Bad(
        "control",
        "wrong types",
        lambda d: d.control("DescribeEndpoint", {"EndpointName": 7}),
        400,
        "SerializationException",
    ),
    Bad(
        "control",
        "a value out of bounds",
        lambda d: d.control("ListEndpoints", {"MaxResults": 0}),
        400,
        "ValidationException",
    ),
    Bad("control", "a member that lacks", lambda d: d.control("DescribeEndpoint", {}), 400, "ValidationException"),
    Bad(
        "control",
        "oversize",
        lambda d: d.control("CreateModel", {"ModelName": "x" * MAX_BODY_BYTES}),
        413,
        "ValidationException",
    ),
    Bad(
        "control",
        "unknown component described",
        lambda d: d.control("DescribeInferenceComponent", NAMED),
        400,
        "ValidationException",
    ),
    Bad(
        "control",
        "unknown component deleted",
        lambda d: d.control("DeleteInferenceComponent", NAMED),
        400,
        "ValidationException",
    ),
    Bad(
        "control",
        "unknown component updated",
        lambda d: d.control("UpdateInferenceComponent", {**NAMED, "Specification": {"Container": OF_S3}}),
        400,
        "ValidationException",
    ),
    Bad(
        "control",
        "adapter of another base",
        lambda d: d.control(
            "CreateInferenceComponent", component(BaseInferenceComponentName="another-base", Container=OF_S3)
        ),
        400,
        "ValidationException",
    ),
    Bad(
        "control",
        "adapter on an adapter",
        lambda d: d.control("CreateInferenceComponent", component(BaseInferenceComponentName=ADAPTER, Container=OF_S3)),
        400,
        "ValidationException",
    ),
    Bad(
        "control",
        "a name that is there",
        lambda d: d.control(
            "CreateInferenceComponent",
            component(BaseInferenceComponentName=BASE, Container=OF_S3) | {"InferenceComponentName": ADAPTER},
        ),
        400,
        "ValidationException",
    ),
    Bad(
        "control",
        "a second base",
        lambda d: d.control("CreateInferenceComponent", component(ModelName="shop")),
        400,
        "ResourceLimitExceeded",
    ),
    Bad(
        "control",
        "an endpoint in use deleted",
        lambda d: d.control("DeleteEndpoint", {"EndpointName": ENDPOINT}),
        400,
        "ValidationException",
    ),
    Bad(
        "admin",
        "a key of a caller",
        lambda d: d.post("/admin/v1/adapters", {"name": "x", "source": "s3://a/b"}),
        403,
        "forbidden",
    ),
    Bad(
        "admin", "wrong types", lambda d: d.as_admin("POST", "/admin/v1/adapters", {"name": 7}), 400, "invalid_request"
    ),
    Bad(
        "admin",
        "unknown adapter",
        lambda d: d.as_admin("DELETE", "/admin/v1/adapters/nobody"),
        404,
        "adapter_not_found",
    ),
]


@pytest.mark.parametrize("bad", TABLE, ids=str)
def test_bad_input_gives_the_doors_own_error_and_nothing_is_lost(doors: Doors, bad: Bad) -> None:
    before = doors.state()
    answer = bad.send(doors)
    assert (answer.status_code, code_of(bad.door, answer)) == (bad.status, bad.code), answer.text
    assert doors.state() == before
    good = GOOD[bad.door](doors)
    assert good.status_code == 200, good.text


ONLY_FOR: Mapping[Door, tuple[int, str]] = {
    "openai": (403, "forbidden"),
    "tgi": (403, "forbidden"),
    "container": (403, "403"),
}


@pytest.mark.parametrize("door", ONLY_FOR)
def test_a_key_for_another_adapter(doors: Doors, door: Door) -> None:
    made = doors.as_admin("POST", "/admin/v1/keys", {"name": "narrow", "adapters": ["other-*"]}).raise_for_status()
    narrow = replace(doors, key=made.json()["key"])
    before = doors.state()
    answer = GOOD[door](narrow)
    assert (answer.status_code, code_of(door, answer)) == ONLY_FOR[door], answer.text
    assert doors.state() == before
    assert GOOD[door](doors).status_code == 200


def test_an_aws_key_for_another_adapter(doors: Doors) -> None:
    asked = {"name": "narrow", "adapters": ["other-*"], "aws": True}
    made = doors.as_admin("POST", "/admin/v1/keys", asked).raise_for_status().json()
    narrow = replace(doors, access_key_id=made["access_key_id"], secret=made["secret_access_key"])
    before = doors.state()
    for door in ("runtime", "control"):
        answer = GOOD[door](narrow)
        assert code_of(door, answer) == "AccessDeniedException", answer.text
        assert GOOD[door](doors).status_code == 200
    assert doors.state() == before


def test_a_signed_request_that_comes_again(doors: Doors) -> None:
    """Of an SDK that signs its number."""
    headers = {"Content-Type": "application/json", "amz-sdk-invocation-id": "5f4a6c1e-1"}
    headers["X-Amzn-SageMaker-Inference-Component"] = ADAPTER
    path = f"/endpoints/{ENDPOINT}/invocations"
    assert doors.signed(path, INPUTS, headers).status_code == 200
    again = doors.signed(path, INPUTS, {**headers, "amz-sdk-invocation-id": "5f4a6c1e-2"}, times=2)
    assert (again.status_code, code_of("runtime", again)) == (403, "InvalidSignatureException"), again.text
    assert GOOD["runtime"](doors).status_code == 200


@pytest.mark.parametrize("archive", ["broken", "of-another-base", "missing"])
def test_an_adapter_that_does_not_fit_becomes_a_failed_component(doors: Doors, archive: str) -> None:
    before = doors.state()
    specification = {
        "BaseInferenceComponentName": BASE,
        "Container": {"ArtifactUrl": f"s3://{doors.bucket}/{archive}.tar.gz"},
    }
    asked = {"InferenceComponentName": "unfit", "EndpointName": ENDPOINT, "Specification": specification}
    assert doors.control("CreateInferenceComponent", asked).status_code == 200
    named = {"InferenceComponentName": "unfit"}
    eventually(
        lambda: doors.control("DescribeInferenceComponent", named).json()["InferenceComponentStatus"] == "Failed"
    )
    assert doors.control("DescribeInferenceComponent", named).json()["FailureReason"]
    assert code_of("runtime", doors.invoke(INPUTS, component="unfit")) == "ModelNotReadyException"
    assert GOOD["runtime"](doors).status_code == 200
    assert doors.control("DeleteInferenceComponent", named).status_code == 200
    eventually(lambda: doors.control("DescribeInferenceComponent", named).status_code == 400)
    assert doors.state() == before


@pytest.mark.parametrize("archive", ["broken", "of-another-base", "missing"])
def test_an_update_that_does_not_fit_leaves_what_was_there(doors: Doors, archive: str) -> None:
    named = {"InferenceComponentName": ADAPTER}
    before = doors.invoke(INPUTS).json()
    container = {"ArtifactUrl": f"s3://{doors.bucket}/{archive}.tar.gz"}
    asked = {**named, "Specification": {"Container": container}}
    assert doors.control("UpdateInferenceComponent", asked).status_code == 200
    eventually(
        lambda: doors.control("DescribeInferenceComponent", named).json()["InferenceComponentStatus"] == "InService"
    )
    described = doors.control("DescribeInferenceComponent", named).json()
    assert described["FailureReason"]
    assert described["Specification"]["Container"]["ArtifactUrl"] == f"s3://{doors.bucket}/one.tar.gz"
    assert doors.as_admin("GET", f"/admin/v1/adapters/{ADAPTER}").json()["live"] == 1
    assert doors.invoke(INPUTS).json() == before
