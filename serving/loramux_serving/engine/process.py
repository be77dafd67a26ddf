"""One run of an engine's process: started with a leash, its output followed, ended whole."""

import asyncio
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

from loramux_adapters.errors import EngineConfigInvalid
from loramux_serving.engine import leash
from loramux_serving.engine.spec import LaunchPlan

LogSink = Callable[[str], None]
"""Takes one line of the engine's output, without its newline."""

TAIL_LINES = 50
LAST_WORDS_S = 1.0
"""Longest wait, after the end of a process, for the rest of its output."""
MAX_LINE_BYTES = 16 * 1024
"""A longer line is passed on in pieces."""


class EngineProcess(asyncio.SubprocessProtocol):
    """A running engine and the leash that holds it. Made by `launch`.

    A protocol rather than `asyncio.subprocess`, whose `wait` does not return while anything that the engine left
    behind holds its output open.
    """

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._rest = b""
        self._exited = asyncio.Event()
        self._silent = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None

    @property
    def tail(self) -> Sequence[str]:
        """The last lines of output, oldest first."""
        return tuple(self._tail)

    async def ended(self) -> None:
        """Returns when the engine, or its leash, has ended and its last words have been read."""
        await self._exited.wait()
        await _within(LAST_WORDS_S, self._silent)

    async def stop(self, timeout_s: float) -> None:
        """SIGTERM to the engine, and after `timeout_s` SIGKILL; SIGKILL to whatever is left of its group in any case,
        also where this is cancelled. On return the leash has ended."""
        assert self._transport is not None
        try:
            if not self._exited.is_set():
                self._transport.send_signal(signal.SIGTERM)
                await _within(timeout_s, self._exited)
        finally:
            # Also where the leash has ended: it may have been killed itself, and then has killed nobody.
            _kill_group(self._transport.get_pid())
            self._transport.close()
        await self.ended()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's own transport does not derive from asyncio's class.
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        self._rest = rest
        for line in lines:
            self._take(line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._take(self._rest)
            self._silent.set()

    def process_exited(self) -> None:
        self._exited.set()

    def _take(self, raw: bytes) -> None:
        line = raw.decode("utf-8", "replace").rstrip()
        if line:
            self._tail.append(line)
            self._sink(line)


@asynccontextmanager
async def launch(plan: LaunchPlan, *, sink: LogSink, stop_timeout_s: float) -> AsyncIterator[EngineProcess]:
    """Start what `plan` says, in a process group of its own, so that Ctrl-C in the gateway's terminal does not reach
    it; end it with the block, whatever ends the block. If this process dies without leaving the block, even by
    SIGKILL, the leash kills the engine. Raises `EngineConfigInvalid` where the leash can not be started."""
    try:
        _, running = await asyncio.get_running_loop().subprocess_exec(
            lambda: EngineProcess(sink),
            sys.executable,
            "-I",
            "-S",
            str(Path(leash.__file__)),
            *plan.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=plan.env,
            start_new_session=True,
        )
    except OSError as error:
        raise EngineConfigInvalid(f"The engine can not be started: {error.strerror or error}.") from error
    try:
        yield running
    finally:
        await running.stop(stop_timeout_s)


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _within(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
