"""What the relay itself refuses: faults of framing and size, which are no `LoramuxError` because they concern HTTP and
nothing else."""

import msgspec

from loramux_serving.http_errors import openai_error


class Refusal(Exception):
    """A 4xx for a request that never came to the domain. The connection is closed after it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> bytes:
        """The refusal in OpenAI's shape."""
        return msgspec.json.encode(openai_error(self.status, self.message, self.code))


def malformed(message: str) -> Refusal:
    return Refusal(400, "malformed_request", message)


def head_too_large(limit_bytes: int) -> Refusal:
    return Refusal(431, "head_too_large", f"The request line and headers are larger than {limit_bytes} bytes.")


def body_too_large(limit_bytes: int) -> Refusal:
    return Refusal(413, "body_too_large", f"The request body is larger than {limit_bytes} bytes.")


def request_timeout(part: str, limit_s: float) -> Refusal:
    return Refusal(408, "request_timeout", f"The request's {part} did not arrive within {limit_s:g} s.")
