"""How a request's body is framed, and what is refused because two parsers could frame it differently (RFC 9112,
sections 3.2, 6.1 and 6.3; RFC 9110, section 8.6).

llhttp already refuses bare LF and CR, obs-fold, control characters, blanks before a colon, and lengths that are no
number or overflow. What is checked here holds with any version of it.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from loramux_serving.relay.refusal import head_too_large, malformed

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, values without the blanks around them, in the order in which they came."""

_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\w.~!$&'()*+,;=%:-]+\])(?::[0-9]*)?[ \t]*")
"""RFC 9110, section 7.2. Whether the name in it could exist is not looked at: nothing depends on it."""
_VERSIONS = ("1.1", "1.0")


class Framing(NamedTuple):
    """`length` is the value of Content-Length, None where there is none. Neither length nor chunked: no body. A tuple,
    since one is made for each request."""

    length: int | None
    chunked: bool


def check_head(method: bytes, version: str, headers: Headers, head_bytes: int, max_head_bytes: int) -> Framing:
    """The body's framing. Raises `Refusal`: 431 for a head over the limit, 400 for one that is ambiguous."""
    if head_bytes > max_head_bytes:
        raise head_too_large(max_head_bytes)
    if version not in _VERSIONS:
        raise malformed("Only HTTP/1.1 and HTTP/1.0 are served.")
    if method == b"CONNECT":
        raise malformed("CONNECT is not served.")
    hosts = 0
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not _is_host(value):
                raise malformed("The Host header must be a host, with a port or without.")
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise malformed("The request must have one Host header.")
    if codings:
        _check_codings(codings, version, bool(lengths))
    return Framing(_length(lengths), bool(codings))


@lru_cache(maxsize=64)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _check_codings(codings: list[bytes], version: str, has_length: bool) -> None:
    if has_length:
        raise malformed("Transfer-Encoding and Content-Length must not come together.")
    if version == "1.0":
        raise malformed("HTTP/1.0 has no Transfer-Encoding.")
    if len(codings) > 1 or codings[0].strip(b" \t").lower() != b"chunked":
        raise malformed("The only Transfer-Encoding that is served is `chunked`, once.")


def _length(lengths: list[bytes]) -> int | None:
    if not lengths:
        return None
    value = lengths[0].strip(b" \t")
    if len(lengths) > 1 or not _LENGTH.fullmatch(value):
        raise malformed("Content-Length must be one number.")
    return int(value)
