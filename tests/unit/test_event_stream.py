"""AWS' event-stream encoding, read by botocore's own decoder."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from botocore.eventstream import EventStreamBuffer
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import EventStreamJSONParser
from hypothesis import given
from hypothesis import strategies as st

from loramux_serving.relay.dialects.event_stream import (
    MAX_PART_BYTES,
    STREAM_BROKEN,
    internal_stream_failure,
    model_stream_error,
    payload_parts,
)

OPERATION = ServiceModel(Loader().load_service_model("sagemaker-runtime", "service-2")).operation_model(
    "InvokeEndpointWithResponseStream"
)
SHAPE: Any = OPERATION.get_event_stream_output()


def read(pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    """What boto3 would hand to its user. botocore checks lengths and checksums."""
    buffer = EventStreamBuffer()
    found = []
    for piece in pieces:
        buffer.add_data(piece)
        found += [message.to_response_dict() for message in buffer]
    return [EventStreamJSONParser().parse(each, SHAPE) | {"status": each["status_code"]} for each in found]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(0, 4000), max_size=10))
def test_botocore_reads_what_was_sent_however_it_is_cut(sent: list[bytes], places: list[int]) -> None:
    stream = b"".join(payload_parts(each) for each in sent)
    parts = read(cut(stream, places))
    assert [part["PayloadPart"]["Bytes"] for part in parts] == [each for each in sent if each]


@given(st.integers(0, 3 * MAX_PART_BYTES + 2))
def test_a_part_is_never_larger_than_the_limit(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    parts = [part["PayloadPart"]["Bytes"] for part in read([payload_parts(data)])]
    assert b"".join(parts) == data
    assert all(0 < len(part) <= MAX_PART_BYTES for part in parts)
    assert len(parts) == -(-size // MAX_PART_BYTES)


@given(st.text(max_size=200))
def test_exceptions_are_those_of_the_service(message: str) -> None:
    broken, failed = read([model_stream_error(message, STREAM_BROKEN) + internal_stream_failure(message)])
    assert broken["Error"] == {"Code": "ModelStreamError", "Message": message}
    assert failed["Error"] == {"Code": "InternalStreamFailure", "Message": message}
    assert broken["status"] == failed["status"] == 400


def test_the_code_of_a_broken_stream_is_in_its_body() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(model_stream_error("gone", STREAM_BROKEN))
    body = json.loads(next(iter(buffer)).payload)
    assert body == {"Message": "gone", "ErrorCode": "StreamBroken"}
    assert set(body) == set(SHAPE.members["ModelStreamError"].members)
