"""AWS' event-stream encoding (`application/vnd.amazon.eventstream`), as far as SageMaker's runtime sends it. Pure.

A message is a prelude (its length and that of its headers, as 4 bytes each, and their CRC32), the headers, the payload,
and a CRC32 of all before it. Source: https://smithy.io/2.0/aws/amazon-eventstream.html. The members of the stream are
those of `ResponseStream` in botocore's model of `sagemaker-runtime`.
"""

import struct
from zlib import crc32

import msgspec

CONTENT_TYPE = b"application/vnd.amazon.eventstream"
MAX_PART_BYTES = 64 * 1024
"""Of one `PayloadPart`: no client has to hold more than this until it gets something. AWS states no size; a message
may have 16 MiB."""
STREAM_BROKEN = "StreamBroken"
TIME_EXCEEDED = "ModelInvocationTimeExceeded"
"""The codes that a `ModelStreamError` may have."""

_STRING = 7
_PRELUDE_BYTES = 12
_CRC_BYTES = 4


def payload_parts(data: bytes) -> bytes:
    """`data` as `PayloadPart` events, of at most `MAX_PART_BYTES` each; nothing for nothing."""
    if len(data) <= MAX_PART_BYTES:
        return _message(_PART_HEADERS, data) if data else b""
    starts = range(0, len(data), MAX_PART_BYTES)
    return b"".join([_message(_PART_HEADERS, data[start : start + MAX_PART_BYTES]) for start in starts])


def model_stream_error(message: str, code: str) -> bytes:
    """The exception `ModelStreamError`, which ends a stream. `code` is one of AWS' two."""
    return _message(_MODEL_STREAM_ERROR, msgspec.json.encode({"Message": message, "ErrorCode": code}))


def internal_stream_failure(message: str) -> bytes:
    """The exception `InternalStreamFailure`, which ends a stream."""
    return _message(_INTERNAL_STREAM_FAILURE, msgspec.json.encode({"Message": message}))


def _headers(**values: str) -> bytes:
    """The headers of a message; each value is a string."""
    encoded = b""
    for name, value in values.items():
        key, text = f":{name.replace('_', '-')}".encode(), value.encode()
        encoded += struct.pack("!B", len(key)) + key + struct.pack("!BH", _STRING, len(text)) + text
    return encoded


_PART_HEADERS = _headers(event_type="PayloadPart", content_type="application/octet-stream", message_type="event")
_MODEL_STREAM_ERROR = _headers(
    exception_type="ModelStreamError", content_type="application/json", message_type="exception"
)
_INTERNAL_STREAM_FAILURE = _headers(
    exception_type="InternalStreamFailure", content_type="application/json", message_type="exception"
)


def _message(headers: bytes, payload: bytes) -> bytes:
    length = _PRELUDE_BYTES + len(headers) + len(payload) + _CRC_BYTES
    lengths = struct.pack("!II", length, len(headers))
    message = b"%b%b%b%b" % (lengths, struct.pack("!I", crc32(lengths)), headers, payload)
    return message + struct.pack("!I", crc32(message))
