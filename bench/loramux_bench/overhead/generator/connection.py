"""One connection: a stream, and when it has ended the next."""

import asyncio
import json
import time
from typing import cast

import httptools

from loramux_bench.overhead.engine.answers import STAMP, stamps
from loramux_bench.overhead.generator.book import Book
from loramux_bench.overhead.generator.job import Job


def request(job: Job) -> bytes:
    """Head and body of each request."""
    said = {
        "model": job.model,
        "messages": [{"role": "user", "content": job.prompt}],
        "max_tokens": job.tokens,
        "stream": True,
    }
    body = json.dumps(said).encode()
    lines = [f"POST {job.path} HTTP/1.1", f"Host: {job.host}:{job.port}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in job.headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Connection(asyncio.Protocol):
    """Asks as soon as it is connected."""

    def __init__(self, job: Job, asked: bytes, book: Book) -> None:
        self._job = job
        self._asked = asked
        self._book = book
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._over = False
        """Nothing more is asked."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # of uvloop, which does not derive it
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._frames = 0
        self._rest = b""
        self._came_at = 0.0
        self._asked_at = time.perf_counter()
        self._transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"an answer that is no HTTP: {error}")

    def on_body(self, piece: bytes) -> None:
        whole = self._rest + piece if self._rest else piece
        # Whole lines only: a gateway may cut a frame anywhere.
        end = whole.rfind(b"\n") + 1
        self._rest = whole[end:]
        if not self._job.itl_s:
            self._count(len(STAMP.findall(whole, 0, end)))
            return
        for written_at, engine_late_s in stamps(whole[:end]):
            if self._frames:
                self._book.next(self._now, self._came_at, written_at, engine_late_s)
            else:
                self._book.first(self._now, self._asked_at, written_at, engine_late_s)
            self._frames += 1
            self._came_at = self._now

    def _count(self, frames: int) -> None:
        """Without a pace it only counts how many there are."""
        self._frames += frames
        self._book.passed(frames, self._now)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status != 200:
            self._fail(f"status {status}")
        elif self._frames != self._job.tokens:
            self._fail(f"{self._frames} frames of {self._job.tokens}")
        else:
            self._book.ended(self._now)
            if not self._over:
                asyncio.get_running_loop().call_soon(self._again)

    def _again(self) -> None:
        if self._transport is not None and not self._over:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self._over:
            self._fail("the connection was closed")
        self._parser = None

    def _fail(self, why: str) -> None:
        self._over = True
        self._book.failed(why)
        if self._transport is not None:
            self._transport.close()

    def stop(self) -> None:
        self._over = True
        if self._transport is not None:
            self._transport.abort()
