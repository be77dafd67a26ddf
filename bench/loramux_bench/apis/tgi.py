"""The interface of Hugging Face's Text Generation Inference, and of LMI, which is much like it.

Sources: https://huggingface.github.io/text-generation-inference/ (`/generate_stream`), huggingface_hub's types
`TextGeneration*`, and https://docs.djl.ai/docs/serving/serving/docs/lmi/user_guides/lmi_input_output_schema.html.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from loramux_bench.apis.http import HttpClient
from loramux_bench.apis.port import Ask, Trace
from loramux_bench.apis.refusal import UNREADABLE, note_broken
from loramux_bench.bearer import bearer


class TgiApi:
    """Raises `ScenarioError` for a URL or key that is none. `Ask.ignore_eos` is not asked for: TGI has no such
    parameter."""

    def __init__(self, url: str, key: str) -> None:
        self._client = HttpClient(url)
        self._headers = bearer(key)

    def open(self) -> None:
        self._client.open()

    def ask(self, ask: Ask, trace: Trace) -> None:
        parameters = generation_parameters(ask)
        if ask.model:
            parameters["adapter_id"] = ask.model
        self._client.stream(
            "/generate_stream",
            msgspec.json.encode(inputs_body(ask, parameters)),
            headers=bearer(ask.key) or self._headers,
            timeout_s=ask.timeout_s,
            trace=trace,
            reader=FrameReader(trace),
        )

    def close(self) -> None:
        self._client.close()


def generation_parameters(ask: Ask) -> dict[str, Any]:
    """A temperature of 0 is said by `do_sample`: TGI refuses the number."""
    parameters: dict[str, Any] = {"max_new_tokens": ask.max_tokens, "details": True}
    if ask.temperature:
        parameters |= {"do_sample": True, "temperature": ask.temperature}
    elif ask.temperature is not None:
        parameters["do_sample"] = False
    return parameters


def inputs_body(ask: Ask, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`Ask.extra` comes last; what it has under `parameters` joins the others."""
    further = ask.extra.get("parameters")
    joined = {**parameters, **further} if isinstance(further, Mapping) else dict(parameters)
    return {"inputs": ask.prompt} | dict(ask.extra) | {"parameters": joined}


class _Token(msgspec.Struct):
    text: str = ""
    special: bool = False
    special_token: bool = False
    """LMI's name for it."""


class _Details(msgspec.Struct):
    finish_reason: str | None = None
    generated_tokens: int | None = None
    input_length: int | None = None
    prefill: list[Any] | None = None


class _Frame(msgspec.Struct):
    """A frame of a stream, or an answer that is not streamed: then without a token."""

    token: _Token | None = None
    generated_text: str | None = None
    details: _Details | None = None
    error: Any = None
    outputs: list[str] | None = None
    """LMI's with a static batch: a token of each prompt, and no more."""


class FrameReader:
    """Makes a trace of the frames of one answer. A special token is a token without text."""

    _decode = msgspec.json.Decoder(_Frame | list[_Frame]).decode

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._frames = 0
        self._finished = False

    def event(self, data: bytes, at: float) -> None:
        try:
            found = self._decode(data)
        except UNREADABLE as error:
            start = data[:200].decode("utf-8", "replace")
            self._trace.fail("bad_answer", f"A frame can not be read ({error}): {start}")
            return
        for frame in found if isinstance(found, list) else (found,):
            self._frame(frame, data, at)

    def whole(self, body: bytes, at: float) -> None:
        self.event(body, at)

    def end(self) -> None:
        if not self._frames or (self._finished and not self._trace.chunks and not self._trace.finish_reason):
            self._trace.fail("bad_answer", "The answer holds no token and no finish reason.")
        elif not self._finished:
            self._trace.fail("broken_stream", "The stream ended before the frame with the whole text.")

    def _frame(self, frame: _Frame, data: bytes, at: float) -> None:
        if frame.error is not None:
            self._frames += 1
            note_broken(self._trace, data)
        elif frame.details is not None and frame.details.finish_reason == "error":
            # So LMI says that it failed; the token of this frame is none.
            self._frames += 1
            self._finished = True
            self._trace.fail("broken_stream", "The endpoint failed while it generated: finish_reason is error.")
        elif frame.token is not None:
            special = frame.token.special or frame.token.special_token
            self._token("" if special else frame.token.text, at)
        elif frame.outputs:
            self._token("".join(frame.outputs), at)
            self._finished = True  # this form has no last frame
        elif frame.generated_text:
            self._token(frame.generated_text, at)
        if frame.generated_text is not None:
            self._frames += 1
            self._finished = True
        if frame.details is not None:
            self._details(frame.details)

    def _token(self, text: str, at: float) -> None:
        self._frames += 1
        self._trace.token(text, at)

    def _details(self, details: _Details) -> None:
        trace = self._trace
        if details.finish_reason:
            trace.finish_reason = details.finish_reason
        if details.generated_tokens is not None:
            trace.output_tokens = details.generated_tokens
        if details.input_length is not None:
            trace.prompt_tokens = details.input_length
        elif details.prefill:
            trace.prompt_tokens = len(details.prefill)
