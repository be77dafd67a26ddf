"""SageMaker's runtime through boto3 itself, signed, on real sockets; and its container's door."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import boto3
import httpx
import msgspec
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from loramux_adapters.clock import SystemClock
from loramux_adapters.errors import AdapterBusy, EngineTimeout, LoramuxError, QueueFull, RateLimited, Unauthenticated
from loramux_adapters.model import Role
from loramux_serving.auth.sigv4 import UNRECOGNIZED
from loramux_serving.auth.verifier import Verifier
from loramux_serving.relay.dialect import Component
from loramux_serving.relay.dialects.event_stream import MAX_PART_BYTES
from loramux_serving.relay.dialects.sagemaker import MAX_BODY_BYTES
from loramux_serving.relay.ports import Principal
from loramux_serving.relay.signed_request import Credentials, SignedRequest
from tests.fakes.engine_server import WORDS, Behaviour, EngineServer, engine_server
from tests.fakes.raw_http import raw_caller
from tests.fakes.relay_services import BASE, SHOP, FakeAuthenticator, Gateway, gateway, until
from tests.fakes.signed_requests import ACCESS_KEY_ID, SECRET

_T = TypeVar("_T")

TEXT = "".join(WORDS)
BODY = {"inputs": "Hi", "parameters": {"max_new_tokens": 6, "details": True}}
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
_KEY = {"Authorization": "Bearer good"}


class Signers(FakeAuthenticator):
    """Knows one AWS key too."""

    def __init__(self) -> None:
        self._verifier = Verifier(SystemClock(), clock_skew_s=300.0)

    def authenticate(self, credentials: Credentials) -> Principal:
        if not isinstance(credentials, SignedRequest):
            return super().authenticate(credentials)
        if credentials.access_key_id != ACCESS_KEY_ID:
            message = "The security token included in the request is invalid."
            raise Unauthenticated(message, details={"aws_code": UNRECOGNIZED})
        self._verifier.verify(credentials, SECRET)
        return Principal("aws", "signer", Role.INFERENCE)


@dataclass
class Stage:
    engine: EngineServer
    gate: Gateway
    client: Any
    opened: list[Any] = field(default_factory=list)
    """Streams, to be closed at the end."""

    async def invoke(self, body: Any = BODY, **more: Any) -> dict[str, Any]:
        """`invoke_endpoint`, with the body read."""
        return await asyncio.to_thread(self._invoke, body, more)

    def _invoke(self, body: Any, more: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.invoke_endpoint(
            **{"EndpointName": "shop-endpoint", "Body": encoded(body), "ContentType": "application/json", **more}
        )
        answer["Body"] = answer["Body"].read()
        return answer

    async def stream(self, body: Any, **more: Any) -> dict[str, Any]:
        """`invoke_endpoint_with_response_stream`, with its events in `Body`."""

        def call() -> dict[str, Any]:
            answer: dict[str, Any] = self.client.invoke_endpoint_with_response_stream(
                **{"EndpointName": "shop-endpoint", "Body": encoded(body), **more}
            )
            answer["Body"] = list(answer["Body"])
            return answer

        return await asyncio.to_thread(call)

    async def begin(self, count: int = 2) -> tuple[bytes, Iterator[dict[str, Any]]]:
        """What `count` lines of a stream came in, and the events after that."""

        def call() -> tuple[bytes, Iterator[dict[str, Any]]]:
            answer = self.client.invoke_endpoint_with_response_stream(
                EndpointName="shop-endpoint", Body=encoded({**BODY, "stream": True})
            )
            self.opened.append(answer["Body"])
            events = iter(answer["Body"])
            first = payload([next(events)])
            while first.count(b"\n") < count:
                first += payload([next(events)])
            return first, events

        return await asyncio.to_thread(call)

    async def refused(self, call: Callable[..., Any] | None = None, body: Any = BODY, **more: Any) -> dict[str, Any]:
        """What `ClientError` holds."""
        with pytest.raises(ClientError) as caught:
            await (call or self.invoke)(body, **more)
        response: Any = caught.value.response
        assert response["ResponseMetadata"]["RequestId"]
        return dict(response)


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@cache  # reading its models takes long
def _session() -> boto3.session.Session:
    return boto3.session.Session()


def make_client(url: str, *, key: str = ACCESS_KEY_ID, secret: str = SECRET, **config: Any) -> Any:
    return _session().client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=10, **config),
    )


@asynccontextmanager
async def stage(**settings: Any) -> AsyncIterator[Stage]:
    async with engine_server() as engine, gateway(engine.url, authenticator=Signers(), **settings) as gate:
        gate.names.targets |= {
            Component("shop-endpoint", None): BASE,
            Component("shop-endpoint", "shop-component"): SHOP,
            Component("shop-endpoint", None, "shop"): SHOP,
        }
        made = Stage(engine, gate, make_client(gate.url))
        try:
            yield made
        finally:
            for stream in made.opened:
                stream.close()
            made.client.close()


def payload(events: list[dict[str, Any]]) -> bytes:
    return b"".join(event["PayloadPart"]["Bytes"] for event in events)


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


# Answers


async def test_invoke_endpoint() -> None:
    async with stage() as at:
        answer = await at.invoke(InferenceComponentName="shop-component")
        found = json.loads(answer["Body"])
    assert found["generated_text"] == TEXT
    assert found["details"]["generated_tokens"] == len(WORDS)
    assert found["details"]["finish_reason"] == "eos_token"
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert answer["ResponseMetadata"]["RequestId"] == headers["x-request-id"]
    assert headers["x-loramux-adapter"] == "shop"
    assert at.engine.requests[0].json["model"] == SHOP.engine_name
    assert at.engine.requests[0].json["max_tokens"] == 6
    record = at.gate.recorder.records[0]
    assert (record.endpoint, record.outcome, record.key_id) == ("/endpoints/{EndpointName}/invocations", "ok", "aws")
    assert (record.prompt_tokens, record.completion_tokens) == (7, 6)
    assert at.gate.idle()


async def test_the_endpoints_own_model() -> None:
    async with stage() as at:
        found = json.loads((await at.invoke({"inputs": "Hi"}))["Body"])
    assert found == {"generated_text": TEXT}
    assert at.engine.requests[0].json["model"] == "base"


@pytest.mark.parametrize("named", [{"adapters": ["shop"]}, {}])
async def test_an_adapter_in_lmis_own_ways(named: dict[str, Any]) -> None:
    async with stage() as at:
        attributes = {} if named else {"CustomAttributes": "c=1;adapter=shop"}
        await at.invoke({"inputs": "Hi", **named}, **attributes)
    assert at.engine.requests[0].json["model"] == SHOP.engine_name


async def test_openais_body() -> None:
    async with stage() as at:
        answer = await at.invoke({**CHAT, "model": "whatever"}, InferenceComponentName="shop-component")
    found = json.loads(answer["Body"])
    assert found["choices"][0]["message"]["content"] == TEXT
    assert found["model"] == "shop-component"
    assert at.engine.requests[0].path == "/v1/chat/completions"
    assert at.engine.requests[0].json["model"] == SHOP.engine_name


async def test_what_the_container_gets_of_the_headers() -> None:
    async with stage() as at:
        await at.invoke(
            CustomAttributes="c000b4f9-df62-4c85-a0bf-7c525f9104a4",
            TargetVariant="blue",
            InferenceId="one",
            PrefixAwareId="two",
            Accept="application/json",
            ContentType="application/x-www-form-urlencoded",
        )
    headers = dict(at.engine.requests[0].headers)
    assert headers["x-amzn-sagemaker-custom-attributes"] == "c000b4f9-df62-4c85-a0bf-7c525f9104a4"
    assert headers["content-type"] == "application/json"
    assert [name for name in headers if name.startswith(("x-amz-", "amz-", "accept", "authorization"))] == []
    assert [name for name in headers if name.startswith("x-amzn-")] == ["x-amzn-sagemaker-custom-attributes"]


async def test_the_variant_that_was_asked_for_answers() -> None:
    async with stage() as at:
        assert (await at.invoke(TargetVariant="blue"))["InvokedProductionVariant"] == "blue"


async def test_custom_attributes_come_back_where_the_container_says_them() -> None:
    async with stage() as at:
        said = json.dumps({"choices": [{"text": "a", "finish_reason": "stop"}]}).encode()
        at.engine.behaviour = Behaviour(body=said, headers=(("X-Amzn-SageMaker-Custom-Attributes", "trace=1"),))
        answer = await at.invoke({"inputs": "Hi"})
    assert answer["CustomAttributes"] == "trace=1"


async def test_a_stream_of_json_lines() -> None:
    async with stage() as at:
        answer = await at.stream({**BODY, "stream": True}, InferenceComponentName="shop-component")
        await until(lambda: bool(at.gate.recorder.records))
    found = lines(payload(answer["Body"]))
    assert answer["ContentType"] == "application/jsonlines"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["content-type"] == "application/vnd.amazon.eventstream"
    assert answer["ResponseMetadata"]["RequestId"] == headers["x-request-id"]
    assert "".join(line["token"]["text"] for line in found) == found[-1]["generated_text"] == TEXT
    assert found[-1]["details"]["generated_tokens"] == len(WORDS)
    record = at.gate.recorder.records[0]
    assert (record.prompt_tokens, record.completion_tokens, record.streamed) == (7, 6, True)
    assert record.ttft_s is not None


async def test_a_stream_of_openais() -> None:
    async with stage() as at:
        answer = await at.stream({**CHAT, "stream": True}, InferenceComponentName="shop-component")
    assert answer["ContentType"].startswith("text/event-stream")
    data = payload(answer["Body"])
    assert data.startswith(b"data: {")
    assert data.endswith(b"data: [DONE]\n\n")
    assert SHOP.engine_name.encode() not in data


async def test_a_document_comes_in_parts_too() -> None:
    async with stage() as at:
        answer = await at.stream(BODY)
    assert answer["ContentType"] == "application/json"
    assert json.loads(payload(answer["Body"]))["generated_text"] == TEXT


async def test_a_large_document_comes_in_parts_of_limited_size() -> None:
    async with stage() as at:
        text = "x" * 5_000_000  # more than is held
        said = {"model": "base", "choices": [{"message": {"content": text}}]}
        at.engine.behaviour = Behaviour(body=json.dumps(said).encode())
        answer = await at.stream(CHAT)
    sizes = [len(event["PayloadPart"]["Bytes"]) for event in answer["Body"]]
    assert max(sizes) <= MAX_PART_BYTES
    found = json.loads(payload(answer["Body"]))
    assert found["choices"][0]["message"]["content"] == text
    assert found["model"] == "shop-endpoint"


async def test_tokens_leave_as_they_come() -> None:
    async with stage() as at:
        at.engine.behaviour = Behaviour(stall_after_frames=2)
        first, events = await at.begin()
        assert [line["token"]["text"] for line in lines(first)] == list(WORDS[:2])
        at.engine.gate.set()
        rest = await asyncio.to_thread(lambda: list(events))
    assert lines(payload(rest))[-1]["generated_text"] == TEXT


# Who calls


async def test_a_bearer_key_is_taken_too() -> None:
    async with stage() as at, httpx.AsyncClient(base_url=at.gate.url) as caller:
        answer = await caller.post(
            "/endpoints/shop-endpoint/invocations", json={"inputs": "Hi"}, headers={"Authorization": "Bearer good"}
        )
    assert answer.json() == {"generated_text": TEXT}


@pytest.mark.parametrize(
    ("options", "code", "status"),
    [
        ({"secret": "wrong"}, "InvalidSignatureException", 403),
        ({"key": "LMXBBBBBBBBBBBBBBBBB"}, "UnrecognizedClientException", 403),
        ({"signature_version": UNSIGNED}, "MissingAuthenticationTokenException", 403),
    ],
)
async def test_callers_that_are_not_known(options: dict[str, Any], code: str, status: int) -> None:
    async with stage() as at:
        client = make_client(at.gate.url, **options)
        stranger = Stage(at.engine, at.gate, client)
        for call in (stranger.invoke, stranger.stream):
            for body in (BODY, b"no json"):  # who is not known learns nothing of what is wrong with the body
                response = await stranger.refused(call, body)
                assert response["Error"]["Code"] == code
                assert response["Error"]["Message"]
                assert response["ResponseMetadata"]["HTTPStatusCode"] == status
        client.close()
        assert at.engine.requests == []
        assert at.gate.idle()


async def test_a_body_that_was_changed_after_it_was_signed() -> None:
    async with stage() as at:

        def change(request: Any, **_: Any) -> None:
            request.body = request.body.replace(b"Hi", b"Ho")

        at.client.meta.events.register("before-send.sagemaker-runtime.InvokeEndpoint", change)
        response = await at.refused()
    assert response["Error"]["Code"] == "InvalidSignatureException"


async def test_a_key_that_is_not_for_the_adapter() -> None:
    async with stage() as at, httpx.AsyncClient(base_url=at.gate.url) as caller:
        answer = await caller.post(
            "/endpoints/shop-endpoint/invocations", json={"inputs": "Hi"}, headers={"Authorization": "Bearer narrow"}
        )
    assert answer.status_code == 403
    assert answer.headers["x-amzn-errortype"] == "AccessDeniedException"


# What goes wrong


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"EndpointName": "nowhere"}, "There is no model"),
        ({"InferenceComponentName": "nothing"}, "There is no model"),
        ({"TargetModel": "m.tar.gz"}, "does not support target model header"),
        ({"TargetContainerHostname": "c"}, "target container hostname"),
        ({"EnableExplanations": "x"}, "explanations"),
        ({"SessionId": "NEW_SESSION"}, "stateful sessions"),
    ],
)
async def test_what_is_not_there(more: dict[str, Any], fault: str) -> None:
    async with stage() as at:
        response = await at.refused(**more)
        assert response["Error"]["Code"] == "ValidationError"
        assert fault in response["Error"]["Message"]
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert at.engine.requests == []
        assert at.gate.idle()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/endpoints/-a/invocations", {}),
        ("/endpoints/a%20b/invocations", {}),
        ("/endpoints/" + "a-" * 5000 + "/invocations", {}),
        ("/endpoints/%00/invocations", {}),
        (f"/endpoints/{'a' * 64}/invocations", {}),
        ("/endpoints/a/invocations", {"X-Amzn-SageMaker-Inference-Component": "a b"}),
        ("/endpoints/a/invocations", {"X-Amzn-SageMaker-Inference-Component": "a" * 201}),
        ("/endpoints/a/invocations", {"X-Amzn-SageMaker-Target-Variant": "-"}),
        ("/endpoints/a/invocations", {"X-Amzn-SageMaker-Custom-Attributes": "x" * 1025}),
        ("/endpoints/a/invocations", {"X-Amzn-SageMaker-Custom-Attributes": "ä"}),
    ],
)
async def test_names_that_can_not_be(path: str, headers: dict[str, str]) -> None:
    async with stage() as at, httpx.AsyncClient(base_url=at.gate.url) as caller:
        raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        answer = await caller.post(path, content=b"{}", headers={b"Authorization": b"Bearer good", **raw})
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ValidationError")
    assert answer.json()["Message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b"\xff", {"inputs": 5}, {"inputs": "a", "parameters": {"watermark": True}}, b"[" * 9999],
)
async def test_bodies_that_the_container_refuses(body: Any) -> None:
    async with stage() as at:
        for call in (at.invoke, at.stream):
            response = await at.refused(call, body)
            assert response["Error"]["Code"] == "ModelError"
            assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
            assert response["OriginalStatusCode"] == 424
            assert json.loads(response["OriginalMessage"])["code"] == 424
            assert "Received client error (424) from primary with message" in response["Error"]["Message"]
            assert response["LogStreamArn"].startswith("arn:aws:logs:")
        assert at.engine.requests == []


async def test_both_a_component_and_an_adapter() -> None:
    async with stage() as at:
        response = await at.refused(body={**BODY, "adapters": "shop"}, InferenceComponentName="shop-component")
    assert "adapters" in json.loads(response["OriginalMessage"])["error"]


async def test_what_the_engine_refuses() -> None:
    async with stage() as at:
        said = {"error": {"message": f"{SHOP.engine_name} takes no such thing.", "type": "BadRequestError"}}
        at.engine.behaviour = Behaviour(status=422, body=json.dumps(said).encode())
        for call in (at.invoke, at.stream):
            for body in ({**BODY, "stream": True}, {**CHAT, "stream": True}):
                response = await at.refused(call, body, InferenceComponentName="shop-component")
                assert response["Error"]["Code"] == "ModelError"
                assert response["OriginalStatusCode"] == 422
                told = {"error": "shop-component takes no such thing.", "code": 422}
                assert json.loads(response["OriginalMessage"]) == told
                assert response["LogStreamArn"].endswith("/aws/sagemaker/InferenceComponents/shop-component")
                assert ":eu-west-1:" in response["LogStreamArn"]
                assert at.engine.requests.pop().json["model"] == SHOP.engine_name


async def test_an_engine_that_dies_before_it_answers() -> None:
    async with stage(retries=0) as at:
        at.engine.behaviour = Behaviour(die_before_head=True)
        for call in (at.invoke, at.stream):
            response = await at.refused(call)
            assert response["Error"]["Code"] == "ModelNotReadyException"
            assert response["ResponseMetadata"]["HTTPStatusCode"] == 429
        await until(at.gate.idle)


async def test_an_engine_that_dies_in_the_middle() -> None:
    async with stage() as at:
        at.engine.behaviour = Behaviour(stall_after_frames=2)
        first, events = await at.begin()
        at.engine.kill()
        with pytest.raises(EventStreamError) as caught:
            await asyncio.to_thread(lambda: list(events))
        error = caught.value.response["Error"]
        assert error["Code"] == "ModelStreamError"
        assert error["Message"]
        assert len(lines(first)) == 2
        await until(at.gate.idle)
        assert at.gate.recorder.records[0].outcome != "ok"


@pytest.mark.parametrize("path", ["/invocations", "/endpoints/shop-endpoint/invocations"])
async def test_an_engine_that_dies_in_the_middle_of_a_plain_stream(path: str) -> None:
    async with stage() as at, httpx.AsyncClient(base_url=at.gate.url, headers=_KEY) as caller:
        at.engine.behaviour = Behaviour(stall_after_frames=2)
        found = []
        async with caller.stream("POST", path, json={**BODY, "stream": True}) as answer:
            async for line in answer.aiter_lines():
                found.append(json.loads(line))
                if len(found) == 2:
                    at.engine.kill()
    assert [line["token"]["text"] for line in found] == [*WORDS[:2], ""]
    assert found[-1]["details"]["finish_reason"] == "error"


async def test_an_engine_that_says_in_the_stream_that_it_failed() -> None:
    async with stage() as at:
        at.engine.behaviour = Behaviour(stall_after_frames=2, error_frame_after=2)
        first, events = await at.begin()
        at.engine.gate.set()
        found = lines(first + payload(await asyncio.to_thread(lambda: list(events))))
        await until(at.gate.idle)
    assert [line["token"]["text"] for line in found] == [*WORDS[:2], ""]
    assert found[-1]["details"]["finish_reason"] == "error"
    assert at.gate.recorder.records[0].outcome != "ok"


async def test_a_caller_that_leaves_in_the_middle() -> None:
    async with stage() as at:
        at.engine.behaviour = Behaviour(stall_after_frames=2)

        def leave() -> None:
            answer = at.client.invoke_endpoint_with_response_stream(
                EndpointName="shop-endpoint", Body=encoded({**BODY, "stream": True})
            )
            next(iter(answer["Body"]))
            answer["Body"].close()

        await asyncio.to_thread(leave)
        await asyncio.wait_for(at.engine.disconnected.wait(), 5)
        await until(at.gate.idle)
        assert at.gate.recorder.records[0].outcome == "cancelled"


@pytest.mark.parametrize(
    ("error", "code", "status", "wait"),
    [
        (AdapterBusy("Being deleted."), "ModelNotReadyException", 429, None),
        (RateLimited("Too many.", retry_after_s=3), "ThrottlingException", 400, "3"),
        (QueueFull("Full."), "ServiceUnavailable", 503, "1"),
        (EngineTimeout("Too slow."), "ModelError", 424, None),
        (LoramuxError("A fault."), "InternalFailure", 500, None),
    ],
)
async def test_what_the_gate_refuses(error: LoramuxError, code: str, status: int, wait: str | None) -> None:
    async with stage(retries=0) as at:
        at.gate.admission.error = error
        for call in (at.invoke, at.stream):
            response = await at.refused(call)
            assert response["Error"]["Code"] == code
            assert response["ResponseMetadata"]["HTTPStatusCode"] == status
            assert response["ResponseMetadata"]["HTTPHeaders"].get("retry-after") == wait


async def test_no_engine_is_ready() -> None:
    async with stage(retries=0) as at:
        at.gate.fleet.replicas.clear()
        response = await at.refused()
    assert response["Error"] == {"Code": "ModelNotReadyException", "Message": "No engine is ready."}


async def test_a_body_that_is_too_large() -> None:
    async with stage(max_body_bytes=2 * MAX_BODY_BYTES) as at:
        response = await at.refused(body=b'{"inputs": "%b"}' % (b"x" * MAX_BODY_BYTES))
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert response["Error"]["Code"] == "413"
    assert response["Error"]["Message"] == f"HTTP content length exceeded {MAX_BODY_BYTES} bytes."


async def test_a_body_over_the_gateways_own_limit() -> None:
    async with stage(max_body_bytes=2000) as at:
        response = await at.refused(body=b"x" * 3000)
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert "2000 bytes" in response["Error"]["Message"]


# The container's door


async def test_invocations() -> None:
    async with stage() as at, httpx.AsyncClient(base_url=at.gate.url, headers=_KEY) as caller:
        headers = {"X-Amzn-SageMaker-Adapter-Identifier": "shop", "Content-Type": "text/plain"}
        answer = await caller.post("/invocations", content=encoded({"inputs": "Hi"}), headers=headers)
        assert answer.json() == {"generated_text": TEXT}
        assert at.engine.requests[0].json["model"] == SHOP.engine_name
        assert dict(at.engine.requests[0].headers)["content-type"] == "application/json"
        assert (await caller.post("/invocations?adapter=shop", json=CHAT)).json()["model"] == "shop"
        assert (await caller.post("/invocations", json=CHAT)).json()["model"] == "base"


async def test_invocations_as_a_stream() -> None:
    async with stage() as at, httpx.AsyncClient(base_url=at.gate.url, headers=_KEY) as caller:
        answer = await caller.post("/invocations", json={**BODY, "stream": True})
        assert answer.headers["content-type"] == "application/jsonlines"
        assert answer.headers["transfer-encoding"] == "chunked"
        assert lines(answer.content)[-1]["generated_text"] == TEXT
        chat = await caller.post("/invocations", json={**CHAT, "stream": True})
        assert chat.headers["content-type"].startswith("text/event-stream")
        assert chat.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, BODY, 401),
        (_KEY, {"inputs": 5}, 424),
        (_KEY, {**BODY, "adapters": "nobody"}, 424),
        ({"Authorization": "Bearer narrow"}, BODY, 403),
    ],
)
async def test_invocations_that_are_refused(headers: dict[str, str], body: Any, status: int) -> None:
    async with stage() as at, httpx.AsyncClient(base_url=at.gate.url) as caller:
        answer = await caller.post("/invocations", json=body, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "code"}
    assert answer.json()["code"] == status


async def test_who_leaves_the_containers_door_is_noticed() -> None:
    async with stage() as at:
        at.engine.behaviour = Behaviour(stall_after_frames=1)
        body = encoded({**BODY, "stream": True})
        async with raw_caller(at.gate.port) as caller:
            caller.send(
                b"POST /invocations HTTP/1.1\r\nhost: h\r\nauthorization: Bearer good\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            assert (await caller.head())[0] == 200
            assert msgspec.json.decode(await caller.chunk())["token"]["text"] == WORDS[0]
        await asyncio.wait_for(at.engine.disconnected.wait(), 5)
        await until(at.gate.idle)
