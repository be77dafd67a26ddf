"""The control process's own HTTP server: what workers pass on, at a Unix socket that nobody else reaches."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import structlog
import uvicorn

from loramux_adapters.errors import SettingsInvalid
from loramux_serving.workers.crew import Crew
from loramux_serving.workers.port import SharedPort

MAX_PATH_BYTES = 107
"""Of a Unix socket, on Linux."""

_log = structlog.get_logger(__name__)


class ControlServer(uvicorn.Server):
    """Workers are started when it listens, and have ended before it stops. A second SIGINT ends them at once."""

    def __init__(self, config: uvicorn.Config, crew: Crew, port: SharedPort) -> None:
        super().__init__(config)
        self.failure: SettingsInvalid | None = None
        """Why it did not start."""
        self._crew = crew
        self._port = port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert self.config.uds is not None
        try:
            await self._crew.start(self._port, self.config.uds)
        except SettingsInvalid as error:
            self.failure = error
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._port.close()
        await self._crew.drain()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self.force_exit:
            self._crew.kill()


@contextmanager
def private_path() -> Iterator[str]:
    """Where the socket can be: in a new directory that only this user may enter, gone with the block. Raises
    `SettingsInvalid`."""
    directory = Path(tempfile.mkdtemp(prefix="loramux-"))
    try:
        path = str(directory / "control.sock")
        if len(path.encode()) > MAX_PATH_BYTES:
            raise SettingsInvalid(f"{path} is too long for a Unix socket: set TMPDIR to a shorter directory.")
        yield path
    finally:
        shutil.rmtree(directory, ignore_errors=True)
