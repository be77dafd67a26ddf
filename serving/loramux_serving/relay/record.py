"""What is kept of an inference request that has ended."""

from typing import Literal

import msgspec

Outcome = Literal["ok", "client_error", "engine_error", "rejected", "cancelled", "interrupted"]
"""`rejected`: refused by auth, limits or the queue; `cancelled`: the caller left; `interrupted`: the engine broke off
after the answer had begun."""


class RequestRecord(msgspec.Struct, frozen=True, gc=False):
    """One finished inference request. `adapter` and `version` are None where it never came to a target. Times are
    seconds since the request's end reached the gateway; None where that point was not reached."""

    request_id: str
    endpoint: str
    key_id: str | None = msgspec.field(name="key")
    adapter: str | None
    version: int | None
    replica: str | None
    status: int
    outcome: Outcome
    streamed: bool
    duration_s: float
    queue_s: float | None = None
    ttft_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error_code: str | None = None
