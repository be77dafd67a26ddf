"""A client of HTTP/1.1 below gevent for answers that stream: one connection, kept between requests.

The parser is geventhttpclient's (llhttp). Its own client is not used, because it hides when a request is sent and when
a connection was kept, reads bodies by lines that only LF ends, and waits for ever more of a line that does not end.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Protocol
from urllib.parse import quote, urlsplit

import gevent.socket
import gevent.ssl
from geventhttpclient.response import HTTPParseError, HTTPResponse

from loramux_bench.apis.arrival import received
from loramux_bench.apis.deadline import deadline
from loramux_bench.apis.lines import LineTooLarge
from loramux_bench.apis.port import Trace
from loramux_bench.apis.refusal import aws_code, note_refusal, read_refusal
from loramux_bench.apis.sse import EventStream
from loramux_bench.errors import ScenarioError

MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_WHOLE_BYTES = 16 * 1024 * 1024
"""Of an answer that is not a stream."""

_BLOCK_BYTES = 16 * 1024


class Reader(Protocol):
    """Makes a trace of an answer, in the words of one interface. `at` is when the bytes came."""

    def event(self, data: bytes, at: float) -> None:
        """One event of a stream."""

    def whole(self, body: bytes, at: float) -> None:
        """An answer that is not a stream."""

    def end(self) -> None:
        """The answer has ended as HTTP wants it. Notes what is missing."""


class HttpClient:
    """One user's way to one endpoint. Raises `ScenarioError` for a URL that is none."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ScenarioError(f"The target's URL {url!r} can not be read: {error}.") from error
        if not url.isascii() or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ScenarioError(f"The target's URL must be http:// or https:// and a host, in ASCII, not {url!r}.")
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port or (443 if self._tls else 80)
        self._authority = parts.netloc.rpartition("@")[2]
        self._path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=")
        self._socket: gevent.socket.socket | None = None

    def open(self) -> None:
        """Connect, if there is no connection yet. A failure is left for the request to find."""
        if self._socket is None:
            with suppress(_NoConnection):
                self._socket = self._connect()

    def stream(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float, trace: Trace, reader: Reader
    ) -> None:
        """POST, and read the whole answer. What goes wrong is noted in `trace`; `sent_at` and `end_at` are set.

        A kept connection that turns out to be closed before anything came is replaced once, and `sent_at` taken anew.
        """
        request = self._request(path, body, headers)
        whole = False
        with deadline(trace, timeout_s):
            try:
                self._exchange(request, trace, reader)
                whole = True
            except LineTooLarge as error:
                trace.fail("bad_answer", f"The answer holds {error}.")
            except HTTPParseError as error:
                trace.fail("bad_answer", f"The answer is not HTTP: {error}")
            except _AnswerTooLarge as error:
                trace.fail("bad_answer", str(error))
            except _Broken as error:
                trace.fail("broken_stream", str(error))
            except OSError as error:
                trace.fail("broken_stream", f"The connection broke: {error}")
            except _NoConnection as error:
                trace.fail("connect", str(error))
            finally:
                if not whole:
                    self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _request(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        fields: dict[str, str] = {
            "Host": self._authority,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Accept": "text/event-stream, application/json",
            "User-Agent": "loramux-bench",
            **headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"POST {self._path}{path} HTTP/1.1\r\n{lines}\r\n".encode("ascii") + body

    def _exchange(self, request: bytes, trace: Trace, reader: Reader) -> None:
        answer = self._send(request, trace)
        trace.status = answer.status_code
        trace.request_id = answer.header("x-request-id")
        trace.version = answer.header("x-loramux-version")
        trace.replica = answer.header("x-loramux-replica")
        if trace.status != 200:
            refusal = read_refusal(_whole(answer))
            code = refusal.code or aws_code(answer.header("x-amzn-errortype"))
            note_refusal(trace, trace.status, refusal._replace(code=code), answer.header("retry-after"))
        elif answer.header("content-type").partition(";")[0].strip().lower() == "application/json":
            reader.whole(_whole(answer), time.perf_counter())
            reader.end()
        else:
            events = EventStream()
            for part, at in answer.parts(MAX_ANSWER_BYTES):
                for event in events.feed(part):
                    reader.event(event.data, at)
            trace.end_at = answer.last_at
            reader.end()
        if answer.should_close():
            self.close()

    def _send(self, request: bytes, trace: Trace) -> "_Answer":
        """An answer of which the head is there."""
        kept = self._socket
        if kept is not None:
            trace.sent_at = time.perf_counter()
            try:
                kept.sendall(request)
                return _Answer(kept)
            except (_Unanswered, OSError):  # an OSError of `sendall`
                self.close()
        trace.sent_at = time.perf_counter()
        self._socket = self._connect()
        self._socket.sendall(request)
        return _Answer(self._socket)

    def _connect(self) -> gevent.socket.socket:
        try:
            plain = gevent.socket.create_connection((self._host, self._port))
        except OSError as error:
            raise _NoConnection(f"There is no connection to {self._host}:{self._port}: {error}") from error
        try:
            plain.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
            return _tls_context().wrap_socket(plain, server_hostname=self._host) if self._tls else plain
        except OSError as error:
            plain.close()
            raise _NoConnection(f"There is no safe connection to {self._host}:{self._port}: {error}") from error
        except BaseException:
            plain.close()
            raise


class _NoConnection(Exception):
    pass


class _Broken(Exception):
    pass


class _Unanswered(_Broken):
    """Closed before a byte came."""


class _AnswerTooLarge(Exception):
    pass


@cache  # reading the machine's certificates takes tens of milliseconds, too long to do it for each user of a load
def _tls_context() -> gevent.ssl.SSLContext:
    return gevent.ssl.create_default_context()


class _Answer(HTTPResponse):  # type: ignore[misc]
    """Reads the head when made. Raises `HTTPParseError` and `_Broken`."""

    def __init__(self, connection: gevent.socket.socket) -> None:
        super().__init__("POST")
        self._connection = connection
        began = False
        # Any number of interim answers (1xx) may come before the final one.
        while not self.headers_complete or self.status_code < 200:
            try:
                data, self._at = received(self._receive)
            except OSError as error:
                raise self._closed(began, f": {error}") from error
            if not data:
                raise self._closed(began, ".")
            began = True
            self.feed(data)

    @staticmethod
    def _closed(began: bool, why: str) -> _Broken:
        if began:
            return _Broken(f"The connection closed within the head of the answer{why}")
        return _Unanswered(f"The connection closed before an answer came{why}")

    @property
    def last_at(self) -> float:
        """When the last bytes came."""
        return self._at

    def _receive(self) -> bytes:
        return bytes(self._connection.recv(_BLOCK_BYTES))

    def header(self, name: str) -> str:
        """Empty where there is none; the first where there are many."""
        value = self.get(name)
        return value[0] if isinstance(value, list) else value or ""

    def parts(self, max_bytes: int) -> Iterator[tuple[bytes, float]]:
        """The body as it comes, timed. Raises `_AnswerTooLarge` beyond `max_bytes`, `_Broken` where it is cut off."""
        left_bytes = max_bytes
        while True:
            if self._body_buffer:
                part = bytes(self._body_buffer)
                self._body_buffer.clear()
                left_bytes -= len(part)
                if left_bytes < 0:
                    raise _AnswerTooLarge(f"The answer is longer than {max_bytes} bytes.")
                yield part, self._at
            if self.message_complete:
                return
            data, self._at = received(self._receive)
            try:
                self.feed(data)
            except HTTPParseError:
                if data:
                    raise
                raise _Broken("The connection closed in the middle of the answer.") from None
            if not data and not self.message_complete:
                raise _Broken("The connection closed in the middle of the answer.")


def _whole(answer: _Answer) -> bytes:
    return b"".join(part for part, _ in answer.parts(MAX_WHOLE_BYTES))
