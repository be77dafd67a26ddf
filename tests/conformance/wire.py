"""The gateway's protocol class without a socket: the pieces in which bytes arrive are the test's to choose."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import h11

from tests.conformance.recording_upstream import Received, RecordingUpstream, recording_upstream
from tests.conformance.scene import USUAL, gateway_before
from tests.fakes.relay_services import Gateway, until

READ_BYTES = 64 * 1024
QUIET_TURNS = 20
"""Turns of the loop; a request that can go on takes its next step within a few."""


class _Transport(asyncio.Transport):
    """Keeps what is written. Ends as a socket's does: with the next turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.written = bytearray()
        self.paused = False
        self.protocol: Any = None
        self.ended = False
        self._loop = loop

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.ended:
            self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    abort = close


@dataclass(frozen=True)
class Outcome:
    """What came of some bytes. `answers` are status and error code (None: no error of the gateway's); `forwarded` is
    what the engine got, as h11 reads it; `bodies` what the application got."""

    answers: tuple[tuple[int, str | None], ...]
    forwarded: tuple[tuple[str, bytes], ...]
    bodies: tuple[bytes, ...]


class Wire:
    """A gateway with an engine, in a loop that runs only within `say`."""

    def __init__(self, runner: asyncio.Runner, gate: Gateway, upstream: RecordingUpstream) -> None:
        self._runner = runner
        self._gate = gate
        self._upstream = upstream

    def say(self, pieces: Sequence[bytes]) -> Outcome:
        """One connection on which the pieces arrive, each in a turn of its own, until everything has settled."""
        written, received, bodies = self._runner.run(self._say(pieces))
        forwarded = tuple((each.target, each.body) for each in received)
        return Outcome(tuple(_answers(written)), forwarded, tuple(bodies))

    async def _say(self, pieces: Sequence[bytes]) -> tuple[bytes, list[Received], list[bytes]]:
        loop = asyncio.get_running_loop()
        config, state = self._gate.server.config, self._gate.server.server_state
        self._upstream.requests.clear()
        self._gate.asgi_bodies.clear()
        transport = _Transport(loop)
        protocol: Any = cast(Any, config.http_protocol_class)(
            config=config, server_state=state, app_state={}, _loop=loop
        )
        transport.protocol = protocol
        protocol.connection_made(transport)
        for piece in pieces:
            for start in range(0, len(piece), READ_BYTES):
                if transport.paused:
                    await until(lambda: not transport.paused)
                if transport.ended:
                    break
                protocol.data_received(piece[start : start + READ_BYTES])
        await self._quiet()
        transport.close()
        await until(lambda: not state.tasks and self._gate.idle())
        assert self._upstream.faults == []
        return bytes(transport.written), list(self._upstream.requests), list(self._gate.asgi_bodies)

    async def _quiet(self) -> None:
        """Until every request has ended, or waits for bytes that do not come: then it holds nothing, and stays so."""
        turns = 0
        async with asyncio.timeout(5.0):
            while self._gate.server.server_state.tasks and turns < QUIET_TURNS:
                await asyncio.sleep(0)
                turns = turns + 1 if self._gate.idle() else 0


def _answers(written: bytes) -> Iterator[tuple[int, str | None]]:
    """As h11 reads them, all of which must be whole."""
    while written:
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method="POST", target="/", headers=[("Host", "a"), ("Content-Length", "0")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(written)
        status, body = 0, b""
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, f"not whole: {written!r}"
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        written, _ = reader.trailing_data
        yield status, json.loads(body)["error"]["code"] if status >= 400 else None


@contextmanager
def wires() -> Iterator[Wire]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def build() -> Wire:
            upstream = await stack.enter_async_context(recording_upstream())
            return Wire(
                runner, await stack.enter_async_context(gateway_before(upstream, at_once=True, **USUAL)), upstream
            )

        try:
            yield runner.run(build())
        finally:
            runner.run(stack.aclose())
