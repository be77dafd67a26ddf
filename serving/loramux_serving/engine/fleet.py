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
UNWANTED_RETRY_AFTER_S = 30.0


class Fleet:
    """`relay.ports.Fleet`. One event loop."""

    def __init__(self, replicas: Sequence[EngineReplica], tiers: Tiers, *, slots: int = sys.maxsize) -> None:
        """`slots` is how many adapters a replica runs at a time whose engine does not tell."""
        self._replicas = {replica.id: replica for replica in replicas}
        self._members = tuple(replicas)
        self._tiers = tiers
        self._slots = slots
        self._adapters: dict[str, dict[str, int]] = {replica.id: {} for replica in replicas}
        """By replica, how many requests are under way of each engine name. Where there is a single replica nothing is
        to be chosen, and nothing counted."""
        self._several = len(replicas) > 1
        self._single = replicas[0] if len(replicas) == 1 else None
        self._turn = 0

    def pick(self, target: Target, avoid: Collection[str] = ()) -> EngineReplica:
        """See `relay.ports.Fleet`."""
        single = self._single
        if single is not None and single.state is _READY:
            return single
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
        if self._several and target.version is not None:
            adapters = self._adapters[replica_id]
            adapters[target.engine_name] = adapters.get(target.engine_name, 0) + 1

    def end(self, target: Target, replica_id: str) -> None:
        """See `relay.ports.Fleet`."""
        self._replicas[replica_id].outstanding -= 1
        if self._several and target.version is not None:
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
        single = self._single
        if single is not None and single.state is _READY and single.capabilities is not None:
            return single.capabilities.max_loras or 1
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
        wanted = [replica for replica in self._members if replica.wanted]
        if not wanted:
            return EngineUnavailable(
                "No copy of the base is wanted, so none runs. Scale it up with `loramux replicas scale`, "
                "PUT /admin/v1/replicas, or the copy count of its inference component.",
                details={"wanted": 0},
                retry_after_s=UNWANTED_RETRY_AFTER_S,
            )
        if any(replica.state is ReplicaState.STARTING or _starts_anew(replica) for replica in wanted):
            return EngineUnavailable("The engine is starting.", retry_after_s=STARTING_RETRY_AFTER_S)
        details = [status.detail for status in self.statuses() if status.detail]
        reason = f" {details[0]}" if details else ""
        return EngineUnavailable(f"No engine is ready.{reason}", retry_after_s=RETRY_AFTER_S)


def _starts_anew(replica: EngineReplica) -> bool:
    """Whether its engine is to start, or to end and to start again."""
    return replica.leaving or replica.state is ReplicaState.STOPPED
