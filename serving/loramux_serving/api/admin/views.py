"""What the admin interface says and hears. Times are Unix seconds, sizes bytes."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from loramux_adapters.model import (
    Adapter,
    Alias,
    ApiKey,
    CanaryEnd,
    CanaryFigures,
    CanaryRule,
    Failure,
    Operation,
    Resident,
    Role,
    Sticky,
    Tier,
    Version,
)
from loramux_serving.engine.replica import ReplicaStatus
from loramux_serving.whereabouts import Held, Occupancy, host, in_order, slots

LARGEST = 2**31 - 1
"""What a column of the registry can hold."""
Number = Annotated[int, Field(ge=1, le=LARGEST)]
Limit = Annotated[int, Field(ge=0, le=LARGEST)]
Weight = Annotated[float, Field(gt=0.0, lt=1.0)]


class _Heard(BaseModel):
    """Neither `"2"` nor true is the number of a version."""

    model_config = ConfigDict(extra="forbid", strict=True)


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
    version: Number


class Rule(_Heard):
    """When a canary ends by itself: see `model.CanaryRule`."""

    window_s: float = 300.0
    min_requests: Number = 50
    max_error_rate: float | None = None
    max_p95_s: float | None = None
    max_p95_ratio: float | None = None
    promote_after_s: float | None = None

    def rule(self) -> CanaryRule:
        return CanaryRule(**self.model_dump())


class Canary(_Heard):
    """`version` null ends the canary. A call says all of it: what it leaves out is as by default."""

    version: Number | None = None
    weight: float = 0.0
    sticky: Sticky = Field(Sticky.REQUEST, strict=False)
    rule: Rule | None = None


class Pin(_Heard):
    tier: Literal["gpu", "cpu", "disk"] = "cpu"


class Prefetch(_Heard):
    tier: Literal["gpu", "cpu", "disk"] = "cpu"


class SetAlias(_Heard):
    """`version` null: whatever is live."""

    adapter: str
    version: Number | None = None


class CreateKey(_Heard):
    """`adapters` are shell-style patterns of names, the base's among them; empty: all. A limit of null takes the
    gateway's default, 0 means no limit. `aws`: a key to sign requests with, for SageMaker's clients."""

    name: str = Field(min_length=1, max_length=128)
    role: Role = Field(Role.INFERENCE, strict=False)
    adapters: list[str] = []
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    aws: bool = False


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


class RuleView(BaseModel):
    window_s: float
    min_requests: int
    max_error_rate: float | None
    max_p95_s: float | None
    max_p95_ratio: float | None
    promote_after_s: float | None


class FiguresView(BaseModel):
    """What a canary and the live version did within the rule's window. A p95 is null where nothing was answered."""

    requests: int
    errors: int
    p95_s: float | None
    live_requests: int
    live_errors: int
    live_p95_s: float | None

    @classmethod
    def of(cls, figures: CanaryFigures | None) -> "FiguresView | None":
        return None if figures is None else cls(**asdict(figures))


class CanaryView(BaseModel):
    version: int
    weight: float
    sticky: Sticky = Sticky.REQUEST
    since: float | None = None
    """When it began, or when the version that is live beside it did."""
    rule: RuleView | None = None
    figures: FiguresView | None = None
    """Null without a rule."""

    @classmethod
    def of(cls, adapter: Adapter, figures: CanaryFigures | None) -> "CanaryView | None":
        if adapter.canary is None:
            return None
        return cls(
            version=adapter.canary,
            weight=adapter.canary_weight,
            sticky=adapter.canary_sticky,
            since=adapter.canary_since,
            rule=None if adapter.canary_rule is None else RuleView(**asdict(adapter.canary_rule)),
            figures=FiguresView.of(figures),
        )


class CanaryEndView(BaseModel):
    """How the last canary ended. `promoted` false: all requests went back to the live version."""

    version: int
    promoted: bool
    by_rule: bool
    reason: str
    at: float
    figures: FiguresView | None
    """Those that decided; null where somebody ended it by hand."""

    @classmethod
    def of(cls, end: CanaryEnd | None) -> "CanaryEndView | None":
        if end is None:
            return None
        return cls(
            version=end.version,
            promoted=end.promoted,
            by_rule=end.by_rule,
            reason=end.reason,
            at=end.at,
            figures=FiguresView.of(end.figures),
        )


class ResidencyView(BaseModel):
    """A version on one replica. `bytes` and `pin` are the engine's own: what the weights take in its memory, and the
    tier below which it does not let them fall; null where it holds nothing."""

    tier: str
    bytes: int | None
    pin: str | None
    age_s: float
    """Of the replica's report."""

    @classmethod
    def of(cls, tier: Tier, resident: Resident | None, age_s: float) -> "ResidencyView":
        if resident is None or tier is not resident.tier:
            resident = None
        return cls(
            tier=tier,
            bytes=resident.size_bytes or None if resident else None,
            pin=resident.pin if resident else None,
            age_s=round(age_s, 3),
        )


