"""What an endpoint says in place of an answer: its error's code and message, and whether it only is not ready yet."""

import re
from typing import NamedTuple

import msgspec

from loramux_bench.apis.port import Trace

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")

_NOT_READY_STATUSES = frozenset((424, 429, 503))
_NOT_READY_CODES = frozenset(("engine_unavailable", "ModelNotReadyException"))
"""loramux' (docs/errors.md) and AWS's. `queue_full`, `queue_timeout` and `rate_limited` are none of them: they say that
there is too much load, which is an error of the load."""

_NOT_READY_TEXT = re.compile(r"\bnot (?:yet )?ready\b|\b(?:currently|still) loading\b|\bloading model\b", re.IGNORECASE)
"""Of endpoints without such a code: Bedrock through others, Hugging Face's hosted models, llama.cpp."""


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not the JSON that was expected."""


class Refusal(NamedTuple):
    """`code` is the endpoint's own, and empty where it has none that is short text. `status` is that of a numeric
    code, as vLLM and LMI have it; 0 where there is none."""

    code: str
    message: str
    status: int = 0


def read_refusal(body: bytes) -> Refusal:
    """Of OpenAI's shape, loramux's, TGI's (`error` and `error_type`), LMI's and AWS's (`__type`); of any other body
    its text."""
    try:
        content = msgspec.json.decode(body)
    except UNREADABLE:
        return Refusal("", body[:500].decode("utf-8", "replace").strip())
    if not isinstance(content, dict):
        return Refusal("", str(content))
    error = content.get("error")
    if isinstance(error, dict):
        code = error.get("code")
        return Refusal(_code(code), _text(error.get("message")) or str(error), _status(code))
    message = _text(error) or _text(content.get("message")) or _text(content.get("Message"))
    code = content.get("code")
    named = _code(content.get("error_type")) or _code(code) or _aws_code(content.get("__type"))
    return Refusal(named, message or str(content), _status(code))


def says_not_ready(status: int, refusal: Refusal) -> bool:
    """Whether the same request can be expected to succeed after some waiting, the load being what it is."""
    if status not in _NOT_READY_STATUSES:
        return False
    if refusal.code:
        return refusal.code in _NOT_READY_CODES
    return _NOT_READY_TEXT.search(refusal.message) is not None


def note_refusal(trace: Trace, status: int, refusal: Refusal, retry_after: str | None = None) -> None:
    """Notes an answer of another status than 200. `retry_after` is the header's text; dates are passed over."""
    trace.status = status
    trace.retry_after_s = seconds_of(retry_after)
    if says_not_ready(status, refusal):
        note_not_ready(trace, refusal.message)
    else:
        trace.fail(refusal.code or f"http_{status}", refusal.message)


def note_not_ready(trace: Trace, message: str) -> None:
    trace.not_ready = True
    trace.fail("not_ready", message)


def note_broken(trace: Trace, frame: bytes) -> None:
    """Notes an error that came within a stream."""
    refusal = read_refusal(frame)
    status = f"http_{refusal.status}" if refusal.status else ""
    trace.fail(refusal.code or status or "broken_stream", refusal.message)


def aws_code(text: str | None) -> str:
    """Of `x-amzn-errortype`, which may go on with a colon and an address; empty where there is none."""
    return _aws_code((text or "").split(":", 1)[0])


def seconds_of(retry_after: str | None) -> float | None:
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _aws_code(value: object) -> str:
    return _code(value.rpartition("#")[2]) if isinstance(value, str) else ""


def _code(value: object) -> str:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _status(value: object) -> int:
    return value if isinstance(value, int) and 400 <= value <= 599 else 0
