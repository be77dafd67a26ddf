"""The way of an inference request, from its head to its record."""

import asyncio
import os
from functools import lru_cache
from time import perf_counter

from loramux_adapters.errors import AdapterLost, EngineFailed, EngineUnavailable, LoramuxError, RequestInvalid
from loramux_serving.relay.answer import pass_document, pass_stream, pass_whole
from loramux_serving.relay.dialect import Dialect, InferenceRequest, Words
from loramux_serving.relay.doors import Doors
from loramux_serving.relay.exchange import Exchange, RequestHead
from loramux_serving.relay.headers import REQUEST_ID, STICKY, engine_head, valid_request_id
from loramux_serving.relay.ports import Gate, Passage
from loramux_serving.relay.refusal import Refusal
from loramux_serving.relay.signed_request import Credentials
from loramux_serving.relay.story import Story
from loramux_serving.relay.upstream import Upstream
from loramux_serving.settings import RelaySettings

_KEPT_NAMES = 4096
_IDS = 256


class Relay:
    """Serves the requests that `protocol` takes out of ASGI. One event loop."""

    def __init__(self, settings: RelaySettings, gate: Gate, doors: Doors) -> None:
        self.settings = settings
        self.doors = doors
        self._gate = gate
        self._upstream = Upstream(settings)
        self._new_ids: list[str] = []

    async def close(self) -> None:
        """Close idle connections to engines. To be called when no requests come any more."""
        await self._upstream.close()

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request and record it, whatever happens. Cancelled when its caller leaves."""
        head = exchange.head
        told, dialect = head.told, head.route.dialect
        sticky = told[STICKY].decode("latin-1") if STICKY in told else None
        own_id = valid_request_id(told[REQUEST_ID]) if REQUEST_ID in told else None
        if own_id is None and not self._new_ids:
            self._new_ids = _random_ids()
        story = Story(own_id or self._new_ids.pop(), head.route.label, perf_counter())
        passage: Passage | None = None
        try:
            credentials, request = await self._asked(exchange, head, dialect, story)
            passage = await self._gate.enter(credentials, request.model, sticky, story, exchange.end_now)
            while True:  # one engine after another, as long as the caller has got nothing
                try:
                    await self._ask(passage, exchange, request, story)
                    break
                except (EngineUnavailable, EngineFailed, AdapterLost) as error:
                    await passage.again(error)
        except LoramuxError as error:
            story.failed(error)
            _answer(exchange, story, dialect.error(error))
        except Refusal as refusal:
            story.refused(refusal.status, refusal.code)
            _answer(exchange, story, dialect.error(refusal))
        except asyncio.CancelledError:
            story.cancelled()
            raise
        finally:
            if passage is None:
                self._gate.tell(story)
            else:
                passage.leave()

    async def _asked(
        self, exchange: Exchange, head: RequestHead, dialect: Dialect, story: Story
    ) -> tuple[Credentials, InferenceRequest]:
        """Who is not known learns nothing of what is wrong with the body, nor is it waited for, unless it must be for a
        signature over it."""
        if not exchange.body_complete:
            if not dialect.signed(head):
                await self._gate.check(dialect.credentials(head, b""), story)
            await exchange.arrival()
        try:
            body = exchange.take_body()
        except Refusal:
            if not dialect.signed(head):
                await self._gate.check(dialect.credentials(head, b""), story)
            raise
        story.started_at = perf_counter()
        credentials = dialect.credentials(head, body)
        try:
            request = dialect.decode(head, body)
        except RequestInvalid:
            await self._gate.check(credentials, story)
            raise
        story.streamed = request.stream
        return credentials, request

    async def _ask(self, passage: Passage, exchange: Exchange, request: InferenceRequest, story: Story) -> None:
        """One try. Raises `EngineError` only while the caller has got nothing."""
        target = story.target
        assert target is not None, "a passage notes its target"
        engine_name = target.engine_name
        pool = self._upstream.pool(passage.url)
        body = request.body(engine_name)
        head = engine_head(request.path, pool.host, story.request_id, len(body), exchange.head.headers)
        reply = await pool.acquire(head, body)
        whole = False
        try:
            place = _place(target.adapter, target.version, story.replica)
            own = b"x-request-id: %b\r\n%b" % (story.request_id.encode("ascii"), place)
            form = request.form(engine_name)
            streamed = reply.is_stream
            headers = form.headers(reply.headers, own, streamed=streamed)
            if streamed:
                await pass_stream(reply, exchange, headers, form.stream(), story)
            else:
                missing = None if target.version is None else engine_name.encode()
                document = reply.whole()
                if document is not None:
                    pass_whole(reply.status, document, exchange, headers, form, story, missing=missing)
                else:
                    await pass_document(reply, exchange, headers, form, story, missing=missing)
            whole = True
        finally:
            pool.give_back(reply, whole=whole)


def _random_ids() -> list[str]:
    """Of 16 bytes each. Many at a time, as each draw is a system call."""
    drawn = os.urandom(16 * _IDS).hex()
    return [drawn[start : start + 32] for start in range(0, 32 * _IDS, 32)]


@lru_cache(_KEPT_NAMES)
def _place(adapter: str, version: int | None, replica: str | None) -> bytes:
    """Lines that say who answered."""
    lines = b"x-loramux-adapter: %b\r\nx-loramux-replica: %b\r\n" % (adapter.encode(), (replica or "").encode())
    return lines if version is None else lines + b"x-loramux-version: %d\r\n" % version


def _answer(exchange: Exchange, story: Story, words: Words) -> None:
    """An error of the gateway's own, if nothing was sent yet; else the exchange's task breaks the connection."""
    story.status = words.status
    if not exchange.response_started:
        own = (REQUEST_ID, story.request_id.encode("ascii"))
        exchange.answer(words.status, [own, *words.headers], words.body)
