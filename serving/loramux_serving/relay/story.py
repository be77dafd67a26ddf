"""What is noted of a request while it runs, and told once when it has ended."""

from time import perf_counter

import msgspec

from loramux_adapters.errors import AdmissionError, AuthError, EngineError, LoramuxError, StorageError
from loramux_adapters.model import Target
from loramux_serving.http_errors import status_of
from loramux_serving.relay.record import Outcome, RequestRecord
from loramux_serving.relay.token_usage import Usage

CLIENT_CLOSED = 499
"""Status in records and logs of a request whose caller left. Nobody gets it."""


class Story(msgspec.Struct):
    """`started_at` is on the clock of `time.perf_counter`, since a loop's own may tell milliseconds only. Until
    something else is noted, the request has failed within the gateway. `ended_at` is for who is told of its end."""

    request_id: str
    endpoint: str
    started_at: float
    key_id: str | None = None
    target: Target | None = None
    replica: str | None = None
    status: int = 500
    outcome: Outcome = "engine_error"
    streamed: bool = False
    queue_s: float | None = None
    ttft_s: float | None = None
    usage: Usage | None = None
    error_code: str | None = "internal_error"
    ended_at: float | None = None

    def token_seen(self) -> None:
        self.ttft_s = perf_counter() - self.started_at

    def answered(self, status: int) -> None:
        """The engine's answer was passed on whole."""
        self.status, self.error_code = status, None
        self.outcome = "ok" if status < 400 else "client_error" if status < 500 else "engine_error"

    def failed(self, error: LoramuxError) -> None:
        self.status, self.error_code = status_of(error), error.code
        if isinstance(error, AuthError | AdmissionError):
            self.outcome = "rejected"
        elif isinstance(error, EngineError | StorageError) or self.status >= 500:
            self.outcome = "engine_error"
        else:
            self.outcome = "client_error"

    def refused(self, status: int, code: str) -> None:
        self.status, self.error_code, self.outcome = status, code, "client_error"

    def cancelled(self) -> None:
        self.status, self.error_code, self.outcome = CLIENT_CLOSED, None, "cancelled"

    def interrupted(self, status: int, code: str) -> None:
        """The engine broke off after `status` had been sent."""
        self.status, self.error_code, self.outcome = status, code, "interrupted"

    def record(self) -> RequestRecord:
        """Of a story that has ended, else as of now. Times are whole microseconds."""
        ended_at = perf_counter() if self.ended_at is None else self.ended_at
        target, usage, queue_s, ttft_s = self.target, self.usage, self.queue_s, self.ttft_s
        return RequestRecord(
            request_id=self.request_id,
            endpoint=self.endpoint,
            key_id=self.key_id,
            adapter=target.adapter if target else None,
            version=target.version if target else None,
            replica=self.replica,
            status=self.status,
            outcome=self.outcome,
            streamed=self.streamed,
            duration_s=round(ended_at - self.started_at, 6),
            queue_s=round(queue_s, 6) if queue_s else queue_s,
            ttft_s=None if ttft_s is None else round(ttft_s, 6),
            prompt_tokens=usage.prompt if usage else 0,
            completion_tokens=usage.completion if usage else 0,
            error_code=self.error_code,
        )
