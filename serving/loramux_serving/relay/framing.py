"""How a request's body is framed, and what is refused because two parsers could frame it differently (RFC 9112,
sections 3.2, 6.1 and 6.3; RFC 9110, section 8.6).

llhttp already refuses bare LF and CR, obs-fold, control characters, blanks before a colon, and lengths that are no
number or overflow. What is checked here holds with any version of it.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from loramux_serving.relay.refusal import head_too_large, malformed

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, values without the blanks around them, in the order in which they came."""

_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\w.~!$&'()*+,;=%:-]+\])(?::[0-9]*)?[ \t]*")
"""RFC 9110, section 7.2. Whether the name in it could exist is not looked at: nothing depends on it."""
_VERSIONS = ("1.1", "1.0")
_CODING = "The only Transfer-Encoding that is served is `chunked`, once."


class Framing(msgspec.Struct, frozen=True, gc=False):
    """`length` is the value of Content-Length, None where there is none. Neither length nor chunked: no body.
    `expects_continue`: the caller sends the body when it is told to."""

    length: int | None = None
    chunked: bool = False
    expects_continue: bool = False


def check_head(method: bytes, version: str, headers: Headers, head_bytes: int, max_head_bytes: int) -> Framing:
    """The body's framing. Raises `Refusal`: 431 for a head over the limit, 400 for one that is ambiguous."""
    if head_bytes > max_head_bytes:
        raise head_too_large(max_head_bytes)
    if version not in _VERSIONS:
        raise malformed("Only HTTP/1.1 and HTTP/1.0 are served.")
    if method == b"CONNECT":
        raise malformed("CONNECT is not served.")
    values = dict(headers)
    if len(values) < len(headers):
        _check_once(headers)
    host, length = values.get(b"host"), values.get(b"content-length")
    if host is None:
        if version == "1.1":
            raise malformed("The request must have one Host header.")
    elif not _is_host(host):
        raise malformed("The Host header must be a host, with a port or without.")
    coding = values.get(b"transfer-encoding")
    if coding is not None:
        _check_coding(coding, version, length is not None)
    return Framing(
        length=None if length is None else _length(length),
        chunked=coding is not None,
        expects_continue=b"expect" in values and _expects_continue(headers),
    )


def _check_once(headers: Headers) -> None:
    """Of what two parsers could read two ways, there may be one."""
    names = [name for name, _ in headers]
    if names.count(b"host") > 1:
        raise malformed("The request must have one Host header.")
    if names.count(b"content-length") > 1:
        raise malformed("Content-Length must be one number.")
    if names.count(b"transfer-encoding") > 1:
        raise malformed(_CODING)


def _expects_continue(headers: Headers) -> bool:
    return any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers)


@lru_cache(maxsize=64)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _check_coding(coding: bytes, version: str, has_length: bool) -> None:
    if has_length:
        raise malformed("Transfer-Encoding and Content-Length must not come together.")
    if version == "1.0":
        raise malformed("HTTP/1.0 has no Transfer-Encoding.")
    if coding.strip(b" \t").lower() != b"chunked":
        raise malformed(_CODING)


@lru_cache(maxsize=4096)
def _length(value: bytes) -> int:
    value = value.strip(b" \t")
    if not _LENGTH.fullmatch(value):
        raise malformed("Content-Length must be one number.")
    return int(value)
