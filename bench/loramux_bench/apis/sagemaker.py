"""Amazon SageMaker's runtime, through its own client.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpointWithResponseStream.html.
What the containers send within it is TGI's or LMI's form, or OpenAI's, as JSON lines or as server-sent events; where
AWS cuts the parts means nothing.
"""

import time
from collections.abc import Iterator, Mapping
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
from loramux_bench.apis.openai import ChunkReader, openai_body
from loramux_bench.apis.port import Ask, Trace
from loramux_bench.apis.refusal import Refusal, note_not_ready, note_refusal, read_refusal
from loramux_bench.apis.sse import MAX_EVENT_BYTES, EventStream, EventTooLarge
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
    """`url` empty: AWS' own. `key` is `ACCESS_KEY_ID:SECRET`; any other: what botocore finds by itself.

    `Ask.model` is the inference component. Raises `ScenarioError` where options, region or credentials are missing.
    """

    def __init__(self, url: str, key: str, extra: Mapping[str, Any], timeout_s: float) -> None:
        try:
            self._options = SageMakerOptions.model_validate(extra)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise ScenarioError(f"A target with the api sagemaker needs other values under extra: {faults}.") from error
        session = _session()
        region = self._options.region or session.region_name or ("us-east-1" if url else "")
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
            retries={"total_max_attempts": 1}, connect_timeout=timeout_s, read_timeout=timeout_s, max_pool_connections=1
        )
        try:
            self._client: Any = session.client(
                "sagemaker-runtime",
                region_name=region,
                endpoint_url=url or None,
                aws_access_key_id=access_key_id if colon else None,
                aws_secret_access_key=secret if colon else None,
                config=config,
            )
        except (BotoCoreError, ValueError) as error:
            raise ScenarioError(f"The target can not be called as SageMaker: {error}.") from error
        self._trace: Trace | None = None
        self._client.meta.events.register(
            "before-send.sagemaker-runtime.InvokeEndpointWithResponseStream", self._before_send
        )

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
                self._exchange(ask.model, msgspec.json.encode(body), trace, reader)
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
            except (ParserError, EventTooLarge) as error:
                trace.fail("bad_answer", f"The answer is not an event stream: {error}")
            except (BotoCoreError, HTTPError, OSError) as error:
                trace.fail("broken_stream", str(error))

    def close(self) -> None:
        self._client.close()

    def _before_send(self, **_: Any) -> None:
        if self._trace is not None:
            self._trace.sent_at = time.perf_counter()

    def _exchange(self, component: str, body: bytes, trace: Trace, reader: Reader) -> None:
        named = {"InferenceComponentName": component} if component else {}
        response = self._client.invoke_endpoint_with_response_stream(
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
        self._events: EventStream | None = None
        self._line: bytes | None = None

    def feed(self, part: bytes) -> Iterator[bytes]:
        if self._events is None and self._line is None:
            part = part.lstrip()
            if not part:
                return
            if part[:1] in (b"{", b"["):
                self._line = b""
            else:
                self._events = EventStream()
        if self._events is not None:
            yield from (event.data for event in self._events.feed(part))
            return
        *lines, self._line = ((self._line or b"") + part).split(b"\n")
        if len(self._line) > MAX_EVENT_BYTES:
            raise EventTooLarge(f"a line of more than {MAX_EVENT_BYTES} bytes")
        yield from (line for line in lines if line.strip())

    def rest(self) -> Iterator[bytes]:
        """The last line may lack its end."""
        if self._line and self._line.strip():
            yield self._line


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
