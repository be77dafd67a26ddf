"""A gateway with its engine in a thread of their own, for tests that are callers. The one place where a gateway is
built for this suite."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import uvloop

from loramux_serving.relay.record import RequestRecord
from tests.conformance.caller import Caller
from tests.conformance.recording_upstream import RecordingUpstream, Script, recording_upstream
from tests.fakes.relay_services import Gateway, gateway, until

_T = TypeVar("_T")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
"""uvloop is what the gateway runs on in production."""

USUAL = {"retries": 0, "max_head_bytes": 16 * 1024, "max_body_bytes": 256 * 1024}
HASTY = {
    **USUAL,
    "head_timeout_s": 0.2,
    "body_timeout_s": 0.2,
    "keep_alive_s": 0.2,
    "first_byte_timeout_s": 0.2,
    "idle_timeout_s": 0.2,
    "write_timeout_s": 0.2,
}

FENCE = "fence"


@asynccontextmanager
async def gateway_before(upstream: RecordingUpstream, **settings: Any) -> AsyncIterator[Gateway]:
    """A relay on a port of its own, with `upstream` as its only engine."""
    async with gateway(upstream.url, **settings) as made:
        yield made


@dataclass
class Scene:
    """A gateway and its engine, both on `loop`, which runs in another thread. Tests see them between requests only."""

    loop: asyncio.AbstractEventLoop
    gate: Gateway
    upstream: RecordingUpstream

    def caller(self) -> Caller:
        return Caller(self.gate.port)

    def reset(self) -> None:
        """Nothing is left of what came before, even where that failed."""

        def hang_up() -> None:
            for connection in list(self.gate.server.server_state.connections):
                connection.transport.abort()

        def forget() -> None:
            self.upstream.reset()
            self.gate.recorder.records.clear()
            self.gate.asgi_bodies.clear()

        self._within(hang_up)
        self.settle()
        self._within(forget)

    def script(self, *scripts: Script) -> None:
        """What the next requests meet, one each."""
        self._within(lambda: self.upstream.scripts.extend(scripts))

    def release(self) -> None:
        self._within(self.upstream.release)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until it holds, looked at in the loop's thread."""
        self._future(until(condition)).result()

    def settle(self) -> None:
        """Until nothing is under way: what has not reached the engine by then never will."""
        self.wait(lambda: self.gate.idle() and not self.gate.server.server_state.tasks)

    @property
    def records(self) -> list[RequestRecord]:
        """Of all requests that have ended."""
        self.settle()
        return self._within(lambda: list(self.gate.recorder.records))

    @property
    def received(self) -> "RecordingUpstream":
        """The engine, after everything has settled, and after a request of somebody else: that one must get its own
        answer, whatever went before it on the engine's connections, and h11 must have taken all bytes for requests.
        The other request itself is left out of `requests`."""
        self.settle()
        with self.caller() as other:
            answer = other.ask(b'{"model":"base"}', ("X-Request-Id", FENCE))
        assert (answer.status, answer.json["id"]) == (200, FENCE)
        self.settle()
        assert self.upstream.faults == []
        assert self.upstream.requests[-1].all("x-request-id") == [FENCE]
        del self.upstream.requests[-1]
        return self.upstream

    def _within(self, action: Callable[[], _T]) -> _T:
        async def act() -> _T:
            return action()

        return self._future(act()).result()

    def _future(self, work: Coroutine[Any, Any, _T]) -> "Future[_T]":
        return asyncio.run_coroutine_threadsafe(work, self.loop)


@contextmanager
def scenes(loop_name: str, *, at_once: bool) -> Iterator[tuple[Scene, Scene]]:
    """One with usual limits, and one in which nobody may be slow."""
    loop = LOOPS[loop_name]()
    thread = threading.Thread(target=loop.run_forever, name=f"gateway on {loop_name}")
    thread.start()
    stack = AsyncExitStack()

    async def build(settings: dict[str, Any]) -> Scene:
        upstream = await stack.enter_async_context(recording_upstream())
        return Scene(
            loop, await stack.enter_async_context(gateway_before(upstream, at_once=at_once, **settings)), upstream
        )

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10.0)

    try:
        try:
            yield run(build(USUAL)), run(build(HASTY))
        finally:
            run(stack.aclose())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
