"""HTTP/1.1 on one connection: a request at a time, kept alive between them."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

MAX_BODY_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Request:
    """As it came; `received_at` is when its last byte was read, on `time.perf_counter()`."""

    method: str
    path: str
    authorization: str
    request_id: str
    body: bytes
    received_at: float


class Answering(Protocol):
    """An answer under way."""

    def cancel(self) -> None:
        """The caller has left."""


class Connection(asyncio.Protocol):
    """Hands each request to `on_request`, which answers with `send`, or with `open_stream` and `stream`. A request that
    comes before the last was answered in full (pipelining) is refused: the connection is closed."""

    def __init__(self, on_request: Callable[["Connection", Request], None]) -> None:
        self.answering: Answering | None = None
        """Told when the caller leaves; set and unset by who answers."""
        self._on_request = on_request
        self._busy = False
        self._keep_alive = True
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        self._path = b""
        self._authorization = b""
        self._request_id = b""
        self._body: list[bytes] = []
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # of uvloop, which does not derive it

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        # It refers back to this object: without the circle nothing is left for the collector, which is switched off.
        self._parser = None
        answering, self.answering = self.answering, None
        if answering is not None:
            answering.cancel()

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_message_begin(self) -> None:
        if self._busy:
            self.close()
        self._begin()

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"authorization":
                self._authorization = value
            case b"x-request-id":
                self._request_id = value

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            self.close()
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._transport is None or self._parser is None or self._transport.is_closing():
            return
        self._busy = True
        self._keep_alive = self._parser.should_keep_alive()  # true again once this call is over
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            path=self._path.decode("latin-1").partition("?")[0],
            authorization=self._authorization.decode("latin-1"),
            request_id=self._request_id.decode("latin-1"),
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            received_at=time.perf_counter(),
        )
        self._on_request(self, request)

    def send(self, status: bytes, content_type: bytes, body: bytes, headers: bytes = b"") -> None:
        """A whole answer. `status` such as `200 OK`; `headers` end with a line break each."""
        self._write(
            b"HTTP/1.1 %b\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n\r\n%b"
            % (status, content_type, headers, len(body), body)
        )
        self._answered()

    def open_stream(self, headers: bytes = b"") -> None:
        """The head of a stream of events."""
        self._write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n%b"
            b"transfer-encoding: chunked\r\n\r\n" % headers
        )

    def stream(self, frames: bytes, *, last: bool = False) -> None:
        """Frames that are due, in one write; with the end of the answer if they are the last."""
        if last:
            self._write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(frames), frames))
            self._answered()
        elif frames:  # an empty chunk would end the answer
            self._write(b"%x\r\n%b\r\n" % (len(frames), frames))

    def close(self) -> None:
        """What was written is sent first."""
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _answered(self) -> None:
        self._busy = False
        self.answering = None
        if not self._keep_alive:
            self.close()
