"""Any provider that LiteLLM knows.

What LiteLLM does itself counts as the provider's: making the request, its connections, and that it ends a stream which
broke off without an error with a finish reason of its own. It takes some twenty times the CPU of
`loramux_bench.apis.openai`, which also sees more, where that can be used.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import httpx
import msgspec

from loramux_bench.apis.deadline import deadline
from loramux_bench.apis.port import Ask, Trace
from loramux_bench.apis.refusal import (
    Refusal,
    aws_code,
    note_broken,
    note_not_ready,
    note_refusal,
    read_refusal,
    says_not_ready,
)


class LiteLlmApi:
    """`url` and `key` empty: the provider's own, and what LiteLLM finds in the environment. `Ask.ignore_eos` is asked
    for where there is a `url`: a provider's own endpoint would refuse a parameter that it does not know."""

    def __init__(self, url: str, key: str) -> None:
        self._litellm = import_litellm()
        self._url = url
        self._key = key

    def open(self) -> None:
        """Nothing: LiteLLM connects when it is called."""

    def ask(self, ask: Ask, trace: Trace) -> None:
        arguments: dict[str, Any] = {
            "model": ask.model,
            "messages": [{"role": "user", "content": ask.prompt}],
            "max_tokens": ask.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "timeout": ask.timeout_s,
            # Tries of its own would hide what they took.
            "num_retries": 0,
        }
        if ask.temperature is not None:
            arguments["temperature"] = ask.temperature
        if self._url:
            arguments["api_base"] = self._url
        if key := ask.key or self._key:
            arguments["api_key"] = key
        if ask.ignore_eos and self._url:
            arguments["extra_body"] = {"ignore_eos": True}
        arguments |= ask.extra
        with deadline(trace, ask.timeout_s):
            trace.sent_at = time.perf_counter()
            try:
                self._exchange(arguments, trace)
            except (self._litellm.exceptions.openai.OpenAIError, httpx.HTTPError) as error:
                _note_error(trace, error)

    def close(self) -> None:
        """LiteLLM keeps its connections for all users together."""

    def _exchange(self, arguments: Mapping[str, Any], trace: Trace) -> None:
        stream = self._litellm.completion(**arguments)
        for chunk in stream:
            at = time.perf_counter()
            if text := "".join(_texts(chunk.choices)):
                trace.token(text, at)
            for choice in chunk.choices:
                trace.finish_reason = choice.finish_reason or trace.finish_reason
            _count(trace, getattr(chunk, "usage", None))
        trace.status = 200
        headers = getattr(stream, "_response_headers", None) or {}
        trace.request_id = headers.get("x-request-id") or headers.get("x-amzn-requestid") or ""
        trace.version = headers.get("x-loramux-version") or ""
        trace.replica = headers.get("x-loramux-replica") or ""
        # The finish reason proves nothing here: LiteLLM makes one up.
        if not trace.chunks and not trace.output_tokens:
            trace.fail("bad_answer", "The answer holds no token.")


@cache  # its settings are of the process
def import_litellm() -> Any:
    """The module, with its settings made. The first call takes seconds."""
    # Else it fetches a list of prices from the network when it is imported.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    logging.getLogger("LiteLLM").setLevel(logging.WARNING)  # else two lines a request
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    # Else a task for each chunk, for loggers that there are not.
    litellm.disable_streaming_logging = True
    # Else it gives a count of its own where the provider gives none, and nothing tells them apart.
    litellm.disable_token_counter = True
    return litellm


def _texts(choices: Any) -> Iterator[str]:
    """Of what carries tokens, as `loramux_bench.apis.openai` has it."""
    for choice in choices:
        delta = choice.delta
        for name in ("reasoning_content", "content", "refusal"):
            yield getattr(delta, name, None) or ""
        for call in getattr(delta, "tool_calls", None) or ():
            yield call.function.name or ""
            yield call.function.arguments or ""


def _count(trace: Trace, usage: Any) -> None:
    """A count of 0 is LiteLLM's word for none."""
    if usage is not None:
        trace.prompt_tokens = usage.prompt_tokens or trace.prompt_tokens
        trace.output_tokens = usage.completion_tokens or trace.output_tokens


def _note_error(trace: Trace, error: BaseException) -> None:
    """By what caused it: LiteLLM's own exceptions say 500 for what never reached the provider."""
    message = str(error)
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout):
            trace.fail("connect", message)
        elif isinstance(cause, httpx.TimeoutException):
            trace.fail("timeout", message)
        elif isinstance(cause, httpx.HTTPStatusError):
            _note_status(trace, cause.response, message)
        elif isinstance(cause, httpx.HTTPError):
            trace.fail("broken_stream", message)
        else:
            continue
        return
    # No trouble of HTTP: an error within the stream, or one that LiteLLM found before it called.
    body = next((body for cause in causes if isinstance(body := getattr(cause, "body", None), dict)), None)
    status = getattr(error, "status_code", None)
    if body is not None:
        note_broken(trace, msgspec.json.encode({"error": body}))
    elif trace.chunks:
        trace.fail("broken_stream", message)
    elif status and says_not_ready(status, Refusal("", message)):
        note_not_ready(trace, message)
    else:
        trace.fail(type(error).__name__, message)  # its status is LiteLLM's guess


def _note_status(trace: Trace, response: httpx.Response, message: str) -> None:
    try:
        refusal = read_refusal(response.content)
    except httpx.ResponseNotRead:
        refusal = Refusal("", message)
    code = refusal.code or aws_code(response.headers.get("x-amzn-errortype"))
    note_refusal(trace, response.status_code, refusal._replace(code=code), response.headers.get("retry-after"))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """From the last to the first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
