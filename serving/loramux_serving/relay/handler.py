"""The way of an inference request, from its head to its record."""

import asyncio
from time import perf_counter
from uuid import uuid4

import structlog

from loramux_adapters.errors import AdapterLost, EngineError, EngineFailed, EngineUnavailable, LoramuxError
from loramux_adapters.model import Target
from loramux_serving.http_errors import error_headers, openai_body
from loramux_serving.relay.answer import is_stream, pass_document, pass_stream
from loramux_serving.relay.exchange import Exchange
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.headers import REQUEST_ID, STICKY, caller_headers, engine_head, first, valid_request_id
from loramux_serving.relay.ports import (
    Admission,
    Admitted,
    Authenticator,
    Fleet,
    Leases,
    Names,
    Principal,
    Recorder,
    Replica,
    RequestRecord,
)
from loramux_serving.relay.refusal import Refusal
from loramux_serving.relay.renaming import Renaming
from loramux_serving.relay.request import InferenceRequest, decode, rewrite
from loramux_serving.relay.story import Story
from loramux_serving.relay.stream import FrameScanner
from loramux_serving.relay.upstream import Upstream
from loramux_serving.settings import RelaySettings

_log = structlog.get_logger(__name__)


class Relay:
    """Serves the requests that `protocol` takes out of ASGI. One event loop."""

    def __init__(
        self,
        settings: RelaySettings,
        authenticator: Authenticator,
        names: Names,
        admission: Admission,
        fleet: Fleet,
        leases: Leases,
        recorder: Recorder,
    ) -> None:
        self.settings = settings
        self._authenticator = authenticator
        self._names = names
        self._admission = admission
        self._fleet = fleet
        self._leases = leases
        self._recorder = recorder
        self._upstream = Upstream(settings)

    async def close(self) -> None:
        """Close idle connections to engines. To be called when no requests come any more."""
        await self._upstream.close()

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request and record it, whatever happens. Cancelled when its caller leaves."""
        request_id = valid_request_id(exchange.head.headers) or uuid4().hex
        story = Story(request_id, exchange.head.endpoint, perf_counter())
        structlog.contextvars.bind_contextvars(request_id=request_id)  # the task's own context: ends with it
        try:
            await self._serve(exchange, story)
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
            record = story.record(perf_counter())
            self._recorder.record(record)
            _tell(record)

    async def _serve(self, exchange: Exchange, story: Story) -> None:
        headers = exchange.head.headers
        principal = self._authenticator.authenticate(first(headers, b"authorization"))
        story.key_id = principal.key_id
        body = await exchange.body()
        story.started_at = perf_counter()
        request = decode(exchange.head.endpoint, body)
        sticky = first(headers, STICKY)
        target = self._names.resolve(request.model, sticky, principal.key_id)
        story.target = target
        story.streamed = request.stream
        self._authenticator.require_adapter(principal, target.adapter)
        slot = None if target.is_base else target.engine_name
        async with self._admission.admit(principal, target.adapter, slot, lambda: self._foresee(target)) as admitted:
            story.queue_s = admitted.waited_s
            try:
                await self._try_replicas(exchange, request, principal, sticky, story, admitted)
            finally:
                admitted.spend(story.tokens)

    async def _try_replicas(
        self,
        exchange: Exchange,
        request: InferenceRequest,
        principal: Principal,
        sticky: str | None,
        story: Story,
        admitted: Admitted,
    ) -> None:
        """Ask one replica after another, as long as the caller has got nothing."""
        tried: set[str] = set()
        failure: EngineError | None = None
        for _ in range(1 + self.settings.retries):
            target = story.target
            if target is None or tried or admitted.waited_s > 0:
                # The wait may have been long: what the name means now is what counts.
                target = self._names.resolve(request.model, sticky, principal.key_id)
                if story.target is None or target.adapter != story.target.adapter:
                    self._authenticator.require_adapter(principal, target.adapter)
            replica = self._fleet.pick(target, tried)
            story.target, story.replica = target, replica.id
            try:
                if not self._leases.staged(target, replica.id):
                    # A load may take long: who waits for one takes no place from requests that could run.
                    async with admitted.aside():
                        await self._leases.stage(target, replica.id)
                    story.queue_s = admitted.waited_s
                    story.target = target = self._names.resolve(request.model, sticky, principal.key_id)
                async with self._leases.lease(target, replica.id):
                    with self._fleet.request(target, replica.id):
                        await self._ask(replica, target, exchange, request, story)
            except (EngineUnavailable, EngineFailed, AdapterLost) as error:
                failure = error
                if isinstance(error, AdapterLost):
                    self._leases.lost(target, replica.id)
                tried.add(replica.id)
                replica.suspect()
                continue
            if story.outcome == "interrupted":
                replica.suspect()
            return
        assert failure is not None
        raise EngineUnavailable(
            f"No engine could answer: {failure.message}", retry_after_s=failure.retry_after_s or 1.0
        ) from failure

    def _foresee(self, target: Target) -> None:
        """The request waits: let its adapter be loaded meanwhile."""
        try:
            replica = self._fleet.pick(target)
        except EngineUnavailable:
            return
        if not self._leases.staged(target, replica.id):
            self._leases.foresee(target, replica.id)

    async def _ask(
        self, replica: Replica, target: Target, exchange: Exchange, request: InferenceRequest, story: Story
    ) -> None:
        """One try. Raises `EngineError` only while the caller has got nothing."""
        pool = self._upstream.pool(replica.url)
        body = rewrite(request, target.engine_name)
        head = engine_head(request.endpoint, pool.host, story.request_id, len(body), exchange.head.headers)
        async with pool.exchange(head, body) as reply:
            headers = caller_headers(reply.headers, _place_headers(story, target))
            renaming = Renaming(target.engine_name, request.model)
            if is_stream(reply):
                scanner = FrameScanner(renaming, drop_usage=request.injects_usage)
                await pass_stream(reply, exchange, headers, scanner, story)
            else:
                missing = None if target.is_base else target.engine_name.encode()
                await pass_document(reply, exchange, headers, renaming, story, missing=missing)


def _place_headers(story: Story, target: Target) -> list[tuple[bytes, bytes]]:
    """Who answered."""
    headers = [
        (REQUEST_ID, story.request_id.encode("ascii")),
        (b"x-loramux-adapter", target.adapter.encode()),
        (b"x-loramux-replica", (story.replica or "").encode()),
    ]
    if target.version is not None:
        headers.append((b"x-loramux-version", b"%d" % target.version))
    return headers


def _answer(exchange: Exchange, story: Story, headers: Headers, body: bytes) -> None:
    """An error of the gateway's own, if nothing was sent yet; else the exchange's task breaks the connection."""
    if not exchange.response_started:
        own = [(REQUEST_ID, story.request_id.encode("ascii")), (b"content-type", b"application/json")]
        exchange.answer(story.status, [*own, *headers], body)


def _tell(record: RequestRecord) -> None:
    """One line for each request; never what was asked or answered."""
    _log.info(
        "request",
        request_id=record.request_id,
        endpoint=record.endpoint,
        key=record.key_id,
        adapter=record.adapter,
        version=record.version,
        replica=record.replica,
        status=record.status,
        outcome=record.outcome,
        streamed=record.streamed,
        duration_s=round(record.duration_s, 6),
        queue_s=None if record.queue_s is None else round(record.queue_s, 6),
        ttft_s=None if record.ttft_s is None else round(record.ttft_s, 6),
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        error_code=record.error_code,
    )
