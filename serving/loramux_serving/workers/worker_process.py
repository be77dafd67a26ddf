"""One worker, as the control process sees it: its process, its desk, and the channel between."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress

import msgspec
import structlog

from loramux_serving.relay.doors import DoorPlan
from loramux_serving.relay.local_gate import LocalGate
from loramux_serving.relay.ports import Recorder
from loramux_serving.settings import Settings
from loramux_serving.workers.channel import Channel
from loramux_serving.workers.desk import Desk
from loramux_serving.workers.messages import Asked
from loramux_serving.workers.plan import WorkerPlan

LAST_WORDS_S = 5.0
"""How long a process may take to end after it has closed its channel."""

_log = structlog.get_logger(__name__)


class WorkerProcess:
    """A worker that was started. Made by `start_worker`."""

    def __init__(self, process: asyncio.subprocess.Process, desk: Desk, channel: Channel[Asked]) -> None:
        self.desk = desk
        self._process = process
        self._channel = channel

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """Let it take no more connections, and end when its requests have."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    async def ended(self) -> int:
        """Its exit status, negative for a signal. On return its requests hold nothing."""
        gone = asyncio.create_task(self.desk.lost.wait())
        over = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait((gone, over), return_when=asyncio.FIRST_COMPLETED)
            if not over.done():
                # One that does not hear us any more must not go on serving.
                await asyncio.wait((over,), timeout=LAST_WORDS_S)
            if not over.done():
                _log.warning("worker killed: it had closed its channel, and did not end", pid=self.pid)
                self.kill()
            status = await over
            await asyncio.wait((gone,), timeout=LAST_WORDS_S)  # what it said before is read first
            self._channel.abort()
            await gone
            return status
        finally:
            gone.cancel()
            over.cancel()

    def _signal(self, number: signal.Signals) -> None:
        # Not by its id where it has ended: another process may have it by now.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


async def start_worker(
    index: int,
    listener: socket.socket,
    control_path: str,
    settings: Settings,
    doors: DoorPlan,
    gate: LocalGate,
    recorder: Recorder,
) -> WorkerProcess:
    """Returns when the process runs; `desk.serving` tells when it serves. In a session of its own, so that Ctrl-C in
    the gateway's terminal does not reach it. Raises `OSError` where no process can be made."""
    ours, theirs = socket.socketpair()
    with theirs:
        plan = WorkerPlan(
            index=index,
            channel_fd=theirs.fileno(),
            listener_fd=listener.fileno(),
            control_pid=os.getpid(),
            control_path=control_path,
            doors=doors,
            shutdown_timeout_s=settings.shutdown_timeout_s,
            relay=msgspec.Raw(settings.relay.model_dump_json().encode()),
            log=msgspec.Raw(settings.log.model_dump_json().encode()),
        )
        desk = Desk(gate, recorder)
        channel = Channel(msgspec.msgpack.Decoder(list[Asked]), desk.heard, desk.gone, answers=True)
        desk.speaks_over(channel)
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "loramux_serving.workers.worker",
                msgspec.json.encode(plan).decode(),
                stdin=asyncio.subprocess.DEVNULL,
                # Its settings are in the plan, and secrets are for the control process.
                env={name: value for name, value in os.environ.items() if not name.startswith("LORAMUX_")},
                pass_fds=(theirs.fileno(), listener.fileno()),
                start_new_session=True,
            )
        except OSError:
            channel.abort()
            raise
    return WorkerProcess(process, desk, channel)
