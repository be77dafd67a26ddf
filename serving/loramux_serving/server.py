"""The gateway as a process: settings in, exit at the end of its life."""

import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
    suppress,
)
from ipaddress import ip_address
from pathlib import Path

import structlog
import uvicorn
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from loramux_adapters.errors import SettingsInvalid
from loramux_adapters.store.database import Database
from loramux_serving import heap
from loramux_serving.app import create_app
from loramux_serving.base.location import locate_base
from loramux_serving.bootstrap import build
from loramux_serving.demo import Demo
from loramux_serving.home import Home
from loramux_serving.relay.protocol import PLAIN, relay_protocol
from loramux_serving.services import Services
from loramux_serving.settings import Settings
from loramux_serving.settings_sources import Notice
from loramux_serving.telemetry.logs import configure
from loramux_serving.workers.control_server import ControlServer, private_path
from loramux_serving.workers.port import SharedPort

_log = structlog.get_logger(__name__)


def run(settings: Settings, demo_dir: Path | None = None, notices: Sequence[Notice] = ()) -> None:
    """Serve until SIGINT or SIGTERM; then drain, and stop the engines. `notices` are logged first. Raises
    `LoramuxError` where it can not start."""
    configure(settings.log)
    for notice in notices:
        _log.log(notice.level, notice.event, **notice.fields)
    demo = None if demo_dir is None else Demo(demo_dir)
    if demo is not None:
        demo.names()
        settings = demo.allowed(settings)
    with Home(settings.home).held(), _listening(settings) as listener:
        base_dir, base_name = _located(settings)
        with closing(Database(settings.database_url)) as database, database.claimed():
            services, gateway = build(settings, base_dir, base_name, database)
            address = _address(listener)

            @asynccontextmanager
            async def running() -> AsyncIterator[None]:
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(gateway.running())
                    if demo is not None:
                        await stack.enter_async_context(demo.loading(services, address))
                    heap.settle()
                    yield

            _log.info("gateway starts", address=address, base=base_name, home=str(settings.home))
            # uvicorn raises the signal again when it has shut down; SIGTERM's own way would end us in mid-air.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            if settings.workers == 1:
                _serve_alone(services, running(), listener)
            else:
                _serve_with_workers(services, running(), listener)


def _serve_alone(services: Services, running: AbstractAsyncContextManager[None], listener: socket.socket) -> None:
    settings = services.settings
    config = uvicorn.Config(
        create_app(services, running),
        http=relay_protocol(services.relay),
        timeout_graceful_shutdown=int(settings.shutdown_timeout_s),
        **PLAIN,
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    _require_started(server)


def _serve_with_workers(services: Services, running: AbstractAsyncContextManager[None], claim: socket.socket) -> None:
    """Here is what keeps the books, and workers have the port."""
    settings = services.settings
    with private_path() as path, SharedPort(claim, settings.workers) as port:
        config = uvicorn.Config(
            create_app(services, running),
            uds=path,
            http="httptools",
            date_header=False,  # the worker's answer has one
            timeout_graceful_shutdown=int(settings.shutdown_timeout_s),
            **PLAIN,
        )
        server = ControlServer(config, services.crew, port)
        with suppress(KeyboardInterrupt):
            server.run()
        if server.failure is not None:
            raise server.failure
        _require_started(server)


def _require_started(server: uvicorn.Server) -> None:
    if not server.started:
        raise SettingsInvalid("The gateway could not start; its log says why.")


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The port, taken before anything is started for it. Raises `SettingsInvalid`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise SettingsInvalid(
                f"{settings.host}:{settings.port} can not be listened on: {error.strerror or error}."
            ) from error
        yield listener


def _address(listener: socket.socket) -> str:
    """Where callers on this machine reach it."""
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _located(settings: Settings) -> tuple[Path, str]:
    with Progress(TextColumn("{task.description}"), BarColumn(), console=Console(stderr=True)) as bars:
        bar = bars.add_task("base model", total=1.0)
        return locate_base(settings, lambda phase, share: bars.update(bar, description=phase, completed=share))
