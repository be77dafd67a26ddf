"""Amazon SageMaker's runtime, through its own client.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpointWithResponseStream.html.
What the containers send within it is TGI's or LMI's form, or OpenAI's, as JSON lines or as server-sent events; where
AWS cuts the parts means nothing.
"""

import time
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import boto3.session
import msgspec
from botocore.config import Config
from botocore.eventstream import ParserError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    EventStreamError,
    ParamValidationError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from pydantic import BaseModel, ConfigDict, ValidationError
from urllib3.exceptions import HTTPError

from loramux_bench.apis.deadline import deadline
from loramux_bench.apis.http import Reader
from loramux_bench.apis.lines import Lines, LineTooLarge
from loramux_bench.apis.openai import ChunkReader, openai_body
from loramux_bench.apis.port import Ask, Trace
from loramux_bench.apis.refusal import Refusal, note_not_ready, note_refusal, read_refusal
from loramux_bench.apis.sse import MAX_EVENT_BYTES, EventStream
from loramux_bench.apis.tgi import FrameReader, generation_parameters, inputs_body
from loramux_bench.errors import ScenarioError

_NO_COPY = "no capacity to process this request"
"""What SageMaker says for an inference component that has scaled to zero, as a `ValidationError`."""


class SageMakerOptions(BaseModel):
    """What a target's `extra` holds beside further fields of the body."""

    model_config = ConfigDict(frozen=True)

    EndpointName: str
    region: str = ""
    """Empty: that of the environment or of AWS' configuration, and us-east-1 where a URL is given."""
    form: Literal["inputs", "openai-chat"] = "inputs"
    """Of the body: `{"inputs", "parameters"}`, or OpenAI's for chat."""


class SageMakerApi:
    """`url` empty: AWS' own. A key is `ACCESS_KEY_ID:SECRET`; for any other, credentials are what botocore finds by
    itself. `Ask.model` is the inference component.

    Raises `ScenarioError` where options, region or credentials are missing.
    """

    def __init__(self, url: str, key: str, extra: Mapping[str, Any], timeout_s: float) -> None:
        try:
            self._options = SageMakerOptions.model_validate(extra)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise ScenarioError(f"A target with the api sagemaker needs other values under extra: {faults}.") from error
        self._url = url
        self._key = key
        self._timeout_s = timeout_s
        self._trace: Trace | None = None
        self._clients: dict[str, Any] = {}
        """By key: tenants may have their own."""
        self._client(key)

    def _client(self, key: str) -> Any:
        if ":" not in key:
            key = self._key
        if key in self._clients:
            return self._clients[key]
        session = _session()
        region = self._options.region or session.region_name or ("us-east-1" if self._url else "")
        if not region:
            raise ScenarioError("The target's AWS region is not known: set region under its extra, or AWS_REGION.")
        access_key_id, colon, secret = key.partition(":")
        if not colon and session.get_credentials() is None:
            raise ScenarioError(
                "There are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or key_env to a "
                "variable that holds ACCESS_KEY_ID:SECRET."
            )
        # Tries of botocore's own would hide what they took.
        config = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=self._timeout_s,
            read_timeout=self._timeout_s,
            max_pool_connections=1,
        )
        try:
            client: Any = session.client(
                "sagemaker-runtime",
                region_name=region,
                endpoint_url=self._url or None,
                aws_access_key_id=access_key_id if colon else None,
                aws_secret_access_key=secret if colon else None,
                config=config,
            )
        except (BotoCoreError, ValueError) as error:
            raise ScenarioError(f"The target can not be called as SageMaker: {error}.") from error
        client.meta.events.register("before-send.sagemaker-runtime.InvokeEndpointWithResponseStream", self._before_send)
        self._clients[key] = client
        return client

    def open(self) -> None:
        """Nothing: boto3 connects when it is called."""

    def ask(self, ask: Ask, trace: Trace) -> None:
        self._trace = trace
        trace.sent_at = time.perf_counter()
        reader: Reader
        if self._options.form == "inputs":
            parameters = generation_parameters(ask)
            if ask.ignore_eos:
                parameters["ignore_eos_token"] = True
            body = {"stream": True} | inputs_body(ask, parameters)
            reader = FrameReader(trace)
        else:
            body = openai_body(ask, chat=True)
            reader = ChunkReader(trace)
        body = {name: value for name, value in body.items() if name not in SageMakerOptions.model_fields}
        with deadline(trace, ask.timeout_s):
            try:
                self._exchange(ask, msgspec.json.encode(body), trace, reader)
            except EventStreamError as error:
                trace.fail(_code(error), _message(error))
            except ClientError as error:
                _note_client_error(trace, error)
            except (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError) as error:
                trace.fail("connect", str(error))
            except ReadTimeoutError as error:
                trace.fail("timeout", str(error))
            except ParamValidationError as error:
                trace.fail("bad_request", str(error))
            except (ParserError, LineTooLarge) as error:
                trace.fail("bad_answer", f"The answer is not an event stream: {error}")
            except (BotoCoreError, HTTPError, OSError) as error:
                trace.fail("broken_stream", str(error))

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _before_send(self, **_: Any) -> None:
        if self._trace is not None:
            self._trace.sent_at = time.perf_counter()

    def _exchange(self, ask: Ask, body: bytes, trace: Trace, reader: Reader) -> None:
        named = {"InferenceComponentName": ask.model} if ask.model else {}
        response = self._client(ask.key).invoke_endpoint_with_response_stream(
            EndpointName=self._options.EndpointName, ContentType="application/json", Body=body, **named
        )
        _note_metadata(trace, response["ResponseMetadata"])
        parts = _Parts()
        stream = response["Body"]
        try:
            for event in stream:
                at = time.perf_counter()
                for data in parts.feed(event.get("PayloadPart", {}).get("Bytes", b"")):
                    reader.event(data, at)
            for data in parts.rest():
                reader.event(data, time.perf_counter())
        finally:
            stream.close()
        reader.end()


