"""Gates over the relay's ports in memory: where the books are, and in a worker with a channel between."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from loramux_adapters.model import Target
from loramux_serving.relay.local_gate import LocalGate
from loramux_serving.relay.ports import Gate
from loramux_serving.workers.channel import Channel
from loramux_serving.workers.desk import Desk
from loramux_serving.workers.messages import Asked, Said
from loramux_serving.workers.remote_gate import RemoteGate
from tests.fakes.relay_services import (
    FakeAdmission,
    FakeAuthenticator,
    FakeFleet,
    FakeLease,
    FakeLeases,
    FakeNames,
    FakeRecorder,
    FakeReplica,
)


@dataclass
class WatchedLeases(FakeLeases):
    """`may_stage` cleared: a version that is cold stays so. `ends`: how requests would be ended."""

    may_stage: asyncio.Event = field(default_factory=asyncio.Event)
    ends: list[Callable[[], object]] = field(default_factory=list)

    async def stage(self, target: Target, replica_id: str) -> None:
        await self.may_stage.wait()
        await super().stage(target, replica_id)

    def lease(self, target: Target, replica_id: str, end_request: Callable[[], object]) -> FakeLease:
        self.ends.append(end_request)
        return super().lease(target, replica_id, end_request)


@dataclass
class Scene:
    """`gate` is the one under test. Everybody passes at once, until a test says otherwise."""

    admission: FakeAdmission = field(default_factory=FakeAdmission)
    names: FakeNames = field(default_factory=FakeNames)
    leases: WatchedLeases = field(default_factory=WatchedLeases)
    recorder: FakeRecorder = field(default_factory=FakeRecorder)
    fleet: FakeFleet = field(
        default_factory=lambda: FakeFleet([FakeReplica("r0", "http://one:1"), FakeReplica("r1", "http://two:2")])
    )
    retries: int = 1

    def __post_init__(self) -> None:
        self.admission.gate.set()
        self.leases.may_stage.set()
        self.books = LocalGate(
            FakeAuthenticator(),
            self.names,
            self.admission,
            self.fleet,
            self.leases,
            self.recorder,
            retries=self.retries,
        )
        self.gate: Gate = self.books

    def held(self) -> tuple[int, int, int, int]:
        """Places, those who wait for one, leases, and requests that replicas count."""
        outstanding = sum(replica.outstanding for replica in self.fleet.replicas)
        return self.admission.inside, self.admission.waiting, self.leases.held, outstanding

    def idle(self) -> bool:
        return self.held() == (0, 0, 0, 0)


@dataclass
class Line:
    """Between a worker's gate and its desk. `lost` tells that the worker's end is gone."""

    gate: RemoteGate
    desk: Desk
    worker_end: Channel[Said]
    control_end: Channel[Asked]


@asynccontextmanager
async def line(scene: Scene) -> AsyncIterator[Line]:
    """Both ends in this loop; from now on `scene.gate` is the worker's."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    gate, desk = RemoteGate(), Desk(scene.books, scene.recorder)
    worker_end = Channel(msgspec.msgpack.Decoder(list[Said]), gate.heard, lambda: None, answers=False)
    control_end = Channel(msgspec.msgpack.Decoder(list[Asked]), desk.heard, desk.gone, answers=True)
    gate.speaks_over(worker_end)
    desk.speaks_over(control_end)
    await loop.create_unix_connection(lambda: control_end, sock=ours)
    await loop.create_unix_connection(lambda: worker_end, sock=theirs)
    scene.gate = gate
    try:
        yield Line(gate, desk, worker_end, control_end)
    finally:
        await worker_end.close()
        await desk.lost.wait()
        control_end.abort()
