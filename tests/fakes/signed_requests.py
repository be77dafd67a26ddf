"""Requests as AWS' SDKs sign them, by botocore's own code, and as they are on the wire."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from loramux_serving.relay.dialect import Asked

ACCESS_KEY_ID = "LMXAAAAAAAAAAAAAAAAA"
SECRET = "a/secret+of+forty+characters/as+AWS+has+"
NOW = "20260131T235900Z"


def signed(
    method: str = "POST",
    target: str = "/endpoints/shop/invocations",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"{}",
    *,
    access_key_id: str = ACCESS_KEY_ID,
    secret: str = SECRET,
    token: str | None = None,
    service: str = "sagemaker",
    region: str = "us-east-1",
    timestamp: str = NOW,
    signer: type[SigV4Auth] = SigV4Auth,
) -> Asked:
    """Whole, with `Authorization`, as it reaches a server."""
    request = AWSRequest(
        method, f"http://host{target}", data=body, headers={"Host": "gateway.example.org:8080", **(headers or {})}
    )
    request.context["timestamp"] = timestamp
    auth: Any = signer(Credentials(access_key_id, secret, token), service, region)
    auth._modify_request_before_signing(request)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(text, request))
    return asked(method, target, list(request.headers.items()))


def on_the_wire(prepared: Any) -> tuple[Asked, bytes]:
    """A client's request, which botocore has prepared, and its body."""
    url = urlsplit(prepared.url)
    target = url.path + (f"?{url.query}" if url.query else "")
    headers = list(prepared.headers.items())
    if not any(name.lower() == "host" for name, _ in headers):
        headers.append(("Host", url.netloc))
    body = prepared.body or b""
    return asked(prepared.method, target, headers), body.encode() if isinstance(body, str) else body


def asked(method: str, target: str, headers: list[tuple[str, Any]]) -> Asked:
    wire = [(name.lower().encode("ascii"), _value(value)) for name, value in headers]
    return Asked(method.encode("ascii"), target.encode("ascii"), wire, dict(reversed(wire)))


def changed(request: Asked, name: bytes, value: bytes | None) -> Asked:
    """With that value for the header in all its places, or without the header."""
    others = [(each, value if each == name else kept) for each, kept in request.headers]
    wire = [(each, kept) for each, kept in others if kept is not None]
    return Asked(request.method, request.target, wire, dict(reversed(wire)))


def added(request: Asked, name: bytes, value: bytes) -> Asked:
    """With one more header, the last."""
    wire = [*request.headers, (name, value)]
    return Asked(request.method, request.target, wire, dict(reversed(wire)))


def _value(value: Any) -> bytes:
    """http.client's coding."""
    return value if isinstance(value, bytes) else str(value).encode("latin-1")
