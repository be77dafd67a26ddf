"""What the domain needs from outside, as Protocols. Concrete classes are named only in `bootstrap.py`.

Ports of blocking resources (disk, SQL) are synchronous and are called from worker threads; ports of remote
processes (the engine) are asynchronous. Every implementation, fakes included, passes its port's contract suite
under `tests/contract/`.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal, Protocol

from loramux_adapters.model import (
    Adapter,
    Alias,
    ApiKey,
    Artifact,
    CanaryEnd,
    CanaryRule,
    Capabilities,
    Failure,
    Operation,
    RegistryState,
    Resident,
    Resource,
    ResourceKind,
    Sticky,
    Tier,
    Version,
)

Progress = Callable[[int, int | None], None]
"""Called with bytes done and bytes in all (None: unknown), from the thread that does the work."""


class Clock(Protocol):
    def now(self) -> float:
        """Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class ArtifactSource(Protocol):
    """One kind of place that adapters come from: a path, S3, a hub, an upload."""

    def check(self, source: str) -> None:
        """Raises `SourceNotAllowed` or `RequestInvalid` where `source` may not or can not be fetched. No I/O
        beyond resolving local paths."""
        ...

    def fetch(self, source: str, into: Path, progress: Progress) -> None:
        """Put the adapter's files at `source` into the empty directory `into`, archives unpacked, its
        `adapter_config.json` at the top. May block. Raises `ArtifactError` or `StorageError`; what it left in
        `into` is then removed by the caller."""
        ...

    def forget(self, source: str) -> None:
        """Nothing will fetch `source` again: an upload's file is deleted, other places are left alone."""
        ...


class ArtifactStore(Protocol):
    """The disk tier: content-addressed, bounded in bytes. Survives restarts; partial files never count."""

    def get(self, digest: str) -> Artifact | None:
        """The artifact if it is whole on disk. Marks it as just used."""
        ...

    def workdir(self) -> Path:
        """A new empty directory on the store's own file system, removed by `discard` or at the next start."""
        ...

    def discard(self, workdir: Path) -> None: ...

    def commit(self, workdir: Path, keep: Collection[str]) -> Artifact:
        """Move a validated directory into the store, whole or not at all, durable on return, and give its digest.
        Known content is shared. Evicts the least recently used artifacts whose digest is not in `keep` until the
        new one fits; raises `StorageFull` where it can not, and then nothing was lost."""
        ...

    def remove(self, digest: str) -> None:
        """Delete; no error where it is absent."""
        ...

    def entries(self) -> Sequence[Artifact]:
        """All whole artifacts, least recently used first."""
        ...

    def size_bytes(self) -> int: ...