class AdapterView(BaseModel):
    name: str
    base: str
    state: str
    """`ready`: has a live version; `arriving`, `failed`: has none yet; `deleting`."""
    reason: FailureView | None
    """Why the newest version failed, where it did."""
    live: int | None
    previous: int | None = None
    """Where a rollback leads."""
    canary: CanaryView | None
    canary_end: CanaryEndView | None = None
    """Null once another canary has begun."""
    aliases: list[str]
    pin: str | None
    tiers: dict[str, str]
    residency: dict[str, ResidencyView]
    """Of the live version, by replica, as `tiers`."""
    running: int
    """Requests that have a place now; `queued` wait for one."""
    queued: int
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
        figures: CanaryFigures | None,
        residency: dict[str, ResidencyView],
        aliases: list[str],
        running: int,
        queued: int,
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
            previous=adapter.previous,
            canary=CanaryView.of(adapter, figures),
            canary_end=CanaryEndView.of(adapter.canary_end),
            aliases=aliases,
            pin=adapter.pin,
            tiers=live.tiers if live else {},
            residency=residency,
            running=running,
            queued=queued,
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
    access_key_id: str | None = None
    """Of a key to sign with; null: the key is sent."""

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
            access_key_id=key.access_key_id,
        )


class NewKey(BaseModel):
    """The only time that the secret is shown."""

    id: str
    key: str


class NewAwsKey(BaseModel):
    """Likewise."""

    id: str
    access_key_id: str
    secret_access_key: str


class OccupancyView(BaseModel):
    """`total` is what there is room for, `pinned` how many the engine itself keeps there."""

    used: int
    total: int
    pinned: int

    @classmethod
    def of(cls, found: Occupancy, total: int) -> "OccupancyView":
        return cls(used=found.used, total=total, pinned=found.pinned)


class HostView(OccupancyView):
    """What is in a slot keeps its copy in host memory, and counts here too."""

    bytes: int

    @classmethod
    def of(cls, found: Occupancy, total: int) -> "HostView":
        return cls(used=found.used, total=total, pinned=found.pinned, bytes=found.size_bytes)


class ResidentView(BaseModel):
    """An adapter that an engine knows. `adapter` is null where the registry does not know the name."""

    engine_name: str
    adapter: str | None
    tier: str
    bytes: int | None
    pin: str | None

    @classmethod
    def of(cls, resident: Resident, adapter: str | None) -> "ResidentView":
        return cls(
            engine_name=resident.engine_name,
            adapter=adapter,
            tier=resident.tier,
            bytes=resident.size_bytes or None,
            pin=resident.pin,
        )


class WorkerView(BaseModel):
    """`index` is its place: where a worker drains, its successor has the same."""

    index: int
    pid: int
    state: str
    since: float
    requests: int
    """Those that wait or run."""


class Scale(_Heard):
    """How many replicas are to run."""

    wanted: Limit


class FleetView(BaseModel):
    """`wanted` replicas are meant to run, `ready` take requests, and at most `limit` can run."""

    wanted: int
    ready: int
    limit: int
    replicas: list["ReplicaView"]


class ReplicaView(BaseModel):
    id: str
    url: str
    state: str
    detail: str
    outstanding: int
    restarts: int
    since: float
    capabilities: dict[str, Any] | None
    staging: bool | None
    """Whether adapters are loaded beside the engine's steps. Null before the engine has told what it can do."""
    slots: OccupancyView | None
    """Null where the replica is not in service, or its engine does not tell."""
    host: HostView | None
    report_age_s: float | None
    """Age of the engine's report, from which tiers are told. Null where the replica is not in service."""
    adapters: dict[str, str]
    """Tier by engine name, by the engine's own report."""
    residents: list[ResidentView]
    """The same with details: nearest tier first, and within it what was used the longest time ago."""

    @classmethod
    def of(cls, status: ReplicaStatus, held: Held | None, adapter_of: Mapping[str, str]) -> "ReplicaView":
        able = status.capabilities
        residents = in_order(held.residents) if held else []
        # An engine without the plugin names adapters, and says nothing of slots.
        tells = able is not None and able.evict and held is not None
        return cls(
            id=status.id,
            url=status.url,
            state=status.state,
            detail=status.detail,
            outstanding=status.outstanding,
            restarts=status.restarts,
            since=status.since,
            capabilities=asdict(able) if able else None,
            staging=able.staging if able else None,
            slots=OccupancyView.of(slots(residents), able.max_loras) if able and tells else None,
            host=HostView.of(host(residents), able.max_cpu_loras) if able and held else None,
            report_age_s=round(held.age_s, 3) if held else None,
            adapters={resident.engine_name: resident.tier for resident in residents},
            residents=[ResidentView.of(each, adapter_of.get(each.engine_name)) for each in residents],
        )
