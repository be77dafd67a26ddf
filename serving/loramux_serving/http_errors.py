"""The error tree at the HTTP boundary: the only file that knows which status an error has, and the two shapes of an
error body (OpenAI's for inference, loramux's own for the admin interface)."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from loramux_adapters import errors
from loramux_adapters.errors import LoramuxError

STATUSES: Mapping[type[LoramuxError], int] = MappingProxyType(
    {
        LoramuxError: 500,
        errors.RequestInvalid: 400,
        errors.Unauthenticated: 401,
        errors.Forbidden: 403,
        errors.AuthError: 403,
        errors.NotFound: 404,
        errors.Conflict: 409,
        errors.ArtifactError: 422,
        errors.SourceTooLarge: 413,
        errors.ArchiveTooLarge: 413,
        errors.SourceUnavailable: 502,
        errors.StorageError: 503,
        errors.StorageFull: 507,
        errors.StorageFailed: 503,
        errors.EngineError: 502,
        errors.EngineUnavailable: 503,
        errors.EngineTimeout: 504,
        errors.EngineRejected: 422,
        errors.AdapterLost: 502,
        errors.EngineFailed: 502,
        errors.EngineConfigInvalid: 500,
        errors.AdmissionError: 503,
        errors.RateLimited: 429,
        errors.QueueFull: 503,
        errors.QueueTimeout: 503,
        errors.OperationInterrupted: 503,
        errors.SettingsInvalid: 500,
    }
)
"""A class that is not named here has the status of its nearest base."""

_TYPES: Mapping[int, str] = MappingProxyType(
    {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
)


def status_of(error: LoramuxError) -> int:
    for kind in type(error).__mro__:
        if kind in STATUSES:
            return STATUSES[kind]
    return 500


def openai_type(status: int) -> str:
    """OpenAI's `type` of an error with this status."""
    return _TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")


def openai_error(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    return {"error": {"message": message, "type": openai_type(status), "param": param, "code": code}}


def openai_dict(error: LoramuxError) -> dict[str, Any]:
    """The error in OpenAI's shape; `param` is `details["param"]` where there is one."""
    param = error.details.get("param")
    return openai_error(status_of(error), error.message, error.code, None if param is None else str(param))


def openai_body(error: LoramuxError) -> bytes:
    """JSON of `openai_dict`."""
    return msgspec.json.encode(openai_dict(error))


def admin_body(error: LoramuxError) -> dict[str, Any]:
    """The error in the shape of the admin interface."""
    return {
        "error": {
            "code": error.code,
            "message": error.message,
            "retryable": error.retryable,
            "details": dict(error.details),
        }
    }


def retry_after(error: LoramuxError) -> str | None:
    """Value of `Retry-After`, whole seconds rounded up and at least 1; None where trying again is no use. A retryable
    429 or 503 always has one."""
    if error.retry_after_s is not None:
        return str(max(1, math.ceil(error.retry_after_s)))
    return "1" if error.retryable and status_of(error) in (429, 503) else None


def error_lines(error: LoramuxError) -> list[tuple[bytes, bytes]]:
    """`error_headers`, as the wire has them."""
    return [(name.encode(), value.encode()) for name, value in error_headers(error).items()]


def error_headers(error: LoramuxError) -> dict[str, str]:
    """Headers that belong to the error's answer: `Retry-After`, `WWW-Authenticate`."""
    headers: dict[str, str] = {}
    if (wait := retry_after(error)) is not None:
        headers["retry-after"] = wait
    if status_of(error) == 401:
        headers["www-authenticate"] = "Bearer"
    return headers
