"""The nouns of loramux, frozen. DESIGN section 3 says what each one means; times are Unix seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

UPLOAD_SCHEME = "upload:"
"""Begins the source of an adapter that was sent as a body: once it is in the disk tier, there is no other copy."""


class Tier(StrEnum):
    """Where a version's weights are, best first."""

    GPU = "gpu"
    CPU = "cpu"
    DISK = "disk"
    REMOTE = "remote"

    def __init__(self, _value: str) -> None:
        self.depth = len(type(self).__members__)
        """0 for the best, and one more for each after it."""


class VersionState(StrEnum):
    """`pending → fetching → validating → staging → ready → draining → deleted`, or `failed` from the first four."""

    PENDING = "pending"
    FETCHING = "fetching"
    VALIDATING = "validating"
    STAGING = "staging"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"
    DELETED = "deleted"

    @property
    def arriving(self) -> bool:
        """True while the version is on its way to `ready`."""
        return self in _ARRIVING


_ARRIVING = frozenset({VersionState.PENDING, VersionState.FETCHING, VersionState.VALIDATING, VersionState.STAGING})


class Sticky(StrEnum):
    """What keeps a caller on one side of a canary where it sends no text of its own: nothing, so that each request
    draws anew, or its API key."""

    REQUEST = "request"
    KEY = "key"


class AdapterState(StrEnum):
    ACTIVE = "active"
    DELETING = "deleting"


class OperationKind(StrEnum):
    ADD = "add"
    UPDATE = "update"
    DELETE_ADAPTER = "delete_adapter"
    DELETE_VERSION = "delete_version"


class OperationState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        return self in (OperationState.SUCCEEDED, OperationState.FAILED)


class Role(StrEnum):
    INFERENCE = "inference"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed: a code of `errors` and one sentence."""

    code: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What validation needs to know of a base.

    `modules` maps each linear layer's name as PEFT writes it without its prefix
    (`model.layers.0.self_attn.q_proj`) to `(out_features, in_features)`.
    """

    name: str
    modules: Mapping[str, tuple[int, int]]
    max_lora_rank: int
    vocab_size: int


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What validation found in an adapter that fits its base."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    dtype: str
    parameters: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """One immutable artifact on local disk: a directory that holds `adapter_config.json`,
    `adapter_model.safetensors`, and the disk tier's own note of their sizes. `digest` is the sha256 (64 hex digits)
    of its canonical content."""

    digest: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version of an adapter. `digest`, `engine_name` and `info` are set from `staging` on."""

    adapter: str
    number: int
    state: VersionState
    source: str
    created_at: float
    digest: str | None = None
    size_bytes: int | None = None
    info: AdapterInfo | None = None
    failure: Failure | None = None
    ready_at: float | None = None

    @property
    def engine_name(self) -> str | None:
        """Name in the engine: `<adapter>@<first 12 of sha256>`; None before the content is known."""
        return None if self.digest is None else engine_name(self.adapter, self.digest)


def engine_name(adapter: str, digest: str) -> str:
    return f"{adapter}@{digest[:12]}"


@dataclass(frozen=True, slots=True)
class CanaryRule:
    """When a canary ends by itself. Its limits hold over the last `window_s`, once `min_requests` were answered
    within it. Errors are answers that the engine failed or broke off; times are from a request's end to the last
    byte of its whole answer. None: no such limit, or no promotion.

    `max_p95_ratio` is to the live version's p95 over the same window. `promote_after_s`: the canary becomes live
    when it has been one for so long, and its limits hold.
    """

    window_s: float = 300.0
    min_requests: int = 50
    max_error_rate: float | None = None
    max_p95_s: float | None = None
    max_p95_ratio: float | None = None
    promote_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class CanaryFigures:
    """What both sides of a canary did within a rule's window. A p95 is None where nothing was answered whole."""

    requests: int
    errors: int
    p95_s: float | None
    live_requests: int
    live_errors: int
    live_p95_s: float | None


