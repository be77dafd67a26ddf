"""`python -m loramux_bench.overhead.generator`: a `Job` as JSON on standard input, a `Report` on standard output."""

import asyncio
import gc
import sys
import time

import msgspec
import uvloop

from loramux_bench.overhead.generator.book import Book
from loramux_bench.overhead.generator.connection import Connection, request
from loramux_bench.overhead.generator.job import Job, Report


async def _run(job: Job) -> Report:
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    book = Book(job, began + job.ramp_s)
    asked = request(job)
    connections: list[Connection] = []

    async def connect(number: int) -> None:
        await asyncio.sleep(job.ramp_s * number / job.streams)
        connection = Connection(job, asked, book)
        connections.append(connection)
        try:
            await loop.create_connection(lambda: connection, job.host, job.port)
        except OSError as error:
            book.failed(f"no connection: {error.strerror}")

    gc.disable()  # a collection would look like lateness
    async with asyncio.TaskGroup() as group:
        for number in range(job.streams):
            group.create_task(connect(number))
        await asyncio.sleep(began + job.ramp_s + job.seconds - time.perf_counter())
    report = book.report(time.perf_counter())
    for connection in connections:
        connection.stop()
    return report


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(_run(job))))


if __name__ == "__main__":
    main()
