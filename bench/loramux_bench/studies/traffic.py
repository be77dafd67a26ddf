"""The load of a study: some clients of one endpoint, below asyncio. For tens of streams, not for thousands, as the load
processes of `loramux bench run` are.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence

import httpx

from loramux_bench.apis.lines import LineTooLarge
from loramux_bench.apis.openai import ChunkReader, openai_body
from loramux_bench.apis.port import Ask, Trace
from loramux_bench.apis.refusal import note_refusal, read_refusal
from loramux_bench.apis.sse import EventStream
from loramux_bench.bearer import bearer
from loramux_bench.errors import NothingMeasured
from loramux_bench.record import RequestRecord

_PATH = "/v1/completions"
_KEPT_S = 4.0
"""How long an idle connection is used again: below the 5 s after which vLLM closes it."""


class Clients:
    """Asks one endpoint; a context manager. `url` is without `/v1`. Times are of `time.perf_counter()`."""

    def __init__(self, url: str, key: str = "", *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=bearer(key),
            timeout=httpx.Timeout(None),  # of the whole answer: see `ask`
            limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEPT_S),
            transport=transport,
            trust_env=False,
        )

    async def __aenter__(self) -> "Clients":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def loop(self, asks: Sequence[Ask], clients: int) -> tuple[RequestRecord, ...]:
        """Closed loop: so many clients, each of which takes the next of these requests when its last has ended. In the
        order of `asks`. What fails is an error in its record, and ends nothing."""
        left = iter(enumerate(asks))
        found: list[RequestRecord] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(min(clients, len(asks))):
                group.create_task(self._client(left, found))
        return tuple(sorted(found, key=lambda record: record.index))

    async def together(self, asks: Sequence[Ask]) -> tuple[RequestRecord, ...]:
        """All at once: one batch, where the endpoint has room for it."""
        return await self.loop(asks, len(asks))

    async def ask(self, ask: Ask, index: int = 0) -> RequestRecord:
        """One request, its answer read to the end."""
        trace = Trace()
        try:
            async with asyncio.timeout(ask.timeout_s):
                await self._exchange(ask, trace)
        except TimeoutError:
            trace.fail("timeout", f"The answer had not ended after {ask.timeout_s:g} s.")
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            trace.fail("connect", str(error))
        except (httpx.HTTPError, LineTooLarge) as error:
            trace.fail("broken_stream", str(error) or type(error).__name__)
        if trace.end_at is None:
            trace.end_at = time.perf_counter()
        return record_of(index, ask, trace)

    async def _client(self, left: Iterator[tuple[int, Ask]], found: list[RequestRecord]) -> None:
        for index, ask in left:
            found.append(await self.ask(ask, index))

    async def _exchange(self, ask: Ask, trace: Trace) -> None:
        body = {"model": ask.model, **openai_body(ask, chat=False)}
        reader, events = ChunkReader(trace), EventStream()
        trace.sent_at = time.perf_counter()
        async with self._http.stream("POST", _PATH, json=body) as answer:
            trace.status = answer.status_code
            if answer.status_code != 200:
                note_refusal(trace, answer.status_code, read_refusal(await answer.aread()))
                return
            async for part in answer.aiter_raw():
                at = time.perf_counter()
                for event in events.feed(part):
                    reader.event(event.data, at)
            reader.end()
        trace.end_at = time.perf_counter()


def record_of(index: int, ask: Ask, trace: Trace) -> RequestRecord:
    """Of an attempt that has ended."""
    assert trace.end_at is not None
    return RequestRecord(
        index=index,
        target="",
        api="openai-completions",
        adapter=ask.model,
        sent_s=trace.sent_at,
        first_token_s=trace.first_token_at,
        end_s=trace.end_at,
        gaps_s=tuple(trace.gaps_s),
        chunks=trace.chunks,
        prompt_tokens=trace.prompt_tokens,
        prompt_tokens_wanted=0,
        output_tokens=trace.output_tokens,
        output_tokens_wanted=ask.max_tokens,
        status=trace.status,
        error=trace.error,
        message=trace.message,
        finish_reason=trace.finish_reason,
    )


def require_answers(records: Sequence[RequestRecord], what: str) -> None:
    """Raises `NothingMeasured` where none was answered, with what the first said."""
    if not any(record.ok for record in records):
        said = next((record for record in records if record.error), None)
        raise NothingMeasured(f"{what}: nothing was answered{f' ({said.error}: {said.message})' if said else ''}.")
