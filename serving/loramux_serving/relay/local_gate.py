"""The gate of the process that keeps the books: names, limits, places, slots, replicas."""

from collections.abc import Callable

import structlog

from loramux_adapters.errors import AdapterLost, EngineError, EngineFailed, EngineUnavailable
from loramux_adapters.model import Target
from loramux_serving.relay.dialect import ModelName
from loramux_serving.relay.eager import in_task
from loramux_serving.relay.ports import (
    Admission,
    Admitted,
    Authenticator,
    Fleet,
    Lease,
    Leases,
    Names,
    Principal,
    Replica,
    Teller,
)
from loramux_serving.relay.signed_request import Credentials
from loramux_serving.relay.story import Story


class LocalGate:
    """`relay.ports.Gate`. One event loop. A request that need not wait passes without a suspension."""

    def __init__(
        self,
        authenticator: Authenticator,
        names: Names,
        admission: Admission,
        fleet: Fleet,
        leases: Leases,
        teller: Teller,
        *,
        retries: int,
    ) -> None:
        """`retries`: further tries of a request whose caller has got nothing."""
        self.authenticator = authenticator
        self.names = names
        self.fleet = fleet
        self.leases = leases
        self.retries = retries
        self._admission = admission
        self.tell = teller.tell

    async def check(self, credentials: Credentials, story: Story) -> None:
        story.key_id = self.authenticator.authenticate(credentials).key_id

    async def enter(
        self,
        credentials: Credentials,
        model: ModelName,
        sticky: str | None,
        story: Story,
        end_request: Callable[[], object],
    ) -> "LocalPassage":
        principal = self.authenticator.authenticate(credentials)
        story.key_id = principal.key_id
        target = story.target = self.names.resolve(model, sticky, principal.key_id)
        self.authenticator.require_adapter(principal, target.adapter)
        slot = None if target.version is None else target.engine_name
        place = self._admission.admit(principal, target.adapter, slot, lambda: self._foresee(target))
        if not place.enter_now():
            await place.wait()
        waited_s = story.queue_s = place.waited_s
        passage = LocalPassage(self, principal, model, sticky, story, place, end_request)
        try:
            if waited_s > 0 or not passage.hold_now(target):
                await passage.find()
        except BaseException:
            passage.give_back()
            raise
        return passage

    def _foresee(self, target: Target) -> None:
        """The request waits: let its adapter be loaded meanwhile."""
        try:
            replica = self.fleet.pick(target)
        except EngineUnavailable:
            return
        if not self.leases.staged(target, replica.id):
            self.leases.foresee(target, replica.id)


class LocalPassage:
    """`relay.ports.Passage`, made by `LocalGate.enter`: a place, and from `find` on a lease on one replica."""

    __slots__ = (
        "_end_request",
        "_gate",
        "_lease",
        "_model",
        "_place",
        "_principal",
        "_replica",
        "_sticky",
        "_story",
        "_target",
        "_tried",
        "url",
    )

    def __init__(
        self,
        gate: LocalGate,
        principal: Principal,
        model: ModelName,
        sticky: str | None,
        story: Story,
        place: Admitted,
        end_request: Callable[[], object],
    ) -> None:
        self._gate = gate
        self._principal = principal
        self._model = model
        self._sticky = sticky
        self._story = story
        self._place = place
        self._end_request = end_request
        self._tried: tuple[str, ...] = ()
        self._lease: Lease | None = None
        self._replica: Replica | None = None
        self._target: Target | None = None
        self.url = ""

    def hold_now(self, target: Target) -> bool:
        """Hold `target` on a replica, where nothing has to be waited for. Raises `EngineUnavailable`."""
        gate = self._gate
        replica = gate.fleet.pick(target)
        lease = gate.leases.lease_now(target, replica.id, self._end_request)
        if lease is None:
            return False
        self._story.replica = replica.id
        self._holds(lease, replica, target)
        return True

    async def find(self) -> None:
        """Hold the target on a replica. Raises `LoramuxError`."""
        while True:
            replica = self._choose()
            try:
                await self._hold(replica)
            except (EngineUnavailable, EngineFailed, AdapterLost) as error:
                self._failed(error)
            else:
                return

    async def again(self, error: EngineError) -> None:
        self._let_go()
        self._failed(error)
        await self.find()

    def leave(self) -> None:
        story = self._story
        if story.outcome == "interrupted" and self._replica is not None:
            self._replica.suspect()
        if story.usage is not None:
            self._place.spend(story.usage.total)
        self.give_back()
        self._gate.tell(story)

    def give_back(self) -> None:
        """Lease and place."""
        self._let_go()
        self._place.leave()

    def _choose(self) -> Replica:
        story = self._story
        target = story.target
        if target is None or self._tried or self._place.waited_s > 0:
            # The wait may have been long: what the name means now is what counts.
            target = self._resolve()
            if story.target is None or target.adapter != story.target.adapter:
                self._gate.authenticator.require_adapter(self._principal, target.adapter)
        replica = self._replica = self._gate.fleet.pick(target, self._tried)
        story.target, story.replica = target, replica.id
        return replica

    async def _hold(self, replica: Replica) -> None:
        gate, story = self._gate, self._story
        target = story.target
        assert target is not None
        lease = gate.leases.lease_now(target, replica.id, self._end_request)
        if lease is None:
            await in_task()
            structlog.contextvars.bind_contextvars(request_id=story.request_id)  # the task's own context: ends with it
            # A load may take long: who waits for one takes no place from requests that could run.
            async with self._place.aside():
                await gate.leases.stage(target, replica.id)
            story.queue_s = self._place.waited_s
            story.target = target = self._resolve()
            lease = gate.leases.lease(target, replica.id, self._end_request)
            await lease.begin()
        self._holds(lease, replica, target)

    def _holds(self, lease: Lease, replica: Replica, target: Target) -> None:
        self._lease, self._replica, self._target = lease, replica, target
        self.url = replica.url
        self._gate.fleet.begin(target, replica.id)

    def _let_go(self) -> None:
        lease, replica, target = self._lease, self._replica, self._target
        if lease is not None and replica is not None and target is not None:
            self._lease = None
            self._gate.fleet.end(target, replica.id)
            lease.end()

    def _failed(self, error: EngineError) -> None:
        """Raises `EngineUnavailable` where there were tries enough."""
        replica, target = self._replica, self._story.target
        assert replica is not None
        if isinstance(error, AdapterLost) and target is not None:
            self._gate.leases.lost(target, replica.id)
        self._tried = (*self._tried, replica.id)
        replica.suspect()
        if len(self._tried) > self._gate.retries:
            raise EngineUnavailable(
                f"No engine could answer: {error.message}", retry_after_s=error.retry_after_s or 1.0
            ) from error

    def _resolve(self) -> Target:
        return self._gate.names.resolve(self._model, self._sticky, self._principal.key_id)
