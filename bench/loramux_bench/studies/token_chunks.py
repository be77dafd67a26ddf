"""Chunks of a completions stream, as far as their timing goes."""

from typing import Any

import msgspec

from loramux_bench.errors import EndpointError

_DONE = b"[DONE]"


class _Chunk(msgspec.Struct):
    choices: list[Any] = msgspec.field(default_factory=list)
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


def carries_token(data: bytes) -> bool:
    """Whether the event is a token's: a chunk with a choice is, also where its text is empty, as of half a character.
    Raises `EndpointError` where it tells of a failure or is no chunk."""
    if data.strip() == _DONE:
        return False
    try:
        chunk = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EndpointError(f"A chunk of a stream can not be read: {error}.") from error
    if chunk.error is not None:
        raise EndpointError(f"A stream failed: {str(chunk.error)[:500]}")
    return bool(chunk.choices)
