"""The words of SageMaker's runtime, held against botocore's own model of it."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.loaders import Loader
from botocore.model import ServiceModel
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.errors import EngineFailed, EngineTimeout, LoramuxError, RequestInvalid, classes
from loramux_serving.auth import sigv4
from loramux_serving.relay.dialect import Asked, Component, Dialect, InferenceRequest
from loramux_serving.relay.dialects import sagemaker
from loramux_serving.relay.dialects.sagemaker import Operation, SageMakerDialect
from loramux_serving.relay.dialects.sagemaker_errors import _CODES, _STATUSES
from tests.fakes.signed_requests import signed

ANSWERS = Path(__file__).parents[1] / "fixtures" / "vllm_completions"
MODEL = ServiceModel(Loader().load_service_model("sagemaker-runtime", "service-2"))
PLAIN: Operation = "invocations"
STREAM: Operation = "invocations-response-stream"
COMMON_ERRORS = {"AccessDeniedException", "MissingAuthenticationTokenException", "ThrottlingException"}
STREAMS = sorted(path.name for path in ANSWERS.glob("*_stream*.txt"))


def dialect(operation: Operation = PLAIN) -> Dialect:
    return SageMakerDialect(operation, sigv4, account="123456789012")


def asked(**headers: str) -> Asked:
    told = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Asked(b"POST", b"/endpoints/shop/invocations", list(told.items()), told)


def read(body: Any, operation: Operation = PLAIN, head: Asked | None = None) -> InferenceRequest:
    return dialect(operation).decode(head or asked(), json.dumps(body).encode())


def parts(data: bytes) -> list[Any]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


def through(request: InferenceRequest, pieces: Sequence[bytes]) -> bytes:
    form = request.form("engine").stream()
    return b"".join([*(form.feed(piece) for piece in pieces), form.finish()])


# The model of the service


def test_headers_are_the_services() -> None:
    known = {
        member.serialization["name"].lower()
        for operation in ("InvokeEndpoint", "InvokeEndpointWithResponseStream")
        for shape in (MODEL.operation_model(operation).input_shape, MODEL.operation_model(operation).output_shape)
        for member in shape.members.values()
        if member.serialization.get("location") == "header"
    }
    used = {sagemaker._COMPONENT, sagemaker._VARIANT, sagemaker.CUSTOM_ATTRIBUTES, *sagemaker._REFUSED}
    assert {name.decode() for name in used} <= known
    head = (
        read({"inputs": "a"}, STREAM)
        .form("e")
        .headers(200, [(b"content-type", b"application/json")], b"x-request-id: r\r\n", streamed=False)
    )
    own = {line.partition(b":")[0].decode() for line in head.split(b"\r\n") if line.startswith(b"x-amzn-")}
    assert own - {"x-amzn-requestid"} <= known


def test_the_paths_are_the_services() -> None:
    for name, operation in (("InvokeEndpoint", PLAIN), ("InvokeEndpointWithResponseStream", STREAM)):
        assert MODEL.operation_model(name).http["requestUri"] == f"/endpoints/{{EndpointName}}/{operation}"
    assert MODEL.shape_for("BodyBlob").metadata["max"] == sagemaker.MAX_BODY_BYTES


def test_statuses_are_the_services() -> None:
    for shape in MODEL.error_shapes:
        status = shape.metadata.get("error", {}).get("httpStatusCode")
        if shape.name in _STATUSES:
            assert _STATUSES[shape.name] == status, shape.name
    known = {shape.name for shape in MODEL.error_shapes}
    assert set(_CODES.values()) <= known | COMMON_ERRORS


@pytest.mark.parametrize("kind", sorted(classes(), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_every_error_has_a_code(kind: type[LoramuxError]) -> None:
    words = dialect().error(kind("It is so."))
    headers = dict(words.headers)
    code = headers[b"x-amzn-errortype"].decode()
    body = json.loads(words.body)
    assert 400 <= words.status < 600
    if code == "ModelError":
        shape = MODEL.shape_for("ModelError")
        assert set(body) == {*shape.members, "ErrorCode"}
        assert json.loads(body["OriginalMessage"])["error"] == "It is so."
        assert ":123456789012:" in body["LogStreamArn"]
    else:
        assert body == {"Message": "It is so."}


def test_long_messages_are_cut() -> None:
    body = json.loads(dialect().error(EngineFailed("x" * 9000)).body)
    limit = MODEL.shape_for("Message").metadata["max"]
    assert len(body["Message"]) <= limit
    assert len(body["OriginalMessage"]) <= limit


# Requests


def test_which_model_is_meant() -> None:
    component = asked(x_amzn_sagemaker_inference_component="pirate")
    assert read({"inputs": "a"}).model == Component("shop", None)
    assert read({"inputs": "a", "adapters": "pirate"}).model == Component("shop", None, "pirate")
    assert read({"messages": [], "model": "gpt"}).model == Component("shop", None)
    assert read({"prompt": "a", "model": "gpt"}, PLAIN, component).model == Component("shop", "pirate")


def test_whoever_signs_is_read_as_a_signer() -> None:
    head = signed(body=b"{}")
    assert dialect().signed(head)
    assert isinstance(dialect().credentials(head, b"{}"), sagemaker.SignedRequest)
    assert dialect().credentials(asked(authorization="Bearer k"), b"{}") == "Bearer k"
    assert dialect().credentials(asked(), b"{}") is None


def test_a_fault_of_the_body_is_the_containers() -> None:
    with pytest.raises(RequestInvalid) as caught:
        read({"inputs": 5})
    assert dict(dialect().error(caught.value).headers)[b"x-amzn-errortype"] == b"ModelError"
    with pytest.raises(RequestInvalid) as caught:
        read({"inputs": "a"}, PLAIN, asked(x_amzn_sagemaker_target_model="m"))
    assert dict(dialect().error(caught.value).headers)[b"x-amzn-errortype"] == b"ValidationError"


# Answers


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 25_000), max_size=12))
def test_the_payload_does_not_depend_on_pieces(name: str, places: list[int]) -> None:
    data = (ANSWERS / name).read_bytes()
    ends = sorted({0, len(data), *(min(place, len(data)) for place in places)})
    body = {"inputs": "Hi", "parameters": {"details": True}, "stream": True}
    found = parts(through(read(body, STREAM), [data[start:end] for start, end in pairwise(ends)]))
    assert b"".join(each.payload for each in found) == through(read(body), [data])
    assert all(each.headers[":event-type"] == "PayloadPart" for each in found)


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineFailed("Gone."), "StreamBroken"), (EngineTimeout("Slow."), "ModelInvocationTimeExceeded")],
)
def test_a_stream_that_breaks_off(error: LoramuxError, code: str) -> None:
    form = read({"inputs": "Hi", "stream": True}, STREAM).form("engine").stream()
    begun = form.feed((ANSWERS / "numbers_stream.txt").read_bytes()[:900])
    *before, last = parts(begun + form.broken(error))
    assert before
    assert last.headers[":exception-type"] == "ModelStreamError"
    assert json.loads(last.payload) == {"Message": error.message, "ErrorCode": code}


def test_a_stream_that_the_gateway_fails() -> None:
    form = read({"inputs": "Hi", "stream": True}, STREAM).form("engine").stream()
    (last,) = parts(form.broken(LoramuxError("A fault.")))
    assert last.headers[":exception-type"] == "InternalStreamFailure"
    assert json.loads(last.payload) == {"Message": "A fault."}


def test_the_answers_headers() -> None:
    engine = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"server", b"uvicorn")]
    request = read({"inputs": "Hi", "stream": True}, STREAM, asked(x_amzn_sagemaker_target_variant="blue"))
    head = request.form("engine").headers(200, engine, b"x-request-id: r\r\n", streamed=True)
    assert sorted(head.split(b"\r\n")) == [
        b"",
        b"content-type: application/vnd.amazon.eventstream",
        b"server: uvicorn",
        b"x-amzn-invoked-production-variant: blue",
        b"x-amzn-requestid: r",
        b"x-amzn-sagemaker-content-type: application/jsonlines",
        b"x-request-id: r",
    ]


def test_an_errors_headers() -> None:
    engine = [(b"content-type", b"application/json")]
    head = read({"inputs": "Hi"}, STREAM).form("engine").headers(400, engine, b"x-request-id: r\r\n", streamed=False)
    assert sorted(head.split(b"\r\n")) == [
        b"",
        b"content-type: application/json",
        b"x-amzn-errortype: ModelError",
        b"x-amzn-requestid: r",
        b"x-request-id: r",
    ]
