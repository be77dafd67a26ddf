"""Requests signed with AWS' Signature Version 4, read. Pure: no secret is needed, and none is checked here.

What is signed over is rebuilt with botocore's own code, from the request as it came. Refusals have the words that
SageMaker has for them, and its codes in `details["aws_code"]`.
"""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import Any, NamedTuple

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import ReadOnlyCredentials
from botocore.utils import normalize_url_path

from loramux_adapters.errors import Unauthenticated
from loramux_serving.relay.dialect import Asked
from loramux_serving.relay.signed_request import SignedRequest

SERVICE = "sagemaker"
"""What both of SageMaker's clients name in the scope: the control plane's and the runtime's."""
ALGORITHM = "AWS4-HMAC-SHA256"

INCOMPLETE = "IncompleteSignatureException"
INVALID = "InvalidSignatureException"
MISSING = "MissingAuthenticationTokenException"
UNRECOGNIZED = "UnrecognizedClientException"

TIMESTAMP = "%Y%m%dT%H%M%SZ"

_TERMINATOR = "aws4_request"
_INVOCATION_ID = "amz-sdk-invocation-id"
_MUST_BE_SIGNED = (b"x-amz-", b"x-amzn-sagemaker-")
_PROXIES_OWN = frozenset({b"x-amz-cf-id"})
"""Of the names that must be signed, what a proxy adds: CloudFront's."""
_TIMESTAMP = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_TARGET = re.compile(rb"/[!\"$-~]*")
"""Printable, and without a fragment, over which nobody signs."""
_FIELD_NAMES = ("Credential", "Signature", "SignedHeaders")
_ACCESS_KEY_ID = re.compile(r"\w{1,128}", re.ASCII)
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_NO_CREDENTIALS = ReadOnlyCredentials("", "", None)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


class _Scope(NamedTuple):
    access_key_id: str
    date: str
    region: str
    service: str
    terminator: str


def is_signed(asked: Asked) -> bool:
    """Whether the caller shows a signature: `read` tells whether it is one that is served."""
    authorization = asked.told.get(b"authorization")
    if authorization is not None:
        return authorization[:5] == b"AWS4-"
    return b"X-Amz-" in asked.target.partition(b"?")[2]  # a presigned address


def read(asked: Asked, body: bytes) -> SignedRequest:
    """What `verifier.Verifier` needs of a signed request. The body is compared with what was signed over here.

    Method, path, query, body and `host` are covered, and every header that the signature names: among them must be all
    that say what is wanted, `x-amz-*` and `x-amzn-sagemaker-*`. The path must be as the signature has it: without empty
    segments, `.` and `..`. Raises `Unauthenticated`."""
    authorization = _authorization(asked)
    fields = _fields(authorization)
    timestamp = _timestamp(asked)
    if len(fields) < len(_FIELD_NAMES) or timestamp is None:
        raise _incomplete(fields, timestamp)
    scope = _scope(fields["Credential"], timestamp)
    if _SIGNATURE.fullmatch(fields["Signature"]) is None:
        raise _refused(INCOMPLETE, "The Signature in the Authorization header must be 64 hexadecimal digits.")
    names = _names(fields["SignedHeaders"], asked)
    _check_target(asked.target)
    if b"x-amz-security-token" in asked.told:
        raise _refused(
            UNRECOGNIZED,
            "The security token included in the request is invalid: keys of loramux go without a session token. "
            "Unset AWS_SESSION_TOKEN.",
        )
    request = AWSRequest(
        method=asked.method.decode("ascii"),
        url="http://host" + asked.target.decode("ascii"),  # of which only path and query are looked at
        headers={"X-Amz-Content-SHA256": _checked_digest(asked, body)},
    )
    request.context["timestamp"] = timestamp
    signing = _Signing(_covered(asked, names), scope)
    return SignedRequest(
        access_key_id=scope.access_key_id,
        timestamp=timestamp,
        scope="/".join(scope[1:]),
        string_to_sign=signing.string_to_sign(request, signing.canonical_request(request)),
        signature=fields["Signature"],
        single_use=_INVOCATION_ID in names,
    )


def seconds(timestamp: str) -> float:
    """Unix seconds of a `YYYYMMDDTHHMMSSZ`. Raises `ValueError`."""
    if _TIMESTAMP.fullmatch(timestamp) is None:
        raise ValueError("that is no time")
    date, time = timestamp[:8], timestamp[9:]
    return datetime(
        int(date[:4]), int(date[4:6]), int(date[6:]), int(time[:2]), int(time[2:4]), int(time[4:6]), tzinfo=UTC
    ).timestamp()


class _Signing(SigV4Auth):
    """botocore's own, but for the headers: those that the caller says it signed, and not those that botocore would."""

    def __init__(self, covered: HTTPHeaders, scope: _Scope) -> None:
        super().__init__(_NO_CREDENTIALS, scope.service, scope.region)
        self._covered = covered

    def headers_to_sign(self, request: Any) -> HTTPHeaders:
        return self._covered


