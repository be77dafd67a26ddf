"""What the relay needs of the rest of the gateway."""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from loramux_adapters.model import Role, Target


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


Outcome = Literal["ok", "client_error", "engine_error", "rejected", "cancelled", "interrupted"]
"""`rejected`: refused by auth, limits or the queue; `cancelled`: the caller left; `interrupted`: the engine broke off
after the answer had begun."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One finished inference request. `adapter` and `version` are None where it never came to a target. Times are
    seconds since the request's end reached the gateway; None where that point was not reached."""

    request_id: str
    endpoint: str
    key_id: str | None
    adapter: str | None
    version: int | None
    replica: str | None
    status: int
    outcome: Outcome
    streamed: bool
    duration_s: float
    queue_s: float | None = None
    ttft_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error_code: str | None = None


class Authenticator(Protocol):
    def authenticate(self, authorization: str | None) -> Principal:
        """From the value of the `Authorization` header. Memory only. Raises `Unauthenticated`."""
        ...

    def require_adapter(self, principal: Principal, name: str) -> None:
        """Raises `Forbidden` where the key is not for the adapter (or base) `name`."""
        ...


class Names(Protocol):
    def resolve(self, model: str, sticky: str | None = None, key_id: str | None = None) -> Target:
        """What the name means now. Memory only. Raises `ModelNotFound`. `sticky` keeps a caller on one side of a
        canary split; without it `key_id` does, where the canary goes by the caller's key."""
        ...


class Admitted(Protocol):
    """A place at the engines. `waited_s` is the time in the queue."""

    @property
    def waited_s(self) -> float: ...

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
    ) -> AbstractAsyncContextManager[Admitted]:
        """Wait for a place, fairly between adapters; the place is given back on exit. Raises `RateLimited`,
        `QueueFull`, `QueueTimeout`, each with `retry_after_s`.

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

    def request(self, target: Target, replica_id: str) -> AbstractContextManager[None]:
        """Counts one outstanding request for `target` on the replica."""
        ...


class Leases(Protocol):
    def lease(self, target: Target, replica_id: str) -> AbstractAsyncContextManager[None]:
        """Hold `target` on the replica. The hold counts from before the first suspension of `__aenter__`, so a
        caller that resolves and enters without awaiting in between can not lose the version. Entering waits until
        the version is staged there; concurrent callers share one load. Raises `EngineError`, `StorageError`,
        `ArtifactError`."""
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


class Recorder(Protocol):
    def record(self, record: RequestRecord) -> None:
        """Count a finished request: metrics, limits by use, last used. Must not block or raise."""
        ...
