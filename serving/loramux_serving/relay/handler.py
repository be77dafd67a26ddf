"""The way of an inference request, from its head to its record."""

import asyncio
import os
from functools import lru_cache
from time import perf_counter

from loramux_adapters.errors import AdapterLost, EngineFailed, EngineUnavailable, LoramuxError, RequestInvalid
from loramux_adapters.model import Target
from loramux_serving.http_errors import error_headers, openai_body
from loramux_serving.relay.answer import is_stream, pass_document, pass_stream
from loramux_serving.relay.exchange import Exchange
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.headers import REQUEST_ID, STICKY, caller_headers, engine_head, first, valid_request_id
from loramux_serving.relay.ports import Gate, Passage
from loramux_serving.relay.refusal import Refusal
from loramux_serving.relay.renaming import Renaming
from loramux_serving.relay.request import InferenceRequest, decode, rewrite
from loramux_serving.relay.story import Story
from loramux_serving.relay.stream import FrameScanner
from loramux_serving.relay.upstream import Upstream
from loramux_serving.settings import RelaySettings

_KEPT_NAMES = 4096


class Relay:
    """Serves the requests that `protocol` takes out of ASGI. One event loop."""

    def __init__(self, settings: RelaySettings, gate: Gate) -> None:
        self.settings = settings
        self._gate = gate
        self._upstream = Upstream(settings)
        self._renaming = lru_cache(_KEPT_NAMES)(Renaming)

    async def close(self) -> None:
        """Close idle connections to engines. To be called when no requests come any more."""
        await self._upstream.close()

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request and record it, whatever happens. Cancelled when its caller leaves."""
        request_id = valid_request_id(exchange.head.headers) or os.urandom(16).hex()
        story = Story(request_id, exchange.head.endpoint, perf_counter())
        passage: Passage | None = None
        try:
            request = await self._asked(exchange, story)
            headers = exchange.head.headers
            passage = await self._gate.enter(
                first(headers, b"authorization"), request.model, first(headers, STICKY), story, exchange.end_now
            )
            await self._ask_engines(passage, exchange, request, story)
        except LoramuxError as error:
            story.failed(error)
            headers = [(name.encode(), value.encode()) for name, value in error_headers(error).items()]
            _answer(exchange, story, headers, openai_body(error))
        except Refusal as refusal:
            story.refused(refusal.status, refusal.code)
            _answer(exchange, story, [], refusal.body())
        except asyncio.CancelledError:
            story.cancelled()
            raise
        finally:
            if passage is None:
                self._gate.tell(story)
            else:
                passage.leave()

    async def _asked(self, exchange: Exchange, story: Story) -> InferenceRequest:
        """Who is not known learns nothing of what is wrong with the body, nor is it waited for."""
        authorization = first(exchange.head.headers, b"authorization")
        if not exchange.body_complete:
            await self._gate.check(authorization, story)
        try:
            body = await exchange.body()
            story.started_at = perf_counter()
            request = decode(exchange.head.endpoint, body)
        except (RequestInvalid, Refusal):
            await self._gate.check(authorization, story)
            raise
        story.streamed = request.stream
        return request

    async def _ask_engines(self, passage: Passage, exchange: Exchange, request: InferenceRequest, story: Story) -> None:
        """Ask one engine after another, as long as the caller has got nothing."""
        while True:
            try:
                await self._ask(passage, exchange, request, story)
            except (EngineUnavailable, EngineFailed, AdapterLost) as error:
                await passage.again(error)
            else:
                return

    async def _ask(self, passage: Passage, exchange: Exchange, request: InferenceRequest, story: Story) -> None:
        """One try. Raises `EngineError` only while the caller has got nothing."""
        target = story.target
        assert target is not None, "a passage notes its target"
        pool = self._upstream.pool(passage.url)
        body = rewrite(request, target.engine_name)
        head = engine_head(request.endpoint, pool.host, story.request_id, len(body), exchange.head.headers)
        async with pool.exchange(head, body) as reply:
            own = b"x-request-id: %b\r\n%b" % (story.request_id.encode("ascii"), _place(target, story.replica or ""))
            headers = caller_headers(reply.headers, own)
            renaming = self._renaming(target.engine_name, request.model)
            if is_stream(reply):
                scanner = FrameScanner(renaming, drop_usage=request.injects_usage)
                await pass_stream(reply, exchange, headers, scanner, story)
            else:
                missing = None if target.is_base else target.engine_name.encode()
                await pass_document(reply, exchange, headers, renaming, story, missing=missing)


@lru_cache(_KEPT_NAMES)
def _place(target: Target, replica: str) -> bytes:
    """Lines that say who answered."""
    told = b"x-loramux-adapter: %b\r\nx-loramux-replica: %b\r\n" % (target.adapter.encode(), replica.encode())
    return told if target.version is None else told + b"x-loramux-version: %d\r\n" % target.version


def _answer(exchange: Exchange, story: Story, headers: Headers, body: bytes) -> None:
    """An error of the gateway's own, if nothing was sent yet; else the exchange's task breaks the connection."""
    if not exchange.response_started:
        own = [(REQUEST_ID, story.request_id.encode("ascii")), (b"content-type", b"application/json")]
        exchange.answer(story.status, [*own, *headers], body)
