"""The gate of the process that keeps the books: names, limits, places, slots, replicas."""

from collections.abc import Callable

import msgspec
import structlog

from loramux_adapters.errors import AdapterLost, EngineError, EngineFailed, EngineUnavailable
from loramux_adapters.model import Target
from loramux_serving.relay.dialect import ModelName
from loramux_serving.relay.eager import in_task
from loramux_serving.relay.grants import Grant, Grants
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
        grants: Grants | None = None,
    ) -> None:
        """`retries`: further tries of a request whose caller has got nothing. Without `grants` every request is found
        out about anew, and none enters at once."""
        self.authenticator = authenticator
        self.names = names
        self.fleet = fleet
        self.leases = leases
        self.retries = retries
        self._admission = admission
        self._grants = grants
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
        grant = Grant(principal, target, None if target.version is None else target.engine_name)
        if self._grants is not None:
            self._grants.keep(credentials, model, grant)
        passage = self._let_in(grant, model, sticky, story, end_request)
        return passage if passage.settled else await settled(passage)

    def enter_now(
        self,
        credentials: Credentials,
        model: ModelName,
        sticky: str | None,
        story: Story,
        end_request: Callable[[], object],
    ) -> "LocalPassage | None":
        grant = None if self._grants is None else self._grants.known((credentials, model))
        return None if grant is None else self._let_in(grant, model, sticky, story, end_request)

    def _let_in(
        self, grant: Grant, model: ModelName, sticky: str | None, story: Story, end_request: Callable[[], object]
    ) -> "LocalPassage":
        """As far as nothing has to be waited for."""
        principal = grant.principal
        target = story.target = grant.target
        story.key_id = principal.key_id
        place = self._admission.admit(principal, target.adapter, grant.slot, lambda: self._foresee(target))
        lease = replica = None
        url = ""
        if place.enter_now():
            story.queue_s = place.waited_s
            try:
                chosen = self.fleet.pick(target)
                lease = self.leases.lease_now(target, chosen.id, end_request)
            except BaseException:
                place.leave()
                raise
            if lease is not None:
                replica, url, story.replica = chosen, chosen.url, chosen.id
                self.fleet.begin(target, chosen.id)
        held = lease is not None
        return LocalPassage(
            self, principal, model, sticky, story, place, end_request, (), lease, replica, target, held, url
        )

    def _foresee(self, target: Target) -> None:
        """The request waits: let its adapter be loaded meanwhile."""
        try:
            replica = self.fleet.pick(target)
        except EngineUnavailable:
            return
        if not self.leases.staged(target, replica.id):
            self.leases.foresee(target, replica.id)


async def settled(passage: "LocalPassage") -> "LocalPassage":
    """Where this raises, nothing is held."""
    try:
        await passage.settle()
    except BaseException:
        passage.give_back()
        raise
    return passage


class LocalPassage(msgspec.Struct, eq=False):
    """`relay.ports.Passage`, made by `LocalGate`: a place or a wait for one, and once it is settled a lease on one
    replica."""

    _gate: LocalGate
    _principal: Principal
    _model: ModelName
    _sticky: str | None
    _story: Story
    _place: Admitted
    _end_request: Callable[[], object]
    _tried: tuple[str, ...] = ()
    _lease: Lease | None = None
    _replica: Replica | None = None
    _target: Target | None = None
    settled: bool = False
    url: str = ""

    async def settle(self) -> None:
        place, story = self._place, self._story
        target = story.target
        assert target is not None, "it is noted when a grant is there"
        if story.queue_s is None:
            await place.wait()
            story.queue_s = place.waited_s
        await self._find()

    async def _find(self) -> None:
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
        await self._find()

    def leave(self) -> None:
        story, place, replica = self._story, self._place, self._replica
        if replica is not None and story.outcome == "interrupted":
            replica.suspect()
        if place.counts_tokens and story.usage is not None:
            place.spend(story.usage.total)
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
        self.settled = True
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
