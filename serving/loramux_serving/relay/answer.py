"""The engine's answer on its way to the caller: a stream as it comes, a document whole."""

from loramux_adapters.errors import AdapterLost, EngineError, EngineFailed
from loramux_serving.relay.dialect import AnswerForm, Pieces, StreamForm
from loramux_serving.relay.engine_connection import EngineConnection, Stage
from loramux_serving.relay.exchange import Exchange
from loramux_serving.relay.story import Story
from loramux_serving.relay.token_usage import usage_of

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""A larger document is passed on as it comes, and the tokens that it used are not counted."""
MAX_READ_BYTES = 64 * 1024 * 1024
"""The largest document of a dialect that must read it whole."""

ENGINE_DEAD = b"EngineCore encountered an issue"
"""vLLM's `EngineDeadError`: the API server still answers, but its engine process has gone."""


async def pass_stream(
    reply: EngineConnection, exchange: Exchange, headers: bytes, form: StreamForm, story: Story
) -> None:
    """Pass a stream on as it comes. The head waits for the first bytes of the body: until then nothing was sent, and
    the request can be tried elsewhere; an engine that fails so early raises `EngineFailed` or `EngineTimeout`. One
    that fails later ends the stream with an error frame."""
    await reply.reach(Stage.BODY)
    if ENGINE_DEAD in reply.peek():
        raise EngineFailed("The engine has died.")

    def take(data: bytes) -> None:
        frames = form.feed(data)
        if story.ttft_s is None and form.tokens_seen:
            story.token_seen()
        exchange.write(frames)

    exchange.start(reply.status, headers)
    exchange.draw_from(reply)
    try:
        await reply.copy_to(take)
        exchange.write(form.finish())
        story.answered(reply.status)
    except EngineError as error:
        exchange.write(form.broken(error))
        story.interrupted(reply.status, error.code)
    finally:
        story.usage = form.usage
    if form.failed:
        story.interrupted(reply.status, EngineFailed.code)
    exchange.end()


async def pass_document(
    reply: EngineConnection,
    exchange: Exchange,
    headers: bytes,
    form: AnswerForm,
    story: Story,
    *,
    missing: bytes | None,
) -> None:
    """Pass a document on, whole and with its length, or in chunks where it is large. `missing` is a model name: a 404
    that says that it does not exist raises `AdapterLost`. An engine that fails while nothing was sent raises
    `EngineFailed`; one that fails later breaks the connection, so that the caller does not take the part for the
    whole."""
    document = _Document(reply, exchange, headers, form)
    try:
        await reply.copy_to(document.take)
    except EngineError as error:
        if not exchange.response_started:
            raise
        story.interrupted(reply.status, error.code)
        exchange.abort()
        return
    if document.begun:
        document.finish()
        story.answered(reply.status)
        exchange.end()
    else:
        pass_whole(reply.status, document.body, exchange, headers, form, story, missing=missing)


def pass_whole(
    status: int,
    body: bytes,
    exchange: Exchange,
    headers: bytes,
    form: AnswerForm,
    story: Story,
    *,
    missing: bytes | None,
) -> None:
    """Pass on a document that is there. Raises `EngineFailed` where it says that the engine has died, `AdapterLost`
    where it is a 404 that says that `missing`, a model name, does not exist."""
    if status < 400:
        story.usage = usage_of(body)
    elif status >= 500 and ENGINE_DEAD in body:
        raise EngineFailed("The engine has died.")
    elif status == 404 and missing is not None and missing in body and b"does not exist" in body:
        raise AdapterLost("The engine does not hold the adapter any more.")
    status, body = form.document(status, body)
    story.answered(status)
    exchange.pass_whole(status, headers, body)


class _Document:
    """What has come of an answer: held, until it is too large for that."""

    __slots__ = ("_exchange", "_form", "_headers", "_held", "_held_bytes", "_passing", "_reply")

    def __init__(self, reply: EngineConnection, exchange: Exchange, headers: bytes, form: AnswerForm) -> None:
        self._reply = reply
        self._exchange = exchange
        self._headers = headers
        self._form = form
        self._passing: Pieces | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0

    def take(self, data: bytes) -> None:
        if self._passing is not None:
            self._exchange.write(self._passing.feed(data))
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > MAX_DOCUMENT_BYTES:
            self._passing = self._form.pieces()
            if self._passing is None:
                if self._held_bytes > MAX_READ_BYTES:
                    raise EngineFailed(f"The engine's answer is larger than {MAX_READ_BYTES} bytes.")
                return
            self._exchange.start(self._reply.status, self._headers)
            self._exchange.draw_from(self._reply)
            self._exchange.write(self._passing.feed(b"".join(self._held)))
            self._held.clear()

    @property
    def begun(self) -> bool:
        """It is too large to be held, and is passed on as it comes."""
        return self._passing is not None

    @property
    def body(self) -> bytes:
        return b"".join(self._held)

    def finish(self) -> None:
        assert self._passing is not None, "it has begun"
        self._exchange.write(self._passing.finish())
