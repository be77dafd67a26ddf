"""`/invocations`: the door that SageMaker asks of an endpoint's own container. Bodies, answers and errors are LMI's.
Pure."""

import re
from urllib.parse import parse_qs

import msgspec

from loramux_adapters.errors import LoramuxError, ModelNotFound, RequestInvalid
from loramux_serving.http_errors import error_lines, status_of
from loramux_serving.relay.dialect import Asked, InferenceRequest, Words
from loramux_serving.relay.dialects.lmi_form import JSON, LmiError
from loramux_serving.relay.dialects.lmi_request import Body
from loramux_serving.relay.dialects.openai import bearer
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.headers import REQUEST_ID, as_json
from loramux_serving.relay.refusal import Refusal

PATH = "/invocations"

PAYLOAD_REFUSED = 424
"""LMI's status for a body that it can not read, and for an adapter that it does not have."""

_ADAPTER = b"x-amzn-sagemaker-adapter-identifier"
CUSTOM_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
_ADAPTER_ATTRIBUTE = re.compile(r"(?:^|[;,])\s*adapter=([^;,]*)")


class InvocationsDialect:
    """`relay.dialect.Dialect`."""

    id_headers: tuple[bytes, ...] = (REQUEST_ID,)

    def __init__(self, base_name: str) -> None:
        """`base_name`: the model of requests that name none."""
        self._base_name = base_name

    def engine_headers(self, headers: Headers) -> Headers:
        return as_json(headers)

    def signed(self, asked: Asked) -> bool:
        return False

    def credentials(self, asked: Asked, body: bytes) -> str | None:
        return bearer(asked)

    def decode(self, asked: Asked, body: bytes) -> InferenceRequest:
        """The adapter is the one that SageMaker's header names; else, as in LMI, the custom attributes, the query, or
        the body; else it is the body's `model`."""
        found = Body(body)
        named = _header(asked) or custom_adapter(asked) or _query(asked) or found.adapter
        if named is None:
            named = found.model
        return found.read(named or self._base_name)

    def error(self, error: LoramuxError | Refusal) -> Words:
        status, body = lmi_error(error)
        headers: list[tuple[bytes, bytes]] = [(b"content-type", JSON)]
        if isinstance(error, LoramuxError):
            headers += error_lines(error)
        return Words(status, headers, body)


def lmi_error(error: LoramuxError | Refusal) -> tuple[int, bytes]:
    """An error of the gateway's own as an LMI container would tell it: status and body."""
    if isinstance(error, Refusal):
        status = error.status
    elif isinstance(error, (RequestInvalid, ModelNotFound)):
        status = PAYLOAD_REFUSED
    else:
        status = status_of(error)
    return status, msgspec.json.encode(LmiError(error.message, status))


def custom_adapter(asked: Asked) -> str | None:
    """What SageMaker's custom attributes name as `adapter=…`: the way of LMI's before there were components."""
    value = asked.told.get(CUSTOM_ATTRIBUTES)
    if value is None:
        return None
    match = _ADAPTER_ATTRIBUTE.search(value.decode("latin-1"))
    return match.group(1).strip() or None if match else None


def _header(asked: Asked) -> str | None:
    value = asked.told.get(_ADAPTER)
    return value.decode("latin-1") or None if value is not None else None


def _query(asked: Asked) -> str | None:
    query = asked.target.partition(b"?")[2]
    if not query:
        return None
    try:
        found = parse_qs(query.decode("ascii"), max_num_fields=100)
    except ValueError as error:
        raise RequestInvalid("The query can not be read.") from error
    return found["adapter"][0] if "adapter" in found else None
