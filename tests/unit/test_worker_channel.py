"""The channel between a worker and the control process."""

import asyncio
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from loramux_serving.workers.channel import HIGH_WATER_BYTES, Channel
from loramux_serving.workers.messages import Asked, GiveUp, Tell
from tests.fakes.relay_services import until


class End:
    """One end of a channel, and what it heard."""

    def __init__(self, *, answers: bool = False) -> None:
        self.heard: list[Asked] = []
        self.lost = 0
        self.channel: Channel[Asked] = Channel(
            msgspec.msgpack.Decoder(list[Asked]), self.heard.append, self._lose, answers=answers
        )

    def _lose(self) -> None:
        self.lost += 1


@pytest.fixture
async def far() -> AsyncIterator[tuple[End, socket.socket]]:
    """One end, and the bare socket at the other."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    end = End(answers=True)
    await loop.create_unix_connection(lambda: end.channel, sock=ours)
    with theirs:
        yield end, theirs
    end.channel.abort()
    await until(lambda: end.lost == 1)


async def received(far: socket.socket) -> list[object]:
    """One frame."""
    loop = asyncio.get_running_loop()
    length = int.from_bytes(await loop.sock_recv(far, 4))
    frame = b""
    while len(frame) < length:
        frame += await loop.sock_recv(far, length - len(frame))
    found: list[object] = msgspec.msgpack.decode(frame)
    return found


def frame(*messages: Asked) -> bytes:
    body = msgspec.msgpack.encode(list(messages))
    return len(body).to_bytes(4) + body


async def test_what_is_sent_in_one_turn_goes_together(far: tuple[End, socket.socket]) -> None:
    end, other = far
    for number in range(100):
        end.channel.send(GiveUp(number))
    assert await received(other) == [[2, number] for number in range(100)]


@pytest.mark.parametrize("piece", [1, 3, 7, 1000])
async def test_frames_may_come_in_any_pieces(far: tuple[End, socket.socket], piece: int) -> None:
    end, other = far
    sent = [GiveUp(number) for number in range(50)]
    data = frame(*sent[:20]) + frame() + frame(*sent[20:])
    for begin in range(0, len(data), piece):
        await asyncio.get_running_loop().sock_sendall(other, data[begin : begin + piece])
        await asyncio.sleep(0)
    await until(lambda: len(end.heard) == 50)
    assert end.heard == sent


@pytest.mark.parametrize(
    "data",
    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", frame(Tell("no record")), b"\x00\x00\x00\x02\x91\x90"],  # type: ignore[arg-type]
    ids=["too long", "no msgpack", "no such message", "no message"],
)
async def test_what_can_not_be_read_ends_it(far: tuple[End, socket.socket], data: bytes) -> None:
    end, other = far
    await asyncio.get_running_loop().sock_sendall(other, frame(GiveUp(1)) + data)
    await until(lambda: end.lost == 1)
    assert end.heard == [GiveUp(1)]


async def test_who_does_not_read_is_not_read_from(far: tuple[End, socket.socket]) -> None:
    """And so what waits for it does not grow with what it asks."""
    end, other = far
    loop = asyncio.get_running_loop()
    number = 0
    while end.channel.has_room:
        number += 1
        end.channel.send(Tell("x" * (HIGH_WATER_BYTES // 8)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
    waiting = asyncio.create_task(end.channel.room())
    await loop.sock_sendall(other, frame(GiveUp(1)))
    for _ in range(50):
        await asyncio.sleep(0)
    assert end.heard == []
    assert not waiting.done()
    for _ in range(number):
        await received(other)
    await asyncio.wait_for(waiting, 5)
    await until(lambda: end.heard == [GiveUp(1)])


async def test_closing_sends_what_was_said_before(far: tuple[End, socket.socket]) -> None:
    end, other = far
    end.channel.send(GiveUp(7))
    await end.channel.close()
    assert await received(other) == [[2, 7]]
    assert end.lost == 1
    end.channel.send(GiveUp(8))  # is lost, and hurts nobody


async def test_its_end_wakes_who_waits_for_room(far: tuple[End, socket.socket]) -> None:
    end, _ = far
    while end.channel.has_room:
        end.channel.send(Tell("x" * HIGH_WATER_BYTES))  # type: ignore[arg-type]
        await asyncio.sleep(0)
    waiting = asyncio.create_task(end.channel.room())
    await asyncio.sleep(0)
    end.channel.abort()
    await asyncio.wait_for(waiting, 5)
