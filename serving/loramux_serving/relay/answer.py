"""The engine's answer on its way to the caller: a stream as it comes, a document whole."""

from loramux_adapters.errors import AdapterLost, EngineError, EngineFailed
from loramux_serving.http_errors import openai_body
from loramux_serving.relay.engine_connection import EngineConnection, Stage
from loramux_serving.relay.exchange import Exchange
from loramux_serving.relay.renaming import IncrementalRenaming, Renaming
from loramux_serving.relay.story import Story
from loramux_serving.relay.stream import FrameScanner
from loramux_serving.relay.token_usage import usage_of

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""A larger document is passed on as it comes, and the tokens that it used are not counted."""

ENGINE_DEAD = b"EngineCore encountered an issue"
"""vLLM's `EngineDeadError`: the API server still answers, but its engine process has gone."""


async def pass_stream(
    reply: EngineConnection, exchange: Exchange, headers: bytes, scanner: FrameScanner, story: Story
) -> None:
    """Pass a stream on as it comes. The head waits for the first bytes of the body: until then nothing was sent, and
    the request can be tried elsewhere; an engine that fails so early raises `EngineFailed` or `EngineTimeout`. One
    that fails later ends the stream with an error frame."""
    await reply.reach(Stage.BODY)
    if ENGINE_DEAD in reply.peek():
        raise EngineFailed("The engine has died.")

    def take(data: bytes) -> None:
        frames = scanner.feed(data)
        if story.ttft_s is None and scanner.tokens_seen:
            story.token_seen()
        exchange.write(frames)

    exchange.start(reply.status, headers)
    exchange.draw_from(reply)
    try:
        await reply.copy_to(take)
        exchange.write(scanner.finish())
        story.answered(reply.status)
    except EngineError as error:
        exchange.write(b"data: %b\n\n" % openai_body(error))
        story.interrupted(reply.status, error.code)
    finally:
        story.usage = scanner.usage
    if scanner.failed:
        story.interrupted(reply.status, EngineFailed.code)
    exchange.end()


async def pass_document(
    reply: EngineConnection,
    exchange: Exchange,
    headers: bytes,
    renaming: Renaming,
    story: Story,
    *,
    missing: bytes | None,
) -> None:
    """Pass a document on, whole and with its length, or in chunks where it is large. `missing` is a model name: a 404
    that says that it does not exist raises `AdapterLost`. An engine that fails while nothing was sent raises
    `EngineFailed`; one that fails later breaks the connection, so that the caller does not take the part for the
    whole."""
    document = _Document(reply, exchange, headers, renaming)
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
        pass_whole(reply.status, document.body, exchange, headers, renaming, story, missing=missing)


def pass_whole(
    status: int,
    body: bytes,
    exchange: Exchange,
    headers: bytes,
    renaming: Renaming,
    story: Story,
    *,
    missing: bytes | None,
) -> None:
    """Pass on a document that is there. Raises `EngineFailed` where it says that the engine has died, `AdapterLost`
    where it is a 404 that says that `missing`, a model name, does not exist."""
    if status < 400:
        body = renaming.apply(body)
        story.usage = usage_of(body)
    else:
        if status >= 500 and ENGINE_DEAD in body:
            raise EngineFailed("The engine has died.")
        if status == 404 and missing is not None and missing in body and b"does not exist" in body:
            raise AdapterLost("The engine does not hold the adapter any more.")
        body = renaming.apply_anywhere(body)
    story.answered(status)
    exchange.pass_whole(status, headers, body)


class _Document:
    """What has come of an answer: held, until it is too large for that."""

    __slots__ = ("_exchange", "_headers", "_held_bytes", "_incremental", "_pieces", "_renaming", "_reply")

    def __init__(self, reply: EngineConnection, exchange: Exchange, headers: bytes, renaming: Renaming) -> None:
        self._reply = reply
        self._exchange = exchange
        self._headers = headers
        self._renaming = renaming
        self._incremental: IncrementalRenaming | None = None
        self._pieces: list[bytes] = []
        self._held_bytes = 0

    def take(self, data: bytes) -> None:
        if self._incremental is not None:
            self._exchange.write(self._incremental.feed(data))
            return
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > MAX_DOCUMENT_BYTES:
            self._incremental = IncrementalRenaming(self._renaming)
            self._exchange.start(self._reply.status, self._headers)
            self._exchange.draw_from(self._reply)
            self._exchange.write(self._incremental.feed(b"".join(self._pieces)))
            self._pieces.clear()

    @property
    def begun(self) -> bool:
        """It is too large to be held, and is passed on as it comes."""
        return self._incremental is not None

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)

    def finish(self) -> None:
        assert self._incremental is not None, "it has begun"
        self._exchange.write(self._incremental.finish())