class RegistryStore(Protocol):
    """The registry in SQL. Each method is one transaction: it happens whole and durably, or raises and nothing
    happened. Raises `StorageError` where the database does not answer, and what each method names."""

    def state(self, since: RegistryState | None = None) -> RegistryState:
        """What there is now. With an earlier state of the same registry, only what changed after it is read."""
        ...

    def create_adapter(
        self, name: str, base: str, source: str, *, promote: bool | float, pin: Tier | None, now: float
    ) -> tuple[Adapter, Version, Operation]:
        """A new adapter with version 1 `pending` and its operation. An adapter that exists, but has neither a live
        nor an arriving version, takes a further version. Raises `NameTaken` (adapter or alias), `AdapterBusy`."""
        ...

    def create_version(
        self, adapter: str, source: str, *, promote: bool | float, now: float
    ) -> tuple[Version, Operation]:
        """Raises `AdapterNotFound`, `AdapterBusy`."""
        ...

    def save_version(self, version: Version) -> None:
        """Write all of an arriving version's mutable fields (state, digest, size, info, failure, ready_at). Raises
        `AdapterNotFound`, `VersionNotFound`, `AdapterBusy`, and `Conflict` where it arrives no more."""
        ...

    def finish_version(self, operation_id: str, version: Version, now: float) -> Adapter:
        """One transaction: the version is saved as `ready`, the operation succeeds, and the pointer moves as the
        operation's `promote` says. A first ready version becomes live unless `promote` is False. An adapter with
        a later version already live does not go back: then the pointer stays, and no canary begins. No effect where
        the operation has succeeded already. Raises `AdapterNotFound`, `VersionNotFound`, `AdapterBusy`,
        `Conflict`."""
        ...

    def fail_version(self, operation_id: str, adapter: str, number: int, failure: Failure, now: float) -> None:
        """The version becomes `failed`, the operation too."""
        ...

    def promote(self, adapter: str, number: int, now: float) -> Adapter:
        """Make a ready version live; a canary of that version ends. Raises `AdapterNotFound`, `VersionNotFound`,
        `VersionNotReady`, `AdapterBusy`."""
        ...

    def rollback_target(self, adapter: str) -> int:
        """The version that was live before the live one and is still ready. Raises `NoPreviousVersion`."""
        ...

    def rollback(self, adapter: str, now: float) -> Adapter:
        """Make `rollback_target` live and take the step back in the history: a second call goes back one more."""
        ...

    def set_canary(
        self,
        adapter: str,
        number: int | None,
        weight: float,
        now: float,
        *,
        sticky: Sticky = Sticky.REQUEST,
        rule: CanaryRule | None = None,
    ) -> Adapter:
        """Begin a canary, in the place of one that there is, or end it (`number` None). Raises what `promote` raises,
        and `RequestInvalid` where no other version is live."""
        ...

    def end_canary(self, adapter: str, since: float, end: CanaryEnd, now: float) -> Adapter | None:
        """End the canary of `end.version` whose `canary_since` is `since`, as `end` says. None, and no effect, where
        it is another one by now, or none. Raises what `promote` raises."""
        ...

    def set_pin(self, adapter: str, pin: Tier | None, now: float) -> Adapter: ...

    def create_alias(self, name: str, adapter: str, version: int | None, now: float) -> Alias:
        """Make or move an alias. Raises `NameTaken` where `name` is an adapter's, `AdapterNotFound`,
        `VersionNotFound`."""
        ...

    def delete_alias(self, name: str) -> None:
        """Raises `AliasNotFound`."""
        ...

    def begin_delete_adapter(self, name: str, now: float) -> Operation:
        """The adapter becomes `deleting`, its aliases go, its versions drain. Raises `AdapterNotFound`. Called
        again, it returns the operation under way, or a new one where that failed."""
        ...

    def finish_delete_adapter(self, operation_id: str, name: str, now: float) -> None:
        """Remove the adapter and its versions; the operation succeeds. No effect where it has ended."""
        ...

    def begin_delete_version(self, adapter: str, number: int, now: float) -> Operation:
        """Raises `VersionInUse` where it is live, canary or aliased, `VersionNotFound`, and `Conflict` while it
        is arriving or being deleted already; where that failed, it is begun anew."""
        ...

    def finish_delete_version(self, operation_id: str, adapter: str, number: int, now: float) -> None:
        """The version becomes `deleted` (its number is never given again); the operation succeeds. No effect where
        it has ended."""
        ...

    def operation(self, operation_id: str) -> Operation:
        """Raises `OperationNotFound`."""
        ...

    def unfinished_operations(self) -> Sequence[Operation]:
        """Oldest first."""
        ...

    def start_operation(self, operation_id: str) -> None: ...

    def fail_operation(self, operation_id: str, failure: Failure, now: float) -> None: ...


class KeyStore(Protocol):
    """Callers' keys in SQL, as `RegistryStore` keeps the rest. Raises `StorageError`."""

    def create_key(self, key: ApiKey) -> None: ...

    def list_keys(self) -> Sequence[ApiKey]:
        """All, revoked ones too, oldest first."""
        ...

    def revoke_key(self, key_id: str, now: float) -> ApiKey:
        """Raises `KeyNotFound`."""
        ...


class CreateAdapter(Protocol):
    """`RegistryStore.create_adapter`, or what does more in the same transaction."""

    def __call__(
        self, name: str, base: str, source: str, *, promote: bool | float, pin: Tier | None, now: float
    ) -> tuple[Adapter, Version, Operation]: ...


