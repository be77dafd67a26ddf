"""Messages between two processes, in order, over a socket: those of one turn of the event loop go together."""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec
import structlog

HIGH_WATER_BYTES = 256 * 1024
"""More than this waits for the other end: it does not keep up."""
MAX_FRAME_BYTES = 256 * 1024 * 1024
_LENGTH_BYTES = 4

_log = structlog.get_logger(__name__)

_Message = TypeVar("_Message")


class Channel(asyncio.Protocol, Generic[_Message]):
    """One end. A frame is a length, 4 bytes big-endian, and a msgpack array of messages. One event loop.

    `take` gets each message that came, and must not raise; `lost` is called once, when the other end is gone, or has
    sent what can not be read.
    """

    def __init__(
        self,
        decoder: "msgspec.msgpack.Decoder[list[_Message]]",
        take: Callable[[_Message], object],
        lost: Callable[[], object],
        *,
        answers: bool,
    ) -> None:
        """`answers`: each message that comes is answered by at most a few, so while the other end does not read what is
        sent, nothing is read from it. Else the sender must ask `room`."""
        self._decode = decoder.decode
        self._encode = msgspec.msgpack.Encoder(enc_hook=str).encode
        self._take = take
        self._lost = lost
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[Any] = []
        self._flush_is_due = False
        self._incoming = bytearray()
        self._room = asyncio.Event()
        self._room.set()
        self._closed = asyncio.Event()

    @property
    def has_room(self) -> bool:
        return self._room.is_set()

    async def room(self) -> None:
        """Wait until the other end keeps up. Not to be waited for by those who give something back."""
        await self._room.wait()

    def send(self, message: Any) -> None:
        """Does not block or raise; what is sent when the other end is gone is lost."""
        self._outgoing.append(message)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    async def close(self) -> None:
        """What was sent goes out first."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own does not derive from asyncio's class
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._outgoing.clear()
        self._room.set()
        self._closed.set()
        self._lost()

    def pause_writing(self) -> None:
        self._room.clear()
        if self._answers and self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._room.set()
        if self._answers and self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._flush_is_due = True  # what these messages cause is sent when all of them are taken
        try:
            if self._incoming:
                self._incoming += data
                rest = self._take_frames(self._incoming)
                del self._incoming[:rest]
            else:
                self._incoming += data[self._take_frames(data) :]
        except msgspec.DecodeError as error:
            _log.error("a message between gateway processes can not be read", reason=str(error))
            self.abort()
        finally:
            self._flush()

    def _take_frames(self, data: bytes | bytearray) -> int:
        """Take each whole frame; how many bytes they are."""
        begin = 0
        while len(data) - begin >= _LENGTH_BYTES:
            length = int.from_bytes(data[begin : begin + _LENGTH_BYTES])
            if length > MAX_FRAME_BYTES:
                raise msgspec.DecodeError(f"{length} bytes are more than a frame can have")
            end = begin + _LENGTH_BYTES + length
            if len(data) < end:
                break
            messages = self._decode(data[begin + _LENGTH_BYTES : end])
            begin = end
            for message in messages:
                self._take(message)
        return begin

    def _flush(self) -> None:
        self._flush_is_due = False
        messages, self._outgoing = self._outgoing, []
        if messages and self._transport is not None:
            frame = self._encode(messages)
            self._transport.write(len(frame).to_bytes(_LENGTH_BYTES) + frame)
