"""The way of an inference request, from its head to its record."""

import asyncio
import os
from functools import lru_cache
from time import perf_counter
from typing import Any

from loramux_adapters.errors import AdapterLost, EngineFailed, EngineUnavailable, LoramuxError, RequestInvalid
from loramux_adapters.model import Target
from loramux_serving.relay.answer import pass_document, pass_stream, pass_whole
from loramux_serving.relay.dialect import InferenceRequest, Words
from loramux_serving.relay.doors import Doors
from loramux_serving.relay.exchange import Exchange, RequestHead, sticky_of
from loramux_serving.relay.headers import REQUEST_ID, engine_head, engine_lines, valid_request_id
from loramux_serving.relay.known_heads import KnownHeads
from loramux_serving.relay.ports import Gate, Passage
from loramux_serving.relay.refusal import Refusal
from loramux_serving.relay.signed_request import Credentials
from loramux_serving.relay.story import Story
from loramux_serving.relay.token_usage import usage_of
from loramux_serving.relay.upstream import Upstream
from loramux_serving.relay.way import Way
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
        self.heads: KnownHeads[RequestHead] = KnownHeads()

    async def close(self) -> None:
        """Close idle connections to engines. To be called when no requests come any more."""
        await self._upstream.close()

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request and record it, whatever happens. Cancelled when its caller leaves."""
        await self.carry(Way(self, exchange, self._story(exchange.head), asyncio.get_running_loop(), set()))

    def begin(self, exchange: Exchange, body: bytes | None, loop: asyncio.AbstractEventLoop, tasks: set[Any]) -> None:
        """As `handle`, and run it; without a task, as long as only a short answer has to be waited for. `body` is the
        exchange's, None where it is not there yet. `tasks` holds what is to be cancelled where the server must end."""
        head = exchange.head
        story = self._story(head)
        credentials: Credentials = None
        request = passage = pool = reply = refusal = None
        if body is not None:
            dialect, known = head.route.dialect, head.known
            try:
                if known is None:
                    credentials, sticky = dialect.credentials(head, body), sticky_of(head)
                else:
                    credentials, sticky = known.credentials, known.sticky
                request = dialect.decode(head, body)
                story.streamed = request.stream
                passage = self._gate.enter_now(credentials, request.model, sticky, story, exchange.end_now)
                if passage is not None and passage.settled:
                    pool = self._upstream.pool(passage.url)
                    reply = pool.send_now(*_written(head, request, story, pool.host))
            except LoramuxError as error:
                # Of one that can not be read, its caller must be looked at before that is said.
                refusal = None if request is None else error
            except Refusal:
                pass  # the task meets it again
        unread = body if request is None else None
        way = Way(
            self, exchange, story, loop, tasks, unread, credentials, request, passage, refusal, reply, pool
        )  # all at once: one after the other takes longer
        if reply is None or reply.error is not None:
            way.go_on()
        else:
            tasks.add(way)
            reply.waiter = exchange.task = way

    def finish(self, way: Way) -> bool:
        """For the way."""
        reply, pool, passage, request, story = way.reply, way.pool, way.passage, way.request, way.story
        target = story.target
        assert reply is not None and pool is not None and passage is not None  # noqa: PT018
        assert request is not None and target is not None  # noqa: PT018
        document = reply.whole()
        if document is None:
            return reply.short
        status = reply.status
        if reply.is_stream or status >= 400:
            return False
        exchange = way.exchange
        whole = False
        try:
            form = request.form(target.engine_name)
            own = _own_lines(story.request_id, target.adapter, target.version, story.replica)
            headers = form.headers(status, reply.headers, own, streamed=False)
            story.usage = usage_of(document)
            status, document = form.document(status, document)
            story.answered(status)
            exchange.pass_whole(status, headers, document)
            whole = True
        except LoramuxError:
            return False
        except Exception:  # nobody is above this frame who could tell the caller
            exchange.fail()
        reply.waiter = exchange.task = None
        pool.give_back(reply, whole=whole)
        passage.leave()
        way.tasks.discard(way)
        return True

    async def carry(self, way: Way) -> None:
        """For the way."""
        exchange, story = way.exchange, way.story
        dialect = exchange.head.route.dialect
        try:
            request = way.request or await self._asked(way)
            passage = way.passage
            if passage is None:
                passage = way.passage = await self._entered(way, request)
            elif not passage.settled:
                await passage.settle()
            while True:  # one engine after another, as long as the caller has got nothing
                try:
                    await self._ask(way, passage, request)
                    break
                except (EngineUnavailable, EngineFailed, AdapterLost) as error:
                    await passage.again(error)
        except LoramuxError as error:
            story.failed(error)
            _answer(exchange, story, dialect.id_headers, dialect.error(error))
        except Refusal as refusal:
            story.refused(refusal.status, refusal.code)
            _answer(exchange, story, dialect.id_headers, dialect.error(refusal))
        except asyncio.CancelledError:
            story.cancelled()
            raise
        finally:
            if way.passage is None:
                self._gate.tell(story)
            else:
                way.passage.leave()

    def _story(self, head: RequestHead) -> Story:
        own_id = head.told.get(REQUEST_ID)
        request_id = None if own_id is None else valid_request_id(own_id)
        if request_id is None:
            if not self._new_ids:
                self._new_ids = _random_ids()
            request_id = self._new_ids.pop()
        return Story(request_id, head.route.label, perf_counter())

    async def _asked(self, way: Way) -> InferenceRequest:
        """Who is not known learns nothing of what is wrong with the body, nor is it waited for, unless it must be for a
        signature over it."""
        exchange, story = way.exchange, way.story
        head = exchange.head
        dialect = head.route.dialect
        body = way.body
        if body is None:
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
        credentials = way.credentials = dialect.credentials(head, body)
        try:
            request = dialect.decode(head, body)
        except RequestInvalid:
            await self._gate.check(credentials, story)
            raise
        story.streamed = request.stream
        return request

    async def _entered(self, way: Way, request: InferenceRequest) -> Passage:
        if way.refusal is not None:
            raise way.refusal
        exchange = way.exchange
        sticky = sticky_of(exchange.head)
        return await self._gate.enter(way.credentials, request.model, sticky, way.story, exchange.end_now)

    async def _ask(self, way: Way, passage: Passage, request: InferenceRequest) -> None:
        """One try. Raises `EngineError` only while the caller has got nothing."""
        exchange, story = way.exchange, way.story
        pool = self._upstream.pool(passage.url)
        sent, way.reply = way.reply, None
        reply = await pool.acquire(*_written(exchange.head, request, story, pool.host), sent)
        whole = False
        try:
            target = _target(story)
            form = request.form(target.engine_name)
            own = _own_lines(story.request_id, target.adapter, target.version, story.replica)
            headers = form.headers(reply.status, reply.headers, own, streamed=reply.is_stream)
            if reply.is_stream:
                await pass_stream(reply, exchange, headers, form.stream(), story)
            else:
                missing = None if target.version is None else target.engine_name.encode()
                document = reply.whole()
                if document is not None:
                    pass_whole(reply.status, document, exchange, headers, form, story, missing=missing)
                else:
                    await pass_document(reply, exchange, headers, form, story, missing=missing)
            whole = True
        finally:
            pool.give_back(reply, whole=whole)


