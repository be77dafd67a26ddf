"""One run of an engine's process: started with a leash, its output followed, ended whole."""

import asyncio
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from loramux_adapters.errors import EngineConfigInvalid
from loramux_serving.engine import leash
from loramux_serving.engine.spec import LaunchPlan

LogSink = Callable[[str], None]
"""Takes one line of the engine's output, without its newline."""

TAIL_LINES = 50
MAX_LINE_BYTES = 16 * 1024
"""A longer line is passed on in pieces."""


class EngineProcess:
    """A running engine and the leash that holds it. Made by `launch`."""

    def __init__(self, process: asyncio.subprocess.Process, sink: LogSink) -> None:
        self._process = process
        self._sink = sink
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reader = asyncio.create_task(self._follow())

    @property
    def pid(self) -> int:
        """Of the leash, which is also the id of the group that holds all of the engine's processes."""
        return self._process.pid

    @property
    def tail(self) -> Sequence[str]:
        """The last lines of output, oldest first."""
        return tuple(self._tail)

    async def ended(self) -> None:
        """Returns when the engine has ended and its output has been read."""
        await self._process.wait()
        await asyncio.wait({self._reader}, timeout=1.0)

    async def stop(self, timeout_s: float) -> None:
        """SIGTERM to the engine, and after `timeout_s` SIGKILL to its whole group. On return, and where the wait is
        cancelled, no process of the group runs any more."""
        try:
            if self._process.returncode is None:
                self._process.send_signal(signal.SIGTERM)
                await asyncio.wait_for(self._process.wait(), timeout_s)
        except TimeoutError:
            pass
        finally:
            # Also where the leash has ended: it may itself have been killed, and then has killed nobody.
            _kill_group(self.pid)
        await self._process.wait()
        await asyncio.wait({self._reader}, timeout=1.0)
        self._reader.cancel()

    async def _follow(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while chunk := await self._process.stdout.read(64 * 1024):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._take(line)
        if rest:
            self._take(rest)

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
        process = await asyncio.create_subprocess_exec(
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
    running = EngineProcess(process, sink)
    try:
        yield running
    finally:
        await running.stop(stop_timeout_s)
        if process.stdin is not None:
            process.stdin.close()


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
