"""The replicas of one base."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence

from loramux_adapters.errors import EngineUnavailable, ReplicaNotFound
from loramux_adapters.model import Target, Tier
from loramux_serving.engine.replica import EngineReplica, ReplicaState, ReplicaStatus
from loramux_serving.routing import Candidate, choose

Tiers = Callable[[str], Mapping[str, Tier]]
"""From an engine name to where its weights are, by the id of each replica whose engine holds it. Memory only."""

_READY = ReplicaState.READY

RETRY_AFTER_S = 2.0
STARTING_RETRY_AFTER_S = 5.0


class Fleet:
    """`relay.ports.Fleet`. One event loop."""

    def __init__(self, replicas: Sequence[EngineReplica], tiers: Tiers, *, slots: int = sys.maxsize) -> None:
        """`slots` is how many adapters a replica runs at a time whose engine does not tell."""
        self._replicas = {replica.id: replica for replica in replicas}
        self._members = tuple(replicas)
        self._tiers = tiers
        self._slots = slots
        self._adapters: dict[str, dict[str, int]] = {replica.id: {} for replica in replicas}
        """By replica, how many requests are under way of each engine name."""
        self._turn = 0

    def pick(self, target: Target, avoid: Collection[str] = ()) -> EngineReplica:
        """See `relay.ports.Fleet`."""
        if len(self._members) == 1 and self._members[0].state is _READY:
            return self._members[0]
        tiers = {} if target.is_base else self._tiers(target.engine_name)
        candidates = [self._candidate(replica, target, tiers) for replica in self._replicas.values()]
        chosen = choose(candidates, avoid=avoid, turn=self._turn)
        self._turn += 1
        if chosen is None:
            raise self._unavailable()
        return self._replicas[chosen]

    def begin(self, target: Target, replica_id: str) -> None:
        """See `relay.ports.Fleet`."""
        self._replicas[replica_id].outstanding += 1
        if target.version is not None:
            adapters = self._adapters[replica_id]
            adapters[target.engine_name] = adapters.get(target.engine_name, 0) + 1

    def end(self, target: Target, replica_id: str) -> None:
        """See `relay.ports.Fleet`."""
        self._replicas[replica_id].outstanding -= 1
        if target.version is not None:
            adapters = self._adapters[replica_id]
            left = adapters[target.engine_name] - 1
            if left:
                adapters[target.engine_name] = left
            else:
                del adapters[target.engine_name]

    def slots(self) -> int:
        """How many adapters the ready replicas can run at a time, each on one of them; those of one replica while
        none is ready. An adapter that runs on several of them takes as many: so when all are in use, no replica has
        more adapters than its engine takes into a batch."""
        total = ready = 0
        for replica in self._members:
            if replica.state is _READY:
                known = replica.capabilities
                total += self._slots if known is None else known.max_loras
                ready += 1
        if ready > 1:
            total -= self._doubles()
        return (total if total > 0 else 1) if ready else self._slots

    def _candidate(self, replica: EngineReplica, target: Target, tiers: Mapping[str, Tier]) -> Candidate:
        ready = replica.state is _READY
        if target.is_base or not ready:
            return Candidate(replica.id, ready, Tier.GPU if target.is_base else None, replica.outstanding)
        adapters = self._adapters[replica.id]
        runs = target.engine_name in adapters
        return Candidate(
            id=replica.id,
            ready=True,
            tier=Tier.GPU if runs else tiers.get(replica.id),
            outstanding=replica.outstanding,
            adapters=len(adapters) - runs,
            slots=self._slots_of(replica),
        )

    def _slots_of(self, replica: EngineReplica) -> int:
        return self._slots if replica.capabilities is None else replica.capabilities.max_loras

    def _doubles(self) -> int:
        """Over all adapters, the ready replicas that run it beyond the first."""
        running = [
            adapters for id, each in self._replicas.items() if each.state is _READY and (adapters := self._adapters[id])
        ]
        return sum(map(len, running)) - len(set().union(*running)) if len(running) > 1 else 0

    def drain(self, replica_id: str) -> None:
        """Give a replica no further requests; those under way go on. It lasts until `undrain`, restarts included.
        Raises `ReplicaNotFound`."""
        self._replica(replica_id).drain(True)

    def undrain(self, replica_id: str) -> None:
        """Raises `ReplicaNotFound`."""
        self._replica(replica_id).drain(False)

    def statuses(self) -> tuple[ReplicaStatus, ...]:
        """Of all replicas, in the order in which they were given."""
        return tuple(replica.status() for replica in self._replicas.values())

    def ready(self) -> bool:
        """Whether a request could be served now."""
        return self.count_ready() > 0

    def count_ready(self) -> int:
        count = 0
        for replica in self._members:  # on the hot path: no generator
            if replica.state is _READY:
                count += 1
        return count

    def _replica(self, replica_id: str) -> EngineReplica:
        replica = self._replicas.get(replica_id)
        if replica is None:
            raise ReplicaNotFound(f"There is no replica {replica_id!r}.")
        return replica

    def _unavailable(self) -> EngineUnavailable:
        states = {replica.state for replica in self._replicas.values()}
        if ReplicaState.STARTING in states:
            return EngineUnavailable("The engine is starting.", retry_after_s=STARTING_RETRY_AFTER_S)
        details = [status.detail for status in self.statuses() if status.detail]
        reason = f" {details[0]}" if details else ""
        return EngineUnavailable(f"No engine is ready.{reason}", retry_after_s=RETRY_AFTER_S)
