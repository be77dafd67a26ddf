"""One replica as the rest of the gateway sees it: who it is, where it is, and how it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from loramux_adapters.model import Capabilities
from loramux_adapters.ports import Clock


class ReplicaState(StrEnum):
    """`starting → ready ⇄ draining`, `failed` while it does not run or answer, and `stopped` while it is not wanted:
    `stopped → starting` when it is, and `draining → stopped` when it is no more."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A replica at one moment. `since` is when the state began, Unix seconds; `detail` says why it is not ready;
    `log` holds the engine's last lines, oldest first, where loramux runs it."""

    id: str
    url: str
    state: ReplicaState
    since: float
    restarts: int
    outstanding: int
    detail: str = ""
    code: str | None = None
    capabilities: Capabilities | None = None
    log: tuple[str, ...] = ()


class EngineReplica:
    """`relay.ports.Replica`. Its supervisor writes, everybody reads; one event loop."""

    def __init__(self, replica_id: str, *, clock: Clock, url: str = "") -> None:
        self.id = replica_id
        self._clock = clock
        self.url = url
        """`http://host:port`. Changes where an engine is started again on another port."""
        self.outstanding = 0
        """Requests that are with its engine. The fleet counts them."""
        self.capabilities: Capabilities | None = None
        self.restarts = 0
        self.log: Callable[[], Sequence[str]] = tuple
        self.state = ReplicaState.STARTING
        """Of the engine, but `draining` where a ready one shall get no requests, and where one that runs is to stop.
        Others read it only."""
        self.engine_state = ReplicaState.STARTING
        """Of the engine alone. Others read it only."""
        self.wanted = True
        """Whether it is meant to run. Others read it only."""
        self.leaving = False
        """Whether its engine is being ended because it was not wanted. That is not taken back: if it is wanted again,
        its engine is started anew. Others read it only."""
        self._since = clock.now()
        self._detail = ""
        self._code: str | None = None
        self._draining = False
        self._on_suspect: Callable[[], None] | None = None
        self._on_ready: Callable[[], None] | None = None
        self._on_failed: Callable[[], None] | None = None

    def suspect(self) -> None:
        if self._on_suspect is not None:
            self._on_suspect()

    def when_suspected(self, call: Callable[[], None]) -> None:
        self._on_suspect = call

    def when_ready(self, call: Callable[[], None]) -> None:
        """`call` hears each time that the replica begins to take requests."""
        self._on_ready = call

    def when_failed(self, call: Callable[[], None]) -> None:
        """`call` hears each time that its engine fails."""
        self._on_failed = call

    def become(self, state: ReplicaState, detail: str = "", code: str | None = None) -> None:
        """Change what its engine is. A drain outlasts this."""
        before = self.engine_state
        if state is not before:
            self._since = self._clock.now()
        self.engine_state, self._detail, self._code = state, detail, code
        if state is ReplicaState.STOPPED:
            self.leaving = False
        self._update()
        if state is ReplicaState.FAILED and before is not state and self._on_failed is not None:
            self._on_failed()

    def want(self, on: bool) -> None:
        """Mean it to run, or to stop: from here on it gets no further requests. Those under way go on. Starting and
        stopping its engine is its caller's part."""
        if on is not self.wanted:
            self.wanted = on
            self._since = self._clock.now()
        self._update()

    def leave(self) -> None:
        """Its engine is about to be ended, until it is `stopped`."""
        self.leaving = True
        self._update()

    @property
    def drained(self) -> bool:
        """Whether an operator gives it no requests."""
        return self._draining

    def drain(self, on: bool) -> None:
        """Give it no further requests (`on`), or some again. Requests under way go on."""
        if on is not self._draining:
            self._draining = on
            self._since = self._clock.now()
        self._update()

    def _update(self) -> None:
        before = self.state
        if self.engine_state is ReplicaState.STOPPED:
            drains = False
        elif self.leaving or not self.wanted:
            drains = True
        else:
            drains = self._draining and self.engine_state is ReplicaState.READY
        self.state = ReplicaState.DRAINING if drains else self.engine_state
        if self.state is ReplicaState.READY and before is not ReplicaState.READY and self._on_ready is not None:
            self._on_ready()

    def status(self) -> ReplicaStatus:
        return ReplicaStatus(
            id=self.id,
            url=self.url,
            state=self.state,
            since=self._since,
            restarts=self.restarts,
            outstanding=self.outstanding,
            detail=self._detail,
            code=self._code,
            capabilities=self.capabilities,
            log=tuple(self.log()),
        )
