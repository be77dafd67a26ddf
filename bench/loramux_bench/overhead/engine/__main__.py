"""`python -m loramux_bench.overhead.engine --port PORT --base NAME`: until SIGTERM or SIGINT."""

import argparse
import asyncio
import gc
import signal

import uvloop

from loramux_bench.mock.deadlines import Deadlines
from loramux_bench.overhead.engine.books import Books
from loramux_bench.overhead.engine.connection import Connection
from loramux_bench.overhead.engine.ticks import Ticks

_BACKLOG = 4096


async def _serve(port: int, base: str) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    deadlines = Deadlines(loop)
    ticks = Ticks(deadlines)
    books = Books(base)
    server = await loop.create_server(lambda: Connection(books, ticks), "127.0.0.1", port, backlog=_BACKLOG)
    gc.disable()  # a collection would stop every stream for milliseconds
    await stop.wait()
    server.close()
    deadlines.close()


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--base", required=True)
    options = parser.parse_args()
    uvloop.run(_serve(options.port, options.base))


if __name__ == "__main__":
    main()