def _target(story: Story) -> Target:
    target = story.target
    assert target is not None, "a passage notes its target"
    return target


def _written(head: RequestHead, request: InferenceRequest, story: Story, host: bytes) -> tuple[bytes, bytes]:
    """What the engine is sent: head and body. Raises `Refusal`."""
    target, known = story.target, head.known
    assert target is not None, "a passage notes its target"
    body = request.body(target.engine_name)
    lines = engine_lines(head.route.dialect.engine_headers(head.headers)) if known is None else known.engine_lines
    return engine_head(request.path, host, story.request_id, len(body), lines), body


def _random_ids() -> list[str]:
    """Of 16 bytes each. Many at a time, as each draw is a system call."""
    drawn = os.urandom(16 * _IDS).hex()
    return [drawn[start : start + 32] for start in range(0, 32 * _IDS, 32)]


def _own_lines(request_id: str, adapter: str, version: int | None, replica: str | None) -> bytes:
    """The gateway's own lines of an answer's head."""
    return b"x-request-id: %b\r\n%b" % (request_id.encode("ascii"), _place(adapter, version, replica))


@lru_cache(_KEPT_NAMES)
def _place(adapter: str, version: int | None, replica: str | None) -> bytes:
    """Lines that say who answered."""
    lines = b"x-loramux-adapter: %b\r\nx-loramux-replica: %b\r\n" % (adapter.encode(), (replica or "").encode())
    return lines if version is None else lines + b"x-loramux-version: %d\r\n" % version


def _answer(exchange: Exchange, story: Story, id_headers: tuple[bytes, ...], words: Words) -> None:
    """An error of the gateway's own, if nothing was sent yet; else the exchange's task breaks the connection."""
    story.status = words.status
    if not exchange.response_started:
        request_id = story.request_id.encode("ascii")
        exchange.answer(words.status, [*[(name, request_id) for name in id_headers], *words.headers], words.body)
