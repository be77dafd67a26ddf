"""The words of SageMaker's runtime: `InvokeEndpoint` and `InvokeEndpointWithResponseStream`, as boto3 calls them. Pure.

Names of headers, their limits and the limit of bodies are those of botocore's model of `sagemaker-runtime`. What is in
a body is what an LMI container takes.
"""

import re
from typing import Literal, Protocol
from urllib.parse import unquote_to_bytes

import msgspec

from loramux_adapters.errors import LoramuxError, RequestInvalid
from loramux_serving.relay.dialect import Asked, Component, InferenceRequest, ModelName, Words
from loramux_serving.relay.dialects.invocations import CUSTOM_ATTRIBUTES, custom_adapter
from loramux_serving.relay.dialects.lmi_request import Body
from loramux_serving.relay.dialects.openai import bearer
from loramux_serving.relay.dialects.sagemaker_errors import MODEL_ERROR, aws_words
from loramux_serving.relay.dialects.sagemaker_form import Invocation, InvocationForm
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.headers import AUTHORIZATION, REQUEST_ID, as_json
from loramux_serving.relay.refusal import Refusal
from loramux_serving.relay.signed_request import Credentials, SignedRequest

Operation = Literal["invocations", "invocations-response-stream"]
OPERATIONS: tuple[Operation, ...] = ("invocations", "invocations-response-stream")
"""The last parts of the paths."""

MAX_BODY_BYTES = 6_291_456
DEFAULT_VARIANT = "AllTraffic"
_ANY_REGION = "us-east-1"

_AMAZON = b"x-amzn-sagemaker-"
_COMPONENT = _AMAZON + b"inference-component"
_VARIANT = _AMAZON + b"target-variant"
_SESSION = _AMAZON + b"session-id"
_REFUSED = {
    _AMAZON + b"target-model": "is not a multi-model endpoint and does not support target model header",
    _AMAZON + b"target-container-hostname": "does not support target container hostname header",
    _AMAZON + b"enable-explanations": "does not have an explainer and does not support enable explanations header",
    _SESSION: "does not support stateful sessions",
}
"""What would mean something, and does not here. Their ends are the service's own, but for sessions."""

_ENDPOINT_NAME = re.compile(r"(?=.{1,63}\Z)[a-zA-Z0-9](?:-*[a-zA-Z0-9])*")
_COMPONENT_NAME = re.compile(r"[!-~]{1,200}")
"""Wider than the service's: an adapter that was not made as a component may have a name that is none for one."""
_VARIANT_NAME = _ENDPOINT_NAME
_ATTRIBUTES = re.compile(rb"[ -~]{0,1024}")
_REGION = re.compile(rb"AWS4-HMAC-SHA256 .*?Credential=[^/,]+/\d+/([a-z0-9-]{1,64})/")

_NOT_FOR_ENGINE = re.compile(rb"accept|amz-sdk-|x-amz-|" + _AMAZON)
"""The beginnings of headers that say how SageMaker, and not the container, is to answer, or who calls."""


class SignatureReader(Protocol):
    """Of `auth.sigv4`."""

    def is_signed(self, asked: Asked) -> bool: ...

    def read(self, asked: Asked, body: bytes) -> SignedRequest:
        """Raises `Unauthenticated`."""
        ...