def _authorization(asked: Asked) -> str:
    found = [value for name, value in asked.headers if name == b"authorization"]
    if not found:
        if is_signed(asked):
            raise _refused(INCOMPLETE, "Presigned addresses are not served: sign with the Authorization header.")
        raise _refused(MISSING, "Missing Authentication Token")
    if len(found) > 1:
        raise _refused(INCOMPLETE, "There must be one Authorization header.")
    text = found[0].decode("latin-1").strip()
    if text.partition(" ")[0] != ALGORITHM:
        raise _refused(INCOMPLETE, f"Unsupported AWS 'algorithm': only {ALGORITHM} is served.")
    return text


def _fields(authorization: str) -> dict[str, str]:
    """Those that are there, each once."""
    found: dict[str, str] = {}
    for part in authorization[len(ALGORITHM) :].split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name not in _FIELD_NAMES or name in found:
            raise _refused(
                INCOMPLETE, "The Authorization header must have Credential, SignedHeaders and Signature once."
            )
        found[name] = value
    return found


def _timestamp(asked: Asked) -> str | None:
    """By `X-Amz-Date`, else by `Date`; None where there is neither."""
    value = asked.told.get(b"x-amz-date") or asked.told.get(b"date")
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    try:
        if _TIMESTAMP.fullmatch(text) is None:
            date = parsedate_to_datetime(text)
            # botocore writes -0000, which leaves open which clock it is: for a signature it is UTC.
            text = (date.astimezone(UTC) if date.tzinfo else date).strftime(TIMESTAMP)
        seconds(text)
    except (ValueError, OverflowError):
        raise _refused(
            INCOMPLETE, "Date must be in ISO-8601 'basic format', as in 20260131T235959Z, or one of HTTP."
        ) from None
    return text


def _incomplete(fields: dict[str, str], timestamp: str | None) -> Unauthenticated:
    said = [f"Authorization header requires '{name}' parameter." for name in _FIELD_NAMES if name not in fields]
    if timestamp is None:
        said.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    return _refused(INCOMPLETE, " ".join(said))


def _scope(credential: str, timestamp: str) -> _Scope:
    parts = credential.split("/")
    if len(parts) != 5 or _ACCESS_KEY_ID.fullmatch(parts[0]) is None:
        raise _refused(
            INCOMPLETE,
            "Credential must have exactly 5 slash-delimited elements: keyid/date/region/service/aws4_request.",
        )
    scope = _Scope(*parts)
    faults = []
    if _REGION.fullmatch(scope.region) is None:
        faults.append("Credential should be scoped to a valid region.")
    if scope.service != SERVICE:
        faults.append(f"Credential should be scoped to correct service: '{SERVICE}'.")
    if scope.terminator != _TERMINATOR:
        faults.append(f"Credential should be scoped with a valid terminator: '{_TERMINATOR}'.")
    if scope.date != timestamp[:8]:
        faults.append("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
    if faults:
        raise _refused(INVALID, " ".join(faults))
    return scope


def _names(signed_headers: str, asked: Asked) -> list[str]:
    """The signed headers' names, all of which are in the request."""
    names = signed_headers.split(";")
    if names != sorted(set(names)) or any(_HEADER_NAME.fullmatch(name) is None for name in names):
        raise _refused(INCOMPLETE, "SignedHeaders must be header names in lower case, sorted, each once.")
    if "host" not in names:
        raise _refused(INVALID, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    covered = {name.encode("ascii") for name in names}
    for name in asked.told:
        if name.startswith(_MUST_BE_SIGNED) and name not in covered and name not in _PROXIES_OWN:
            raise _refused(INVALID, f"{name.decode('latin-1')!r} must be a 'SignedHeader' in the AWS Authorization.")
    for signed in names:
        if signed.encode("ascii") not in asked.told:
            raise _refused(INVALID, f"The header {signed!r} is signed and did not arrive: is a proxy in between?")
    return names


def _check_target(target: bytes) -> None:
    if _TARGET.fullmatch(target) is None:
        raise _refused(INCOMPLETE, "The path and the query must be printable ASCII, and no address.")
    path = target.partition(b"?")[0].decode("ascii")
    if normalize_url_path(path) != path:
        raise _refused(INCOMPLETE, "The path must have no empty segments, and neither `.` nor `..`.")


def _checked_digest(asked: Asked, body: bytes) -> str:
    """The body's, which is also what the caller says that it is."""
    digest = sha256(body).hexdigest()
    said = asked.told.get(b"x-amz-content-sha256")
    if said is not None and said != digest.encode("ascii"):
        raise _refused(INVALID, "X-Amz-Content-Sha256 must be the body's SHA-256: the payload must be signed.")
    return digest


def _covered(asked: Asked, names: list[str]) -> HTTPHeaders:
    wanted = {name.encode("ascii"): name for name in names}
    covered = HTTPHeaders()
    for raw, value in asked.headers:
        name = wanted.get(raw)
        if name is not None:
            covered[name] = _text(value)
    return covered


def _text(value: bytes) -> str:
    """AWS' newer SDKs sign and send UTF-8; botocore signs text, and http.client sends that as Latin-1."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _refused(aws_code: str, message: str) -> Unauthenticated:
    return Unauthenticated(message, details={"aws_code": aws_code})
