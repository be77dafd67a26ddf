"""What the admin interface says and hears. Times are Unix seconds, sizes bytes."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from loramux_adapters.model import Adapter, Alias, ApiKey, Failure, Operation, Role, Version
from loramux_serving.engine.replica import ReplicaStatus

Weight = Annotated[float, Field(gt=0.0, lt=1.0)]


class _Heard(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AddAdapter(_Heard):
    """`promote` true makes the version live when it is ready."""

    name: str
    source: str
    base: str | None = None
    pin: Literal["gpu", "cpu", "disk"] | None = None
    promote: bool = True
    wait: bool = False


class AddVersion(_Heard):
    """`promote`: true moves the live pointer, a weight starts a canary, false does neither."""

    source: str
    promote: bool | Weight = True
    wait: bool = False


class Promote(_Heard):
    version: int = Field(ge=1)


class Canary(_Heard):
    """`version` null ends the canary."""

    version: int | None = Field(None, ge=1)
    weight: float = 0.0


class Pin(_Heard):
    tier: Literal["gpu", "cpu", "disk"] = "cpu"


class Prefetch(_Heard):
    tier: Literal["gpu", "cpu", "disk"] = "cpu"


class SetAlias(_Heard):
    """`version` null: whatever is live."""

    adapter: str
    version: int | None = Field(None, ge=1)


class CreateKey(_Heard):
    """`adapters` are shell-style patterns of names, the base's among them; empty: all. A limit of null takes the
    gateway's default, 0 means no limit."""

    name: str = Field(min_length=1, max_length=128)
    role: Role = Role.INFERENCE
    adapters: list[str] = []
    requests_per_minute: int | None = Field(None, ge=0)
    tokens_per_minute: int | None = Field(None, ge=0)


class FailureView(BaseModel):
    code: str
    message: str
    retryable: bool

    @classmethod
    def of(cls, failure: Failure | None) -> "FailureView | None":
        if failure is None:
            return None
        return cls(code=failure.code, message=failure.message, retryable=failure.retryable)


class VersionView(BaseModel):
    number: int
    state: str
    reason: FailureView | None
    source: str
    sha256: str | None
    engine_name: str | None
    bytes: int | None
    rank: int | None
    alpha: float | None
    modules: list[str]
    dtype: str | None
    warnings: list[str]
    tiers: dict[str, str]
    """Best tier by replica; `disk` or `remote` where the engine does not hold it."""
    created_at: float
    ready_at: float | None

    @classmethod
    def of(cls, version: Version, tiers: dict[str, str]) -> "VersionView":
        info = version.info
        return cls(
            number=version.number,
            state=version.state,
            reason=FailureView.of(version.failure),
            source=version.source,
            sha256=version.digest,
            engine_name=version.engine_name,
            bytes=version.size_bytes,
            rank=info.rank if info else None,
            alpha=info.alpha if info else None,
            modules=list(info.target_modules) if info else [],
            dtype=info.dtype if info else None,
            warnings=list(info.warnings) if info else [],
            tiers=tiers,
            created_at=version.created_at,
            ready_at=version.ready_at,
        )


class CanaryView(BaseModel):
    version: int
    weight: float


class AdapterView(BaseModel):
    name: str
    base: str
    state: str
    """`ready`: has a live version; `arriving`, `failed`: has none yet; `deleting`."""
    reason: FailureView | None
    """Why the newest version failed, where it did."""
    live: int | None
    canary: CanaryView | None
    aliases: list[str]
    pin: str | None
    tiers: dict[str, str]
    requests: int
    """Since the gateway started."""
    last_used_at: float | None
    created_at: float
    updated_at: float
    versions: list[VersionView]

    @classmethod
    def of(
        cls,
        adapter: Adapter,
        *,
        state: str,
        versions: list[VersionView],
        aliases: list[str],
        requests: int,
        last_used_at: float | None,
    ) -> "AdapterView":
        live = next((version for version in versions if version.number == adapter.live), None)
        newest = versions[-1] if versions else None
        return cls(
            name=adapter.name,
            base=adapter.base,
            state=state,
            reason=newest.reason if newest else None,
            live=adapter.live,
            canary=None if adapter.canary is None else CanaryView(version=adapter.canary, weight=adapter.canary_weight),
            aliases=aliases,
            pin=adapter.pin,
            tiers=live.tiers if live else {},
            requests=requests,
            last_used_at=last_used_at,
            created_at=adapter.created_at,
            updated_at=adapter.updated_at,
            versions=versions,
        )


class AdapterPage(BaseModel):
    adapters: list[AdapterView]
    next_cursor: str | None
    total: int
    """Adapters that match the filters, on all pages."""


class OperationView(BaseModel):
    id: str
    kind: str
    adapter: str
    version: int | None
    state: str
    stage: str
    progress: float
    """From 0 to 1."""
    error: FailureView | None
    created_at: float
    finished_at: float | None

    @classmethod
    def of(cls, operation: Operation) -> "OperationView":
        return cls(
            id=operation.id,
            kind=operation.kind,
            adapter=operation.adapter,
            version=operation.version,
            state=operation.state,
            stage=operation.stage,
            progress=round(operation.progress, 3),
            error=FailureView.of(operation.failure),
            created_at=operation.created_at,
            finished_at=operation.finished_at,
        )


class Accepted(BaseModel):
    """Work that was acknowledged and goes on."""

    operation: OperationView


class AliasView(BaseModel):
    name: str
    adapter: str
    version: int | None
    created_at: float

    @classmethod
    def of(cls, alias: Alias) -> "AliasView":
        return cls(name=alias.name, adapter=alias.adapter, version=alias.version, created_at=alias.created_at)


class KeyView(BaseModel):
    id: str
    name: str
    role: str
    adapters: list[str]
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: float
    revoked_at: float | None

    @classmethod
    def of(cls, key: ApiKey) -> "KeyView":
        return cls(
            id=key.id,
            name=key.name,
            role=key.role,
            adapters=list(key.adapters),
            requests_per_minute=key.requests_per_minute,
            tokens_per_minute=key.tokens_per_minute,
            created_at=key.created_at,
            revoked_at=key.revoked_at,
        )


class NewKey(BaseModel):
    """The only time that the secret is shown."""

    id: str
    key: str


class ReplicaView(BaseModel):
    id: str
    url: str
    state: str
    detail: str
    outstanding: int
    restarts: int
    since: float
    capabilities: dict[str, Any] | None
    adapters: dict[str, str]
    """Tier by engine name, by the engine's own report."""

    @classmethod
    def of(cls, status: ReplicaStatus, adapters: dict[str, str]) -> "ReplicaView":
        return cls(
            id=status.id,
            url=status.url,
            state=status.state,
            detail=status.detail,
            outstanding=status.outstanding,
            restarts=status.restarts,
            since=status.since,
            capabilities=asdict(status.capabilities) if status.capabilities else None,
            adapters=adapters,
        )
