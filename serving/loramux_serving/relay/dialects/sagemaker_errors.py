"""What SageMaker's runtime says when a request fails. Pure.

Codes, statuses and members are those of botocore's model of `sagemaker-runtime`, and of "Common Error Types" in the
API's reference; where both are silent, those that the service was seen to send.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from loramux_adapters import errors
from loramux_adapters.errors import LoramuxError
from loramux_serving.http_errors import retry_after
from loramux_serving.relay.dialect import Words
from loramux_serving.relay.dialects.invocations import lmi_error
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.refusal import Refusal

MODEL_ERROR = "ModelError"
VALIDATION = "ValidationError"
NOT_READY = "ModelNotReadyException"
UNAVAILABLE = "ServiceUnavailable"
THROTTLED = "ThrottlingException"
DENIED = "AccessDeniedException"
UNSIGNED = "MissingAuthenticationTokenException"
FAILURE = "InternalFailure"

MODEL_ERROR_STATUS = 424
MAX_MESSAGE_CHARS = 2048
"""`Message` of the service's model."""

_STATUSES: Mapping[str, int] = MappingProxyType(
    {
        MODEL_ERROR: MODEL_ERROR_STATUS,
        VALIDATION: 400,
        NOT_READY: 429,
        UNAVAILABLE: 503,
        THROTTLED: 400,
        FAILURE: 500,
        "IncompleteSignatureException": 400,
        "RequestExpired": 400,
    }
)
_DENIED_STATUS = 403
"""Of the other codes: all of them are about who calls."""

_CODES: Mapping[type[LoramuxError], str] = MappingProxyType(
    {
        LoramuxError: FAILURE,
        errors.RequestInvalid: VALIDATION,
        errors.Unauthenticated: UNSIGNED,
        errors.AuthError: DENIED,
        errors.NotFound: VALIDATION,
        errors.Conflict: NOT_READY,
        errors.ArtifactError: MODEL_ERROR,
        errors.SourceUnavailable: NOT_READY,
        errors.StorageError: UNAVAILABLE,
        errors.EngineError: MODEL_ERROR,
        errors.EngineUnavailable: NOT_READY,
        errors.EngineConfigInvalid: FAILURE,
        errors.AdmissionError: UNAVAILABLE,
        errors.RateLimited: THROTTLED,
        errors.OperationInterrupted: UNAVAILABLE,
    }
)
"""A class that is not named here has the code of its nearest base."""


class _Error(msgspec.Struct, frozen=True):
    message: str = msgspec.field(name="Message")


class _ModelError(msgspec.Struct, frozen=True):
    code: str = msgspec.field(name="ErrorCode")
    message: str = msgspec.field(name="Message")
    original_status: int = msgspec.field(name="OriginalStatusCode")
    original_message: str = msgspec.field(name="OriginalMessage")
    log_stream: str = msgspec.field(name="LogStreamArn")


def aws_words(error: LoramuxError | Refusal, log_stream: str) -> Words:
    """An error of the gateway's own. `details["aws_code"]` says the code where there is one. `log_stream` is what a
    `ModelError` has where it is not known which container failed."""
    if isinstance(error, Refusal):
        return _refused(error)
    code = str(error.details.get("aws_code") or _code(error))
    if code == MODEL_ERROR:
        status, said = lmi_error(error)
        body = model_error(status, said, log_stream=log_stream)
    else:
        body = msgspec.json.encode(_Error(error.message[:MAX_MESSAGE_CHARS]))
    headers = [(b"content-type", b"application/json"), (b"x-amzn-errortype", code.encode("ascii"))]
    if (wait := retry_after(error)) is not None:
        headers.append((b"retry-after", wait.encode("ascii")))
    return Words(_STATUSES.get(code, _DENIED_STATUS), headers, body)


def model_error(status: int, said: bytes, *, log_stream: str) -> bytes:
    """The body of a `ModelError`, from what a container answered; its log is where `log_stream` says."""
    original = said.decode("utf-8", "replace")[:MAX_MESSAGE_CHARS]
    who, code = ("client", "CLIENT_ERROR_FROM_MODEL") if status < 500 else ("server", "INTERNAL_FAILURE_FROM_MODEL")
    message = f'Received {who} error ({status}) from primary with message "{original}"'[: MAX_MESSAGE_CHARS - 80]
    return msgspec.json.encode(
        _ModelError(code, f"{message}. See the log of loramux for more information.", status, original, log_stream)
    )


def _code(error: LoramuxError) -> str:
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def _refused(refusal: Refusal) -> Words:
    """What is refused for its HTTP. SageMaker names no code then: boto3 shows the status in its place."""
    headers: Headers = [(b"content-type", b"application/json")]
    return Words(refusal.status, headers, msgspec.json.encode(_Error(refusal.message)))