class SageMakerDialect:
    """`relay.dialect.Dialect`, for one operation."""

    id_headers: tuple[bytes, ...] = (REQUEST_ID, b"x-amzn-requestid")

    def __init__(self, operation: Operation, signatures: SignatureReader, *, account: str) -> None:
        self._event_stream = operation == "invocations-response-stream"
        self._signatures = signatures
        self._account = account

    def engine_headers(self, headers: Headers) -> Headers:
        """As the service does it: the container gets custom attributes verbatim, and nothing of how it was called."""
        return as_json(
            [header for header in headers if header[0] == CUSTOM_ATTRIBUTES or not _NOT_FOR_ENGINE.match(header[0])]
        )

    def signed(self, asked: Asked) -> bool:
        return self._signatures.is_signed(asked)

    def credentials(self, asked: Asked, body: bytes) -> Credentials:
        """A key as `Bearer` is taken too, for callers without an SDK."""
        return self._signatures.read(asked, body) if self._signatures.is_signed(asked) else bearer(asked)

    def decode(self, asked: Asked, body: bytes) -> InferenceRequest:
        if len(body) > MAX_BODY_BYTES:
            raise Refusal(413, "body_too_large", f"HTTP content length exceeded {MAX_BODY_BYTES} bytes.")
        endpoint = _endpoint(asked.target)
        for header, fault in _REFUSED.items():
            if header in asked.told:
                raise RequestInvalid(f"Endpoint {endpoint} {fault}.")
        component = _told(asked, _COMPONENT, _COMPONENT_NAME, "inferenceComponentName")
        variant = _told(asked, _VARIANT, _VARIANT_NAME, "targetVariant")
        if _ATTRIBUTES.fullmatch(asked.told.get(CUSTOM_ATTRIBUTES, b"")) is None:
            raise RequestInvalid("Custom attributes must be at most 1024 visible ASCII characters.")
        name = f"InferenceComponents/{component}" if component else f"Endpoints/{endpoint}"
        invocation = Invocation(
            variant=variant or DEFAULT_VARIANT,
            log_stream=_log_stream(_region(asked), self._account, name),
            event_stream=self._event_stream,
        )
        try:
            found = Body(body)
            model = _model(endpoint, component, custom_adapter(asked) or found.adapter)
            return InvocationRequest(found.read(model), invocation)
        except RequestInvalid as error:
            # SageMaker does not look into bodies: that is the container's fault to find.
            error.details["aws_code"] = MODEL_ERROR
            raise

    def error(self, error: LoramuxError | Refusal) -> Words:
        return aws_words(error, _log_stream(_ANY_REGION, self._account, "Endpoints"))


class InvocationRequest(msgspec.Struct, frozen=True):
    """`relay.dialect.InferenceRequest`."""

    asked: InferenceRequest
    invocation: Invocation

    @property
    def model(self) -> ModelName:
        return self.asked.model

    @property
    def stream(self) -> bool:
        return self.asked.stream

    @property
    def path(self) -> str:
        return self.asked.path

    def body(self, engine_name: str) -> bytes:
        return self.asked.body(engine_name)

    def form(self, engine_name: str) -> InvocationForm:
        return InvocationForm(self.asked.form(engine_name), self.invocation)


def _model(endpoint: str, component: str | None, adapter: str | None) -> ModelName:
    """A component is the model. Without one, an LMI container's request may name an adapter of the endpoint's."""
    if component is not None and adapter:
        raise RequestInvalid(
            "Both an inference component and `adapters` name a model: leave one of them out.",
            details={"param": "adapters"},
        )
    return Component(endpoint, component, adapter or None)


def _endpoint(target: bytes) -> str:
    """The name in `/endpoints/{name}/…`."""
    path = target.partition(b"?")[0]
    name = unquote_to_bytes(path.partition(b"/endpoints/")[2].partition(b"/")[0]).decode("utf-8", "replace")
    if _ENDPOINT_NAME.fullmatch(name) is None:
        raise _unfit(name, "endpointName", _ENDPOINT_NAME)
    return name


def _told(asked: Asked, header: bytes, pattern: re.Pattern[str], member: str) -> str | None:
    value = asked.told.get(header)
    if value is None:
        return None
    text = value.decode("latin-1")
    if pattern.fullmatch(text) is None:
        raise _unfit(text, member, pattern)
    return text


def _unfit(value: str, member: str, pattern: re.Pattern[str]) -> RequestInvalid:
    return RequestInvalid(
        f"1 validation error detected: Value '{value[:63]}' at '{member}' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {pattern.pattern}"
    )


def _region(asked: Asked) -> str:
    """The one that the caller signed for."""
    match = _REGION.match(asked.told.get(AUTHORIZATION, b""))
    return match.group(1).decode("ascii") if match else _ANY_REGION


def _log_stream(region: str, account: str, name: str) -> str:
    """In the form of an ARN, as callers may take it apart. There is no such log: loramux has its own."""
    return f"arn:aws:logs:{region}:{account}:log-group:/aws/sagemaker/{name}"
