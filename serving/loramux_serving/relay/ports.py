"""What the relay needs of the rest of the gateway.

The relay itself needs a `Gate` only, and for `LocalGate` the rest is needed, in the process that keeps the books.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from loramux_adapters.errors import EngineError
from loramux_adapters.model import Role, Target
from loramux_serving.relay.dialect import ModelName
from loramux_serving.relay.record import RequestRecord
from loramux_serving.relay.signed_request import Credentials
from loramux_serving.relay.story import Story


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `adapters` holds shell-style patterns of names (empty: all); limits are None where the key has
    none of its own."""

    key_id: str
    name: str
    role: Role
    adapters: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Gate(Protocol):
    """Who decides on requests: who may pass, what names mean, when it is a request's turn, and where it goes."""

    async def check(self, credentials: Credentials, story: Story) -> None:
        """Notes the caller. Raises `Unauthenticated`."""
        ...

    async def enter(
        self,
        credentials: Credentials,
        model: ModelName,
        sticky: str | None,
        story: Story,
        end_request: Callable[[], object],
    ) -> "Passage":
        """Wait until the request can go to an engine. Notes in `story` what was found out, also where this raises:
        then nothing is held. `sticky` keeps a caller on one side of a canary. `end_request` may be called later, until
        the passage ends: the request must end now. Raises `LoramuxError`."""
        ...

    def enter_now(
        self,
        credentials: Credentials,
        model: ModelName,
        sticky: str | None,
        story: Story,
        end_request: Callable[[], object],
    ) -> "Passage | None":
        """As `enter`, as far as nothing has to be waited for: the passage may not be settled yet. None where nothing
        can be said at once: then nothing is noted or counted, and `enter` must follow. Raises what `enter` does."""
        ...

    def tell(self, story: Story) -> None:
        """A request has ended that has no passage. Does not block or raise."""
        ...


class Passage(Protocol):
    """A request's place at an engine, held until `leave`. Where it goes is in `story.target` and `url`."""

    @property
    def url(self) -> str:
        """The engine's: `http://host:port` (or https) without a path."""
        ...

    @property
    def settled(self) -> bool:
        """It is there. False: `settle` must be waited for first."""
        ...

    async def settle(self) -> None:
        """Raises what `Gate.enter` does; `leave` must be called all the same."""
        ...

    async def again(self, error: EngineError) -> None:
        """The engine failed with `error`, and the caller has got nothing: go to another. Raises `EngineUnavailable`
        where it was tried often enough, and what `Gate.enter` does; `leave` must be called all the same."""
        ...

    def leave(self) -> None:
        """The request has ended, as its story says. Once. Does not block or raise."""
        ...


class Authenticator(Protocol):
    def authenticate(self, credentials: Credentials) -> Principal:
        """Once for each request: a signature may be for a single use. Memory only. Raises `Unauthenticated`."""
        ...

    def require_adapter(self, principal: Principal, name: str) -> None:
        """Raises `Forbidden` where the key is not for the adapter (or base) `name`."""
        ...


class Names(Protocol):
    def resolve(self, model: ModelName, sticky: str | None = None, key_id: str | None = None) -> Target:
        """What the name means now. Memory only. Raises `ModelNotFound`. `sticky` keeps a caller on one side of a
        canary split; without it `key_id` does, where the canary goes by the caller's key."""
        ...


class Admitted(Protocol):
    """A place at the engines, from `enter_now` or `wait` to `leave`. `waited_s` is the time in the queue."""

    @property
    def waited_s(self) -> float: ...

    @property
    def counts_tokens(self) -> bool:
        """False: `spend` would change nothing."""
        ...

    def enter_now(self) -> bool:
        """Take the place at once. False: there is none now, and `wait` must follow. Raises `RateLimited` and
        `QueueFull`, each with `retry_after_s`; then none is held."""
        ...

    async def wait(self) -> None:
        """Wait for the place, fairly between adapters. Raises `QueueTimeout` with `retry_after_s`; then none is
        held."""
        ...

    def leave(self) -> None:
        """Give it back, if it is held."""
        ...

    def aside(self) -> AbstractAsyncContextManager[None]:
        """Give the place to others for the length of the block, and wait for one again at its end. Raises
        `QueueFull` before the block, and `QueueTimeout` after it."""
        ...

    def spend(self, tokens: int) -> None:
        """Count the tokens that the request turned out to use."""
        ...


class Admission(Protocol):
    def admit(
        self,
        principal: Principal,
        adapter: str,
        slot: str | None = None,
        soon: Callable[[], object] | None = None,
    ) -> Admitted:
        """A place to enter.

        `slot` is the engine's name of what takes one of its slots for adapters, None for the base. `soon`, which must
        not raise, is called at most once, while the request waits and its turn is near."""
        ...


class Replica(Protocol):
    """One ready engine. `url` is `http://host:port` (or https) without a path."""

    @property
    def id(self) -> str: ...

    @property
    def url(self) -> str: ...

    def suspect(self) -> None:
        """Tell that a connection failed, so that health is looked at now."""
        ...


class Fleet(Protocol):
    def pick(self, target: Target, avoid: Collection[str] = ()) -> Replica:
        """The ready replica that suits best; one not in `avoid` where there is one. Raises `EngineUnavailable`,
        with `retry_after_s`."""
        ...

    def begin(self, target: Target, replica_id: str) -> None:
        """Counts one more outstanding request for `target` on the replica, until `end`."""
        ...

    def end(self, target: Target, replica_id: str) -> None: ...


class Lease(Protocol):
    """A hold on a target on a replica."""

    async def begin(self) -> None:
        """Counts from before the first suspension, so a caller that resolves and begins without awaiting in between
        can not lose the version. Waits until the version is staged there; concurrent callers share one load. Where
        this raises, nothing is held. Raises `EngineError`, `StorageError`, `ArtifactError`."""
        ...

    def end(self) -> None: ...


class Leases(Protocol):
    def lease(self, target: Target, replica_id: str, end_request: Callable[[], object]) -> Lease:
        """`end_request` is called where the version must go and the request has outlasted its time. Raises
        `EngineUnavailable`."""
        ...

    def lease_now(self, target: Target, replica_id: str, end_request: Callable[[], object]) -> Lease | None:
        """A lease that has begun, where one is had at once. Memory only."""
        ...

    def staged(self, target: Target, replica_id: str) -> bool:
        """Whether a lease would be had at once. Memory only."""
        ...

    async def stage(self, target: Target, replica_id: str) -> None:
        """Load `target` on the replica. Raises what `lease` raises."""
        ...

    def foresee(self, target: Target, replica_id: str) -> None:
        """A request for `target` waits for its turn, and will probably run on the replica: what loading can be done
        meanwhile should begin. Returns at once; does not raise."""
        ...

    def lost(self, target: Target, replica_id: str) -> None:
        """The replica's engine says that it has no such adapter, whatever we thought: the next lease stages it
        anew."""
        ...


class Teller(Protocol):
    def tell(self, story: Story) -> None:
        """A request has ended, as its story says. Does not block or raise."""
        ...


class Recorder(Protocol):
    def record(self, record: RequestRecord) -> None:
        """Count a finished request: metrics, limits by use, last used. Must not block or raise."""
        ...
