"""Which headers pass the relay, both ways. Pure."""

import re
from functools import lru_cache

from loramux_serving.relay.framing import Headers
from loramux_serving.relay.refusal import malformed

AUTHORIZATION = b"authorization"
CONTENT_LENGTH = b"content-length"
REQUEST_ID = b"x-request-id"
STICKY = b"x-loramux-sticky"

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110, section 7.6.1: they concern one connection."""

_NOT_FOR_ENGINE = HOP_BY_HOP | {
    b"accept-encoding",  # the relay reads what comes back
    AUTHORIZATION,  # the caller's secret, and the gateway's
    b"content-length",
    b"cookie",
    b"expect",
    b"host",
    REQUEST_ID,
}
_NOT_FOR_CALLER = HOP_BY_HOP | {
    b"content-length",
    REQUEST_ID,
    b"x-loramux-adapter",
    b"x-loramux-replica",
    b"x-loramux-version",
}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""But for CR and LF, which are counted."""


def first_of_each(headers: Headers) -> dict[bytes, bytes]:
    """By name, the first value."""
    return dict(reversed(headers))


def valid_request_id(value: bytes) -> str | None:
    """The caller's own request id, None where it may not be repeated."""
    return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else None


def engine_lines(headers: Headers) -> bytes:
    """The lines of a request's headers without those that concern only the caller's connection or are its secrets.
    Raises `Refusal` for a value with a control character."""
    kept = _kept(headers, _NOT_FOR_ENGINE)
    lines = b"".join(kept)
    if _CONTROL.search(lines) or lines.count(b"\n") != len(kept) or lines.count(b"\r") != len(kept):
        raise malformed("A header has a control character.")
    return lines


def engine_head(path: str, host: bytes, request_id: str, body_bytes: int, lines: bytes) -> bytes:
    """The head of the request to the engine: `engine_lines`, and framing and host set anew."""
    return b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n" % (
        path.encode("ascii"),
        host,
        body_bytes,
        request_id.encode("ascii"),
        lines,
    )


def caller_headers(engine: Headers, own: bytes) -> bytes:
    """The lines of the answer's head: the engine's without framing and connection, then the gateway's own."""
    return caller_lines(tuple(engine)) + own


@lru_cache(maxsize=256)
def caller_lines(engine: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The lines of the engine's headers without framing and connection. An engine sends the same ones for a second or
    longer."""
    return b"".join(_kept(engine, _NOT_FOR_CALLER))


def as_json(headers: Headers) -> Headers:
    """For a body that the gateway wrote: it is JSON, whatever the caller called its own."""
    return [(b"content-type", b"application/json"), *untyped(headers)]


def headers_as(content_type: bytes, engine: Headers, own: bytes) -> bytes:
    """As `caller_headers`, with another type of content than the engine's."""
    return caller_headers(untyped(engine), b"content-type: %b\r\n%b" % (content_type, own))


def untyped(headers: Headers) -> Headers:
    """Those that do not say which type of content comes."""
    return [header for header in headers if header[0] != b"content-type"]


def joined(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _kept(headers: Headers, dropped: frozenset[bytes]) -> list[bytes]:
    """The lines of those that are not `dropped`, nor named by `Connection`."""
    kept = []
    for header in headers:
        name = header[0]
        if name not in dropped:
            kept.append(b"%b: %b\r\n" % header)
        elif name == b"connection" and not (named := named_in(header[1])) <= dropped:
            return _kept(headers, dropped | named)
    return kept


def named_in(value: bytes) -> frozenset[bytes]:
    """The headers that a `Connection` header names: they concern one connection too."""
    return frozenset([token.strip().lower() for token in value.split(b",")])
