"""HTTP/1.1 on one connection, by no more than what gateways and load generators send: bodies have a length, and a
request follows the answer to the one before."""

import asyncio
from typing import cast

import msgspec

from loramux_bench.overhead.engine.books import Books, Reply, refusal
from loramux_bench.overhead.engine.stream import Stream
from loramux_bench.overhead.engine.ticks import Ticks

_CHAT = b"POST /v1/chat/completions "
_LENGTH = b"\r\ncontent-length:"
_CHUNKED = b"\r\ntransfer-encoding:"


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Body(msgspec.Struct):
    """What is read of a request."""

    model: str
    stream: bool = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream_options: StreamOptions | None = None

    @property
    def tokens(self) -> int:
        return max(1, self.max_tokens or self.max_completion_tokens or 16)


_decode = msgspec.json.Decoder(Body).decode


class Connection(asyncio.Protocol):
    """`ticks` are what paced streams wait for."""

    def __init__(self, books: Books, ticks: Ticks) -> None:
        self._books = books
        self._ticks = ticks
        self._transport: asyncio.Transport | None = None
        self._waiting = b""
        """What came of a request that is not whole yet."""
        self._stream: Stream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # of uvloop, which does not derive it

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._stream is not None:
            self._stream.stop()
            self._stream = None

    def pause_writing(self) -> None:
        if self._stream is not None:
            self._stream.pause()

    def resume_writing(self) -> None:
        if self._stream is not None:
            self._stream.resume()

    def data_received(self, data: bytes) -> None:
        if self._waiting:
            data, self._waiting = self._waiting + data, b""
        while data and self._transport is not None:
            end = data.find(b"\r\n\r\n") + 4
            if end == 3:
                self._waiting = data
                return
            head = data[:end].lower()
            size = 0
            at = head.find(_LENGTH)
            if at >= 0:
                size = int(head[at + len(_LENGTH) : head.index(b"\r", at + 2)])
            elif _CHUNKED in head:
                if not self._dechunk(data, end):
                    return
                data = self._waiting
                self._waiting = b""
                continue
            if len(data) < end + size:
                self._waiting = data
                if b"\r\nexpect: 100-continue" in head and len(data) == end:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self._answer(data, data[end : end + size])
            data = data[end + size :]

    def _dechunk(self, data: bytes, end: int) -> bool:
        """With a length in place of the chunks; false while some are missing."""
        self._waiting = data
        at = end
        parts: list[bytes] = []
        while (line := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:line].partition(b";")[0], 16)
            at = line + 2 + size + 2
            if len(data) < at:
                return False
            if not size:
                body = b"".join(parts)
                lines = data[: end - 4].split(b"\r\n")
                kept = [one for one in lines if not one.lower().startswith(b"transfer-encoding:")]
                kept += [b"content-length: %d" % len(body), b"", b""]
                self._waiting = b"\r\n".join(kept) + body + data[at:]
                return True
            parts.append(data[line + 2 : line + 2 + size])
        return False

    def _answer(self, request: bytes, body: bytes) -> None:
        assert self._transport is not None
        if not request.startswith(_CHAT):
            method, path, _ = request.split(b" ", 2)
            try:
                reply = self._books.reply(method, path.partition(b"?")[0], body)
            except msgspec.DecodeError as error:
                reply = refusal(b"400 Bad Request", str(error))
            self._send(reply)
            return
        try:
            asked = _decode(body)
        except msgspec.DecodeError as error:
            self._send(refusal(b"400 Bad Request", str(error)))
            return
        answers = self._books.answers.get(asked.model)
        if answers is None:
            self._send(refusal(b"404 Not Found", f"The model `{asked.model}` does not exist."))
        elif not asked.stream:
            self._transport.write(answers.whole)
        else:
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            self._stream = Stream(self._transport, answers, self._books.pace, asked.tokens, usage, self._ticks)
            self._stream.start()

    def _send(self, reply: Reply) -> None:
        assert self._transport is not None
        self._transport.write(reply.encoded)
