"""The mock as a process: listens, says where, and ends on SIGTERM or SIGINT."""

import asyncio
import gc
import signal
import socket
import time

from loramux_bench.errors import EndpointError
from loramux_bench.mock.deadlines import Deadlines
from loramux_bench.mock.endpoint import Endpoint
from loramux_bench.mock.settings import MockSettings

BACKLOG = 1024


async def serve(settings: MockSettings) -> None:
    """Until a signal. Prints `mock endpoint: http://HOST:PORT` once it listens. Raises `EndpointError` where it can
    not listen."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    deadlines = Deadlines(loop)
    endpoint = Endpoint(settings, deadlines, started_at=time.perf_counter())
    try:
        server = await loop.create_server(endpoint.connection, settings.host, settings.port, backlog=BACKLOG)
    except OSError as error:
        raise EndpointError(
            f"The mock endpoint can not listen on {settings.host}:{settings.port}: {error.strerror}. Use another port."
        ) from error
    # A collection would stop every stream for milliseconds, and there are no circles to collect.
    gc.disable()
    listening: socket.socket = server.sockets[0]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"mock endpoint: http://{host}:{listening.getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()
    deadlines.close()
