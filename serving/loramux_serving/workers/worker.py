"""One worker process: `python -m loramux_serving.workers.worker PLAN`, started by `WorkerProcess`.

It serves the public port beside its like, carries inference requests between callers and engines, and asks the control
process for every decision. It ends with it: when the channel closes, nothing is served any more.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog
import uvicorn

from loramux_serving import heap
from loramux_serving.relay.doors import make_doors
from loramux_serving.relay.handler import Relay
from loramux_serving.relay.protocol import PLAIN, relay_protocol
from loramux_serving.settings import LogSettings, RelaySettings
from loramux_serving.telemetry.logs import configure
from loramux_serving.workers.channel import Channel
from loramux_serving.workers.forwarding import Forwarding
from loramux_serving.workers.messages import Draining, Said, Serving
from loramux_serving.workers.plan import WorkerPlan
from loramux_serving.workers.remote_gate import RemoteGate

_LAST_STEPS, _LAST_STEP_S = 50, 0.01


class Server(uvicorn.Server):
    """Tells the control process when it begins to serve, and when it begins to stop. SIGTERM drains it."""

    def __init__(self, config: uvicorn.Config, channel: Channel[Said]) -> None:
        super().__init__(config)
        self._channel = channel

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        heap.settle()
        self._channel.send(Serving())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._channel.send(Draining())
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """uvicorn's own raises the signal again in the end, and the process would not get to its last words."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def serve(plan: WorkerPlan) -> None:
    """Until SIGTERM, and then until the requests under way have ended, or their time has."""
    loop = asyncio.get_running_loop()
    gate = RemoteGate()
    leaving = False

    def lost() -> None:
        if not leaving:
            # At once: whoever waits here for an answer would wait for nobody, and what this worker holds is given away.
            _sweep(plan)
            os._exit(1)

    channel = Channel(msgspec.msgpack.Decoder(list[Said]), gate.heard, lost, answers=False)
    gate.speaks_over(channel)
    await loop.create_unix_connection(lambda: channel, sock=socket.socket(fileno=plan.channel_fd))
    relay = Relay(RelaySettings.model_validate_json(bytes(plan.relay)), gate, make_doors(plan.doors))
    config = uvicorn.Config(
        Forwarding(plan.control_path),
        http=relay_protocol(relay),
        lifespan="off",
        timeout_graceful_shutdown=int(plan.shutdown_timeout_s),
        **PLAIN,
    )
    server = Server(config, channel)
    await server.serve(sockets=[socket.socket(fileno=plan.listener_fd)])
    await _requests_ended(server)
    await relay.close()
    leaving = True
    await channel.close()


def _sweep(plan: WorkerPlan) -> None:
    """A control process that was killed has left its socket's directory."""
    for _ in range(_LAST_STEPS):
        if os.getppid() != plan.control_pid:  # a moment after its sockets have closed
            shutil.rmtree(Path(plan.control_path).parent, ignore_errors=True)
            return
        time.sleep(_LAST_STEP_S)


async def _requests_ended(server: uvicorn.Server) -> None:
    """uvicorn cancels what outlasts its time, and does not wait until that has told its end."""
    for _ in range(_LAST_STEPS):
        if not server.server_state.tasks:
            return
        await asyncio.sleep(_LAST_STEP_S)


def main(argv: list[str]) -> None:
    plan = msgspec.json.decode(argv[0], type=WorkerPlan)
    configure(LogSettings.model_validate_json(bytes(plan.log)))
    structlog.contextvars.bind_contextvars(worker=plan.index)
    loop_factory = uvicorn.Config(Forwarding(""), log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(plan))


if __name__ == "__main__":
    main(sys.argv[1:])