class ResourceStore(Protocol):
    """What SageMaker's interface keeps beside the registry, in the same database. Each method is one transaction, as
    in `RegistryStore`. Raises `StorageError`."""

    def resources(self) -> Sequence[Resource]:
        """All, oldest first."""
        ...

    def create_resource(self, resource: Resource) -> None:
        """Raises `NameTaken` where there is one of this kind and name."""
        ...

    def save_resource(self, resource: Resource) -> None:
        """Write its body, state, tags and `updated_at`. No effect where it is gone."""
        ...

    def delete_resource(self, kind: ResourceKind, name: str) -> None:
        """No error where it is gone."""
        ...

    def create_adapter(
        self,
        resource: Resource,
        name: str,
        base: str,
        source: str,
        *,
        promote: bool | float,
        pin: Tier | None,
        now: float,
    ) -> tuple[Adapter, Version, Operation]:
        """An adapter, and a resource of its name that ends with it. As `RegistryStore.create_adapter`, but for an
        adapter that exists, of whatever state: raises `NameTaken`, or `AdapterBusy` while that is being deleted."""
        ...

    def keep_adapter(self, resource: Resource) -> None:
        """Create or save a resource that adds to the adapter of its name. No effect where there is no such
        adapter."""
        ...


LoadOutcome = Literal["ok", "failed"]


class TierObserver(Protocol):
    """Hears of every move between tiers. Must not block or raise."""

    def adapter_loaded(self, source: Tier, target: Tier, outcome: LoadOutcome, seconds: float) -> None:
        """A move up: from remote to disk, from disk to host memory or on into a slot, from host memory into a slot.
        `seconds` is how long it was under way, without the wait for room."""
        ...

    def adapter_evicted(self, tier: Tier, reason: str, seconds: float | None = None) -> None:
        """Something left a slot (`gpu`) and stays in host memory, or left the engine (`cpu`). `seconds` is how long it
        was under way; None of a slot, which is left when the next adapter comes: that is the move that takes time."""
        ...


class LoraEngine(Protocol):
    """One replica's engine. Raises `EngineUnavailable`, `EngineTimeout`, `EngineFailed`."""

    @property
    def replica_id(self) -> str: ...

    async def capabilities(self) -> Capabilities: ...

    async def load(self, engine_name: str, path: Path, *, tier: Tier = Tier.GPU, keep: Collection[str] = ()) -> None:
        """Make the adapter answer under `engine_name`, its weights in `tier` (`cpu` or `gpu`) or above. No effect where
        it already does from that path. With `staging`, warm traffic does not wait for it; a slot is taken as by
        `activate`, and where there is none it stays in host memory. Without, it goes into a slot whatever `tier` says.
        Raises `EngineRejected` where the engine refuses it."""
        ...

    async def activate(self, engine_name: str, *, keep: Collection[str] = ()) -> bool:
        """Move it from host memory into a slot: a free one, or that of the least recently used adapter which is neither
        in `keep`, nor pinned there, nor running. True where it is in a slot now. False where there is none, or without
        `staging`: the engine then does it itself, within the step of the first request that runs on it. Raises
        `EngineRejected` where the engine does not have it."""
        ...

    async def deactivate(self, engine_name: str) -> None:
        """Give its slot back; the weights stay in host memory. No effect where it is in no slot, is running, or
        without `staging`."""
        ...

    async def pin(self, engine_name: str, tier: Tier) -> None:
        """The engine itself keeps it in `tier` (`cpu`, or `gpu` after moving it there) or above. At most
        `max_loras - 1` are pinned in slots: raises `EngineRejected` beyond, and where the engine does not have it. No
        effect without `staging`."""
        ...

    async def unpin(self, engine_name: str) -> None:
        """No error where it is not pinned or not there."""
        ...

    async def evict(self, engine_name: str) -> None:
        """Forget the name and free its weights. No error where it is not there. The caller makes sure that no
        request uses it."""
        ...

    async def residents(self) -> Sequence[Resident]:
        """What the engine holds now, by its own lists."""
        ...