@dataclass(frozen=True, slots=True)
class CanaryEnd:
    """How a canary ended: it became live, or all requests went back to the live version. `by_rule` false: somebody
    said so, and there are no `figures`."""

    version: int
    promoted: bool
    by_rule: bool
    reason: str
    at: float
    figures: CanaryFigures | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """A name that callers use. `live` is the number of the version that it serves, None before the first;
    `live_since` is when it became that, None where that is not known. `previous` was live before it, and is where a
    rollback leads.

    `canary_since` is when the canary began, or when the live version that it is compared with became live, if that
    is later. `canary_end` tells of the last canary, until another one begins.
    """

    name: str
    base: str
    state: AdapterState
    created_at: float
    updated_at: float
    live: int | None = None
    canary: int | None = None
    canary_weight: float = 0.0
    canary_sticky: Sticky = Sticky.REQUEST
    canary_rule: CanaryRule | None = None
    canary_since: float | None = None
    canary_end: CanaryEnd | None = None
    previous: int | None = None
    live_since: float | None = None
    pin: Tier | None = None


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name for an adapter (`version` None: whatever is live) or for one of its versions."""

    name: str
    adapter: str
    version: int | None
    created_at: float


@dataclass(frozen=True, slots=True)
class Operation:
    """Long work that was acknowledged. `progress` goes from 0 to 1; `stage` is the version's state meanwhile.

    `promote` is what an arriving version does when it is ready: True moves the live pointer, a weight in
    (0, 1) starts a canary, False leaves the pointer.
    """

    id: str
    kind: OperationKind
    adapter: str
    version: int | None
    state: OperationState
    created_at: float
    promote: bool | float = True
    stage: str = ""
    progress: float = 0.0
    failure: Failure | None = None
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A caller's key as it is kept: `digest` is the sha256 of the secret, which itself is not kept.

    `adapters` holds shell-style patterns of adapter names (empty: all); the base counts as a name. With an
    `access_key_id` it is a key to sign requests with, as AWS' are, and no other.
    """

    id: str
    name: str
    role: Role
    digest: str
    created_at: float
    adapters: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    revoked_at: float | None = None
    access_key_id: str | None = None


class ResourceKind(StrEnum):
    """As they stand in ARNs."""

    MODEL = "model"
    ENDPOINT_CONFIG = "endpoint-config"
    ENDPOINT = "endpoint"
    COMPONENT = "inference-component"


class ResourceState(StrEnum):
    """`creating → settled`, `updating → settled`, and `deleting` from each of them."""

    CREATING = "creating"
    UPDATING = "updating"
    SETTLED = "settled"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that a client of SageMaker's interface made. `body` is what it said, in JSON's types, and what came of
    that. With `of_adapter` it adds to the adapter of the same name, and ends with it."""

    kind: ResourceKind
    name: str
    body: Mapping[str, Any]
    created_at: float
    updated_at: float
    state: ResourceState = ResourceState.SETTLED
    tags: Mapping[str, str] = field(default_factory=dict)
    of_adapter: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What one inference request runs on. `version` None is the base itself."""

    adapter: str
    engine_name: str
    version: int | None = None
    digest: str | None = None

    @property
    def is_base(self) -> bool:
        return self.version is None


@dataclass(frozen=True, slots=True)
class Split:
    """The targets of a name: `canary` is taken for a share `weight` of the requests; `sticky` says who keeps to one
    side of it."""

    live: Target
    canary: Target | None = None
    weight: float = 0.0
    sticky: Sticky = Sticky.REQUEST

    def pick(self, draw: float) -> Target:
        """`draw` in [0, 1) takes the canary where it is below its weight."""
        return self.canary if self.canary is not None and draw < self.weight else self.live


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a replica's engine says that it can do. `max_loras` is GPU slots, `max_cpu_loras` the host cache;
    `evict` is true where weights can really be freed, not only forgotten; `staging` where they are read outside the
    engine's step loop, and host memory and slots are told apart: see `ports.LoraEngine`."""

    dynamic_lora: bool
    max_loras: int
    max_cpu_loras: int
    max_lora_rank: int
    evict: bool
    staging: bool = False
    version: str = ""


@dataclass(frozen=True, slots=True)
class Resident:
    """An adapter that an engine holds by its own report. `size_bytes` is what its weights take in host memory, 0 where
    the engine does not tell; `pin` the tier below which the engine itself will not let it fall. `recency` orders
    those of one tier: the lowest was used the longest time ago."""

    engine_name: str
    tier: Tier
    path: str = ""
    size_bytes: int = 0
    pin: Tier | None = None
    recency: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """All that an engine said that it holds; `at` is when it said so."""

    at: float
    residents: tuple[Resident, ...]


@dataclass(frozen=True, slots=True)
class RegistryState:
    """Everything that routing and reconciliation read, as of `generation` (grows with each change)."""

    generation: int = 0
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    versions: Mapping[tuple[str, int], Version] = field(default_factory=dict)
    aliases: Mapping[str, Alias] = field(default_factory=dict)
