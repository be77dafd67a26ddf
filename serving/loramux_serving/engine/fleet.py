"""The replicas of one base."""

from collections.abc import Callable, Collection, Sequence

from loramux_adapters.errors import EngineUnavailable, ReplicaNotFound
from loramux_adapters.model import Target
from loramux_serving.engine.replica import EngineReplica, ReplicaState, ReplicaStatus
from loramux_serving.routing import Candidate, choose

Holders = Callable[[str], Collection[str]]
"""From an engine name to the ids of the replicas whose engines hold it. Memory only."""

RETRY_AFTER_S = 2.0
STARTING_RETRY_AFTER_S = 5.0


class Fleet:
    """`relay.ports.Fleet`. One event loop."""

    def __init__(self, replicas: Sequence[EngineReplica], holders: Holders) -> None:
        self._replicas = {replica.id: replica for replica in replicas}
        self._holders = holders
        self._turn = 0

    def pick(self, target: Target, avoid: Collection[str] = ()) -> EngineReplica:
        """See `relay.ports.Fleet`."""
        holders = None if target.is_base else self._holders(target.engine_name)
        candidates = [
            Candidate(
                id=replica.id,
                ready=replica.state is ReplicaState.READY,
                resident=holders is None or replica.id in holders,
                outstanding=replica.outstanding,
            )
            for replica in self._replicas.values()
        ]
        chosen = choose(candidates, avoid=avoid, turn=self._turn)
        self._turn += 1
        if chosen is None:
            raise self._unavailable()
        return self._replicas[chosen]

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
        return sum(replica.state is ReplicaState.READY for replica in self._replicas.values())

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
