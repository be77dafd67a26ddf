"""What SageMaker's runtime puts around a container's answer: headers, `ModelError`, and the event stream. Pure."""

import re
from dataclasses import dataclass

from loramux_adapters.errors import EngineError, EngineTimeout, LoramuxError
from loramux_serving.relay.dialect import AnswerForm, Pieces, StreamForm
from loramux_serving.relay.dialects import event_stream
from loramux_serving.relay.dialects.sagemaker_errors import MODEL_ERROR, MODEL_ERROR_STATUS, model_error
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.token_usage import Usage

_CONTENT_TYPE = re.compile(rb"^content-type: ([^\r\n]*)\r\n", re.MULTILINE)
_AS_INNER = rb"x-amzn-sagemaker-content-type: \1\r\n"
_REQUEST_ID = re.compile(rb"^x-request-id: ([^\r\n]*)\r\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a request says of how it is invoked."""

    variant: str
    """The production variant that is said to have answered."""
    log_stream: str
    """Where a real container's log would be."""
    event_stream: bool
    """The answer comes as an event stream, whatever is in it."""


class InvocationForm:
    """`relay.dialect.AnswerForm`, around the container's."""

    __slots__ = ("_form", "_invocation")

    def __init__(self, form: AnswerForm, invocation: Invocation) -> None:
        self._form = form
        self._invocation = invocation

    def headers(self, status: int, engine: Headers, own: bytes, *, streamed: bool) -> bytes:
        lines = self._form.headers(status, engine, own, streamed=streamed)
        lines = _REQUEST_ID.sub(rb"\g<0>x-amzn-requestid: \1\r\n", lines, count=1)
        if status >= 400:
            return lines + b"x-amzn-errortype: %b\r\n" % MODEL_ERROR.encode()
        lines += b"x-amzn-invoked-production-variant: %b\r\n" % self._invocation.variant.encode("latin-1")
        if not self._invocation.event_stream:
            return lines
        return b"content-type: %b\r\n" % event_stream.CONTENT_TYPE + _CONTENT_TYPE.sub(_AS_INNER, lines, count=1)

    def stream(self) -> StreamForm:
        stream = self._form.stream()
        return EventStreamForm(stream) if self._invocation.event_stream else stream

    def document(self, status: int, body: bytes) -> tuple[int, bytes]:
        status, said = self._form.document(status, body)
        if status >= 400:
            return MODEL_ERROR_STATUS, model_error(status, said, log_stream=self._invocation.log_stream)
        return status, event_stream.payload_parts(said) if self._invocation.event_stream else said

    def pieces(self) -> Pieces | None:
        pieces = self._form.pieces()
        return EventStreamPieces(pieces) if pieces is not None and self._invocation.event_stream else pieces


class EventStreamForm:
    """`relay.dialect.StreamForm`: another one's bytes in parts of an event stream."""

    def __init__(self, form: StreamForm) -> None:
        self._form = form

    @property
    def tokens_seen(self) -> bool:
        return self._form.tokens_seen

    @property
    def failed(self) -> bool:
        return self._form.failed

    @property
    def usage(self) -> Usage | None:
        return self._form.usage

    def feed(self, data: bytes) -> bytes:
        return event_stream.payload_parts(self._form.feed(data))

    def finish(self) -> bytes:
        return event_stream.payload_parts(self._form.finish())

    def broken(self, error: LoramuxError) -> bytes:
        """The service's own exception, and nothing of the container's: that has gone."""
        if not isinstance(error, EngineError):
            return event_stream.internal_stream_failure(error.message)
        timed_out = isinstance(error, EngineTimeout)
        code = event_stream.TIME_EXCEEDED if timed_out else event_stream.STREAM_BROKEN
        return event_stream.model_stream_error(error.message, code)


class EventStreamPieces:
    """`relay.dialect.Pieces`, in parts of an event stream."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def feed(self, data: bytes) -> bytes:
        return event_stream.payload_parts(self._pieces.feed(data))

    def finish(self) -> bytes:
        return event_stream.payload_parts(self._pieces.finish())