@cache  # reading its models takes a second, too long to do it for each user of a load
def _session() -> boto3.session.Session:
    return boto3.session.Session()


class _Parts:
    """Puts together what the parts hold: JSON lines, or server-sent events, by the first byte."""

    def __init__(self) -> None:
        self._lines = Lines(MAX_EVENT_BYTES)
        self._events: EventStream | None = None
        self._begun = False

    def feed(self, part: bytes) -> list[bytes]:
        """Raises `LineTooLarge`."""
        if not self._begun:
            part = part.lstrip()
            self._begun = bool(part)
            if part and part[:1] not in b"{[":
                self._events = EventStream()
        if self._events is not None:
            return [event.data for event in self._events.feed(part)]
        return [line for line in self._lines.feed(part) if line.strip()]

    def rest(self) -> list[bytes]:
        """The last line may lack its end."""
        last = self._lines.rest()
        return [last] if last.strip() else []


def _note_metadata(trace: Trace, metadata: Mapping[str, Any]) -> None:
    headers = metadata.get("HTTPHeaders", {})
    trace.status = metadata.get("HTTPStatusCode", 0)
    trace.request_id = metadata.get("RequestId", "") or headers.get("x-request-id", "")
    trace.version = headers.get("x-loramux-version", "")
    trace.replica = headers.get("x-loramux-replica", "")


def _note_client_error(trace: Trace, error: Any) -> None:
    metadata = error.response.get("ResponseMetadata", {})
    _note_metadata(trace, metadata)
    refusal = Refusal(_code(error), _message(error))
    if refusal.code == "ValidationError" and _NO_COPY in refusal.message:
        note_not_ready(trace, refusal.message)
        return
    if refusal.code == "ModelError" and error.response.get("OriginalMessage"):
        # The container's own answer, which says more.
        own = read_refusal(str(error.response["OriginalMessage"]).encode())
        refusal = Refusal(own.code or refusal.code, own.message)
    note_refusal(trace, trace.status, refusal, metadata.get("HTTPHeaders", {}).get("retry-after"))


def _code(error: Any) -> str:
    code = str(error.response.get("Error", {}).get("Code", ""))
    return "" if code.isdigit() else code or "broken_stream"


def _message(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Message") or error)
