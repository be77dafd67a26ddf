"""Servers that the parts measure: the mock engine, loramux and other gateways before it.

Each is a context manager; what it started ends with the block, also on Ctrl-C. `cpus` are the cores that it may use;
empty: any.
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex

import psutil

from loramux_bench.bearer import bearer
from loramux_bench.errors import EndpointError, NotInstalled
from loramux_bench.loopback import free_port
from loramux_bench.overhead.cores import Cpus, started_on
from loramux_bench.overhead.peers import STARTS
from loramux_bench.overhead.side import DIRECT, LORAMUX, Peer, Side
from loramux_bench.overhead.workplace import BASE, Workplace
from loramux_bench.studies.adapters import LoraShapes, write_adapters
from loramux_bench.studies.children import Child
from loramux_bench.studies.registration import Registration
from loramux_bench.studies.servers import EngineShape, Loramux

RANK = 8
_ROOM = 1100
"""Adapters that the gateway believes the engine to hold, so that none has to move while requests are measured."""
_START_S = 120.0


def adapter_name(number: int) -> str:
    return f"lora-{number:04d}"


@contextmanager
def mock(place: Workplace, *, name: str = "mock", cpus: Cpus | None = None) -> Iterator[Side]:
    """The mock engine (`engine/`) in a process of its own, on the load's core unless `cpus` says another."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "loramux_bench.overhead.engine", "--port", str(port), "--base", BASE]
    child = Child("The mock engine", argv, _plain_environment(), place.study.log(name))
    try:
        with started_on(place.cores.load if cpus is None else cpus):
            child.start(f"{url}/health", _START_S)
        yield Side(DIRECT, url, {}, BASE, (child.pid,))
    finally:
        child.stop()


@contextmanager
def gateway(
    place: Workplace,
    mock_url: str,
    *,
    adapters: int = 1,
    workers: int = 1,
    name: str = LORAMUX,
    env: Mapping[str, str] | None = None,
    cpus: Cpus | None = None,
) -> Iterator[Side]:
    """`loramux serve` before the mock, with so many adapters registered, each held by the engine, and an inference key
    made over the admin interface; its log goes to a file. On the tested core unless `cpus` says others. `env` are
    settings without the prefix `LORAMUX_`. `model` is the first adapter; `adapter_name` names the others.

    Raises `EndpointError` where it does not come up, refuses an adapter, or has fewer processes than `workers`.
    """
    home = place.study.scratch / f"{name}-home"
    names = [adapter_name(number) for number in range(adapters)]
    files = write_adapters(
        place.study.scratch / "adapters", LoraShapes.of(place.base), names, rank=RANK, modules=("q_proj", "v_proj")
    )
    settings = {"ENGINE__URLS": mock_url, **({"WORKERS": str(workers)} if workers != 1 else {}), **(env or {})}
    shape = EngineShape(base=place.base, max_loras=_ROOM, max_cpu_loras=_ROOM, max_lora_rank=RANK)
    server = Loramux(
        shape,
        home=home,
        log=place.study.log(name),
        roots=[place.study.scratch],
        settings=settings,
        start_timeout_s=_START_S,
    )
    place.note(name, "loramux", ("loramux", "serve"), {f"LORAMUX_{key}": value for key, value in settings.items()})
    with ExitStack() as running:
        with started_on(place.cores.tested if cpus is None else cpus):
            running.enter_context(server)
        asyncio.run(_register(server.url, server.admin_key, files))
        with server.admin() as admin:
            key = admin.create_key("overhead", ()).key
        pids = _family(server.pid)
        if len(pids) < workers:
            raise EndpointError(
                f"The gateway runs as {len(pids)} process although {workers} workers were asked for: this version "
                f"takes no LORAMUX_WORKERS."
            )
        yield Side(name, server.url, bearer(key), names[0] if names else BASE, pids)


@contextmanager
def peer(place: Workplace, name: Peer, mock_url: str, *, cpus: Cpus | None = None) -> Iterator[Side]:
    """Another gateway before the mock, on the tested core unless `cpus` says others. Raises `NotInstalled` where the
    environment does not hold it, `EndpointError` where it does not come up or does not answer a request."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    start = STARTS[name](mock_url, port, free_port(), BASE)
    config = place.study.scratch / f"{name}.yaml"
    argv = start.argv(place.peers, config)
    if not Path(argv[0]).exists():
        raise NotInstalled(f"{name} is not installed in {place.peers.name}: `make bench-overhead` does it.")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(start.config, "utf-8")
    place.note(name, start.package, start.command, start.environment, start.config)
    key = f"sk-{token_hex(16)}" if start.key_variable else ""
    environment = {**_plain_environment(), **start.environment, **({start.key_variable: key} if key else {})}
    child = Child(name, argv, environment, place.study.log(name))
    try:
        with started_on(place.cores.tested if cpus is None else cpus):
            child.start(f"{url}{start.health}", _START_S)
        yield Side(name, url, bearer(key), BASE, _family(child.pid))
    finally:
        child.stop()


async def _register(url: str, admin_key: str, files: Mapping[str, Path]) -> None:
    async with Registration(url, admin_key, at_a_time=8) as registration:
        await registration.add(files)


def _family(pid: int) -> tuple[int, ...]:
    """The process and those that it started."""
    return (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True)))


def _plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("LORAMUX_")}
