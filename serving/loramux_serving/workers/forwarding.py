"""What a worker does with all but inference: it passes request and answer on, to and from the control process."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import httptools
import msgspec
import structlog

from loramux_adapters.errors import OperationInterrupted
from loramux_serving.http_errors import admin_body, error_lines, openai_dict, status_of
from loramux_serving.relay.headers import HOP_BY_HOP, joined, named_in

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

READ_BYTES = 64 * 1024
"""At most about twice as much of an answer is held while the caller does not read, and of a body while the control
process does not."""
_ADMIN = "/admin/"

_log = structlog.get_logger(__name__)


class Forwarding:
    """An ASGI application. Each request has a connection of its own to the control process, on this machine, so that
    neither side's end can be taken for another's. Bodies stream both ways at the same time: an answer that comes before
    a body is whole reaches its caller."""

    def __init__(self, path: str) -> None:
        """`path`: the Unix socket of the control process."""
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(self._path, limit=READ_BYTES)
        except OSError as error:
            await _answer_unavailable(scope, send, error.strerror or str(error))
            return
        answer = _Answer(bodiless=scope["method"] == "HEAD")
        body = asyncio.create_task(_send_body(scope, receive, writer, answer))
        try:
            writer.write(_head(scope))
            await _pass_answer(scope, reader, answer, send)
        finally:
            body.cancel()
            writer.transport.abort()
            await asyncio.gather(body, return_exceptions=True)


class _Answer:
    """What came of an answer, by httptools' callbacks."""

    def __init__(self, *, bodiless: bool) -> None:
        """`bodiless`: it is one to HEAD, which ends with its head whatever that says."""
        self.parser = httptools.HttpResponseParser(self)
        self._bodiless = bodiless
        self.headers: Headers = []
        self.pieces: list[bytes] = []
        self.has_head = False
        self.complete = False
        self.body_wanted = asyncio.Event()
        """The control process wants to see the body, or has said something else."""
        self.caller_left = False

    @property
    def status(self) -> int:
        return int(self.parser.get_status_code())

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.body_wanted.set()
        self.has_head = self.status >= 200
        self.complete = self.has_head and self._bodiless

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.complete = self.has_head  # after 100 another one follows
        if not self.has_head:
            self.headers.clear()


async def _pass_answer(scope: Scope, reader: asyncio.StreamReader, answer: _Answer, send: Send) -> None:
    started = False
    while not answer.complete:
        try:
            data = await reader.read(READ_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection")
            answer.parser.feed_data(data)
        except (OSError, httptools.HttpParserError) as error:
            if answer.caller_left:
                return
            if not started:
                await _answer_unavailable(scope, send, str(error))
                return
            # The server breaks the caller's connection, since the answer is not whole.
            _log.warning("the control process broke off an answer", path=scope["path"], reason=str(error))
            return
        if answer.has_head and not started:
            started = True
            await send(_start(answer))
        pieces, answer.pieces = answer.pieces, []
        if pieces:
            await send({"type": "http.response.body", "body": b"".join(pieces), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _start(answer: _Answer) -> MutableMapping[str, Any]:
    return {
        "type": "http.response.start",
        "status": answer.status,
        "headers": _without_hop_by_hop(answer.headers),
    }


async def _send_body(scope: Scope, receive: Receive, writer: asyncio.StreamWriter, answer: _Answer) -> None:
    """Pass the caller's body on, and then wait for it to leave: with it, the request at the control process ends."""
    names = dict(scope["headers"])
    chunked = b"transfer-encoding" in names
    if names.get(b"expect", b"").lower() == b"100-continue":
        await answer.body_wanted.wait()
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                answer.caller_left = True
                writer.transport.abort()
                return
            body = message.get("body", b"")
            more = message.get("more_body", False)
            if chunked and body:
                writer.write(b"%x\r\n%b\r\n" % (len(body), body))
            elif body:
                writer.write(body)
            if chunked and not more:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
    except OSError:
        return  # the control process has closed: what it said first is still to be read


def _head(scope: Scope) -> bytes:
    target = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    headers = _without_hop_by_hop(scope["headers"])
    if any(name == b"transfer-encoding" for name, _ in scope["headers"]):
        headers.append((b"transfer-encoding", b"chunked"))
    headers.append((b"connection", b"close"))
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (scope["method"].encode("ascii"), target, joined(headers))


def _without_hop_by_hop(headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    dropped = HOP_BY_HOP.union(*[named_in(value) for name, value in headers if name == b"connection"])
    return [(name, value) for name, value in headers if name not in dropped]


async def _answer_unavailable(scope: Scope, send: Send, reason: str) -> None:
    _log.warning("the control process does not answer", path=scope["path"], reason=reason)
    error = OperationInterrupted("The gateway's control process does not answer: it is stopping.", retry_after_s=1.0)
    body = msgspec.json.encode(admin_body(error) if scope["path"].startswith(_ADMIN) else openai_dict(error))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += error_lines(error)
    await send({"type": "http.response.start", "status": status_of(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})
