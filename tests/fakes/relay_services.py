"""The relay's ports, in memory, and a gateway around them on a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from loramux_adapters.errors import EngineUnavailable, Forbidden, ModelNotFound, Unauthenticated
from loramux_adapters.model import Role, Target
from loramux_serving.relay.dialect import ModelName
from loramux_serving.relay.doors import DoorPlan, make_doors
from loramux_serving.relay.grants import Grants
from loramux_serving.relay.handler import Relay
from loramux_serving.relay.local_gate import LocalGate
from loramux_serving.relay.ports import Authenticator, Principal
from loramux_serving.relay.protocol import relay_protocol
from loramux_serving.relay.record import RequestRecord
from loramux_serving.relay.signed_request import Credentials
from loramux_serving.relay.story import Story
from loramux_serving.settings import RelaySettings

KEY = "Bearer good"
BASE = Target("base", "base")
SHOP = Target("shop", "shop@0123456789ab", 3, "0123456789ab" + "0" * 52)


class FakeAuthenticator:
    def authenticate(self, credentials: Credentials) -> Principal:
        if credentials not in (KEY, "Bearer narrow"):
            raise Unauthenticated("No such key.")
        return Principal("k1", "test", Role.INFERENCE, adapters=("other",) if credentials != KEY else ())

    def require_adapter(self, principal: Principal, name: str) -> None:
        if principal.adapters and name not in principal.adapters:
            raise Forbidden(f"The key is not for {name!r}.")


@dataclass
class FakeNames:
    targets: dict[ModelName, Target] = field(default_factory=lambda: {"base": BASE, "shop": SHOP, "store": SHOP})
    sticky: list[str | None] = field(default_factory=list)
    key_ids: list[str | None] = field(default_factory=list)

    def resolve(self, model: ModelName, sticky: str | None = None, key_id: str | None = None) -> Target:
        self.sticky.append(sticky)
        self.key_ids.append(key_id)
        if model not in self.targets:
            raise ModelNotFound(f"There is no model {model!r}.", details={"param": "model"})
        return self.targets[model]


@dataclass
class FakeAdmitted:
    admission: "FakeAdmission"
    soon: Callable[[], object] | None = None
    inside: bool = False
    spent: int = 0
    stepped_aside: int = 0
    waited_s: float = 0.25
    counts_tokens: bool = True

    def spend(self, tokens: int) -> None:
        self.spent += tokens

    def enter_now(self) -> bool:
        admission = self.admission
        if not admission.at_once or not admission.gate.is_set():
            return False
        if admission.error is not None:
            raise admission.error
        admission.inside += 1
        self.inside, self.waited_s = True, 0.0
        return True

    async def wait(self) -> None:
        await self.admission.enter(self.soon)
        self.inside = True

    def leave(self) -> None:
        self.admission.inside -= self.inside
        self.inside = False

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        self.stepped_aside += 1
        yield


@dataclass
class FakeAdmission:
    """`gate` set: requests pass, and `at_once` without a wait. `error`: what entering raises. `slots` are those that
    were asked for."""

    at_once: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    inside: int = 0
    waiting: int = 0
    places: list[FakeAdmitted] = field(default_factory=list)
    slots: list[str | None] = field(default_factory=list)

    def admit(
        self,
        principal: Principal,
        adapter: str,
        slot: str | None = None,
        soon: Callable[[], object] | None = None,
    ) -> FakeAdmitted:
        self.slots.append(slot)
        place = FakeAdmitted(self, soon)
        self.places.append(place)
        return place

    async def enter(self, soon: Callable[[], object] | None) -> None:
        if self.error is not None:
            raise self.error
        self.waiting += 1
        if soon is not None and not self.gate.is_set():
            soon()
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        self.inside += 1


@dataclass
class FakeReplica:
    id: str
    url: str
    outstanding: int = 0
    suspected: int = 0

    def suspect(self) -> None:
        self.suspected += 1


@dataclass
class FakeFleet:
    replicas: list[FakeReplica]

    def pick(self, target: Target, avoid: Collection[str] = ()) -> FakeReplica:
        if not self.replicas:
            raise EngineUnavailable("No engine is ready.", retry_after_s=2.5)
        return min(self.replicas, key=lambda replica: replica.id in avoid)

    def begin(self, target: Target, replica_id: str) -> None:
        self._replica(replica_id).outstanding += 1

    def end(self, target: Target, replica_id: str) -> None:
        self._replica(replica_id).outstanding -= 1

    def _replica(self, replica_id: str) -> FakeReplica:
        return next(replica for replica in self.replicas if replica.id == replica_id)


@dataclass
class FakeLeases:
    held: int = 0
    taken: list[tuple[str, str]] = field(default_factory=list)
    error: Exception | None = None
    cold: set[str] = field(default_factory=set)
    """Engine names that must be staged before they can be leased at once."""
    lost_names: list[str] = field(default_factory=list)
    foreseen: list[tuple[str, str]] = field(default_factory=list)

    def lease_now(self, target: Target, replica_id: str, end_request: Callable[[], object]) -> "FakeLease | None":
        if target.engine_name in self.cold:
            return None
        lease = self.lease(target, replica_id, end_request)
        if self.error is not None:
            raise self.error
        self.held += 1
        return lease

    def staged(self, target: Target, replica_id: str) -> bool:
        return target.engine_name not in self.cold

    async def stage(self, target: Target, replica_id: str) -> None:
        self.cold.discard(target.engine_name)

    def foresee(self, target: Target, replica_id: str) -> None:
        self.foreseen.append((target.engine_name, replica_id))

    def lost(self, target: Target, replica_id: str) -> None:
        self.lost_names.append(target.engine_name)

    def lease(self, target: Target, replica_id: str, end_request: Callable[[], object]) -> "FakeLease":
        self.taken.append((target.engine_name, replica_id))
        return FakeLease(self)


@dataclass
class FakeLease:
    leases: FakeLeases

    async def begin(self) -> None:
        if self.leases.error is not None:
            raise self.leases.error
        self.leases.held += 1

    def end(self) -> None:
        self.leases.held -= 1


@dataclass
class FakeRecorder:
    records: list[RequestRecord] = field(default_factory=list)

    def record(self, record: RequestRecord) -> None:
        self.records.append(record)

    def tell(self, story: Story) -> None:
        self.record(story.record())


@dataclass
class Gateway:
    """A relay served by uvicorn, with the parts that tests look into."""

    settings: RelaySettings
    relay: Relay
    server: uvicorn.Server
    port: int
    names: FakeNames
    admission: FakeAdmission
    fleet: FakeFleet
    leases: FakeLeases
    recorder: FakeRecorder
    asgi_bodies: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def idle(self) -> bool:
        """Nothing is held for any request."""
        replicas = sum(replica.outstanding for replica in self.fleet.replicas)
        return not (self.admission.inside or self.admission.waiting or self.leases.held or replicas)


@asynccontextmanager
async def gateway(
    *engine_urls: str, authenticator: Authenticator | None = None, at_once: bool = False, **settings: Any
) -> AsyncIterator[Gateway]:
    """A gateway in this loop, before engines at these addresses. Its ASGI side echoes bodies at any path. `at_once`:
    who called a name before enters without a wait."""
    limits = RelaySettings(**settings)
    names, admission, leases, recorder = FakeNames(), FakeAdmission(at_once), FakeLeases(), FakeRecorder()
    admission.gate.set()
    fleet = FakeFleet([FakeReplica(f"r{index}", url) for index, url in enumerate(engine_urls)])
    gate = LocalGate(
        authenticator or FakeAuthenticator(),
        names,
        admission,
        fleet,
        leases,
        recorder,
        retries=limits.retries,
        grants=Grants(lambda name: True) if at_once else None,
    )
    relay = Relay(limits, gate, make_doors(DoorPlan("base")))
    bodies: list[bytes] = []
    config = uvicorn.Config(
        _echo(bodies),
        host="127.0.0.1",
        port=0,
        http=relay_protocol(relay),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    made = Gateway(limits, relay, server, port, names, admission, fleet, leases, recorder, bodies)
    try:
        yield made
    finally:
        admission.gate.set()
        for connection in list(server.server_state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        server.should_exit = True
        await running
        await relay.close()


async def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Wait until it holds; fails after `limit_s`."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - conditions of all kinds, most without an event
            await asyncio.sleep(0.002)


def _echo(bodies: list[bytes]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        bodies.append(body)
        text = f"{scope['method']} {scope['path']} {len(body)}".encode()
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return app
