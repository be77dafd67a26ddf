"""What a worker and the control process say to each other. A `call` is a request's number in its worker; times are
durations in seconds, since two processes need not share a clock."""

from collections.abc import Mapping
from typing import Any

import msgspec

from loramux_adapters.errors import LoramuxError, classes
from loramux_serving.relay.dialect import ModelName
from loramux_serving.relay.record import Outcome, RequestRecord
from loramux_serving.relay.signed_request import Credentials


class _Message(msgspec.Struct, array_like=True, gc=False):
    """Fields travel by their order: both ends are always of one release."""


class Fault(_Message):
    """A `LoramuxError`."""

    code: str
    message: str
    details: dict[str, Any]
    retry_after_s: float | None


# From a worker.


class Check(_Message, tag=0):
    """`Gate.check`; answered with `Checked` or `Refused`."""

    call: int
    credentials: Credentials


class Enter(_Message, tag=1):
    """`Gate.enter`; answered with `Entered` or `Refused`."""

    call: int
    credentials: Credentials
    model: ModelName
    sticky: str | None
    request_id: str
    endpoint: str


class GiveUp(_Message, tag=2):
    """Whoever waits for the answer to `Check` or `Enter` waits no more; what was got is given back. No answer."""

    call: int


class Again(_Message, tag=3):
    """`Passage.again`; answered with `Entered` or `Refused`."""

    call: int
    fault: Fault


class Leave(_Message, tag=4):
    """`Passage.leave`, also where `Again` is under way, and how the request ended. No answer."""

    call: int
    status: int
    outcome: Outcome
    streamed: bool
    duration_s: float
    ttft_s: float | None
    prompt_tokens: int
    completion_tokens: int
    error_code: str | None


class Tell(_Message, tag=5):
    """`Gate.tell`. No answer."""

    record: RequestRecord


class Serving(_Message, tag=6):
    """The worker takes connections."""


class Draining(_Message, tag=7):
    """The worker was told to stop: it takes no more connections, and ends when its requests have."""


Asked = Check | Enter | GiveUp | Again | Leave | Tell | Serving | Draining

# From the control process.


class Checked(_Message, tag=0):
    call: int
    key_id: str | None


class Entered(_Message, tag=1):
    """A place at an engine: all that the worker needs for its request."""

    call: int
    key_id: str | None
    adapter: str
    engine_name: str
    version: int | None
    digest: str | None
    replica: str
    url: str
    queue_s: float | None


class Refused(_Message, tag=2):
    """With what was found out before."""

    call: int
    fault: Fault
    key_id: str | None
    adapter: str | None
    engine_name: str | None
    version: int | None
    digest: str | None
    replica: str | None
    queue_s: float | None


class EndRequest(_Message, tag=3):
    """The request must end now. It leaves as any other."""

    call: int


Said = Checked | Entered | Refused | EndRequest

_CLASSES: Mapping[str, type[LoramuxError]] = {kind.code: kind for kind in classes()}


def fault_of(error: LoramuxError) -> Fault:
    # What the system said, such as a path, may hold what UTF-8 can not.
    message = error.message.encode("utf-8", "replace").decode()
    return Fault(error.code, message, error.details, error.retry_after_s)


def error_of(fault: Fault) -> LoramuxError:
    """The error again, as the class that has its code."""
    kind = _CLASSES.get(fault.code, LoramuxError)
    return kind(fault.message, details=fault.details, retry_after_s=fault.retry_after_s)
