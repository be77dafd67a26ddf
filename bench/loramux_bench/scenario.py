"""A scenario: what load to send where. Read from TOML; unknown keys and wrong values are refused with their place."""

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loramux_bench.errors import ScenarioError

_PLACES = (Path(__file__).parents[1] / "scenarios", Path(__file__).parent / "scenarios")
"""In a checkout, and in a wheel."""

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Target(_Part):
    """An endpoint, and the interface to speak with it. Several share the load by weight."""

    name: str = "loramux"
    api: Literal["openai-chat", "openai-completions", "tgi", "sagemaker", "litellm"] = "openai-chat"
    url: str = ""
    """Without the interface's path. Empty: `LORAMUX_URL`, else http://127.0.0.1:8080; for `litellm` the provider's."""
    key_env: str = ""
    """The environment variable with the key. Empty: `LORAMUX_API_KEY`, else `LORAMUX_ADMIN_KEY`, else the key in
    `LORAMUX_HOME/admin.key` where the URL is of this machine."""
    model: str = ""
    """Instead of the scenario's adapters: for an endpoint of one model. For `litellm` with the provider's prefix."""
    weight: Annotated[int, Field(gt=0)] = 1
    extra: dict[str, Any] = {}
    """Further fields of every body."""
    admin: bool | None = None
    """Whether it has loramux' admin interface. None: try."""


class Normal(_Part):
    """Drawn anew until positive, as LLMPerf does."""

    mean: Annotated[int, Field(gt=0)]
    stddev: Annotated[float, Field(ge=0)] = 0.0


class Stage(_Part):
    """The rate goes from `rate_per_s` to `to_rate_per_s` (None: stays) over the time."""

    rate_per_s: Annotated[float, Field(ge=0)]
    to_rate_per_s: Annotated[float, Field(ge=0)] | None = None
    duration_s: Positive


class Arrivals(_Part):
    """When requests are due, in an open loop."""

    kind: Literal["constant", "poisson", "gamma", "trace"] = "poisson"
    rate_per_s: Positive = 1.0
    burstiness: Positive = 1.0
    """Shape of the gamma distribution of the gaps: 1 is Poisson, less is burstier (as in vLLM's benchmark)."""
    stages: tuple[Stage, ...] = ()
    """Instead of `rate_per_s`, one after the other; the load ends with the last."""
    trace: str = ""
    """A file of JSON lines: `{"at_s": 0.25}`, and if wanted `adapter`, `input_tokens`, `output_tokens`, `prompt`."""
    speed: Positive = 1.0
    """Of a trace: 2 replays it in half the time."""
    max_in_flight: Annotated[int, Field(gt=0)] = 256
    """Requests at a time; what is due beyond it waits, and its lag is counted."""

    @model_validator(mode="after")
    def _whole(self) -> "Arrivals":
        if (self.kind == "trace") != bool(self.trace):
            raise ValueError('a trace needs kind = "trace" and a file')
        if self.trace and self.stages:
            raise ValueError("trace and stages exclude each other")
        return self


class Load(_Part):
    """How many, for how long."""

    shape: Literal["closed", "open"] = "closed"
    users: Annotated[int, Field(gt=0)] = 1
    """Closed loop: each sends its next request when the last has ended."""
    ramp_s: Annotated[float, Field(ge=0)] = 0.0
    """Users of a closed loop come one by one over this time."""
    think_s: Annotated[float, Field(ge=0)] = 0.0
    """Pause of a user between requests."""
    requests: Annotated[int, Field(gt=0)] | None = None
    """Measured requests after which the load ends."""
    duration_s: Positive | None = None
    """Time after which the load ends, warm-up not counted."""
    warmup_requests: Annotated[int, Field(ge=0)] = 0
    """The first so many are sent and not counted."""
    drain_s: Annotated[float, Field(ge=0)] = 30.0
    """How long requests under way at the end may take to finish."""
    timeout_s: Positive = 300.0
    """Of one request."""
    arrivals: Arrivals = Arrivals()

    @model_validator(mode="after")
    def _ends(self) -> "Load":
        endless = self.requests is None and self.duration_s is None
        if endless and not (self.shape == "open" and (self.arrivals.stages or self.arrivals.trace)):
            raise ValueError("a load needs an end: requests or duration_s")
        return self


class Prompts(_Part):
    """What is asked."""

    input_tokens: Normal = Normal(mean=64, stddev=8)
    output_tokens: Normal = Normal(mean=32, stddev=0)
    text: str = ""
    """A file to take prompts from. Empty: the bench's own text."""
    mark: str = ""
    """Prompts of runs with different marks begin differently, so that what an engine has cached of an earlier run does
    not flatter a later one. Empty: each run has its own."""
    tokenizer: str = ""
    """A `tokenizer.json`, or a directory with one. Empty: lengths are set by asking the endpoint for its usage."""
    ignore_eos: bool = True
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    stream: Literal[True] = True


class Provision(_Part):
    """Adapters that the bench uploads before the load and deletes after it."""

    count: Annotated[int, Field(gt=0)]
    source: str = "deploy/demo/adapters/pirate"
    """A PEFT directory. Each adapter is a copy with content of its own (its file's metadata differ)."""
    prefix: str = "bench"
    keep: bool = False


class Adapters(_Part):
    """Which adapter a request asks for."""

    names: tuple[str, ...] = ()
    """Empty: those that the endpoint lists, its base left out."""
    choice: Literal["one", "round-robin", "uniform", "zipf", "weights"] = "round-robin"
    alpha: Annotated[float, Field(gt=0)] = 1.0
    """Zipf: the k-th name has weight k to the power of minus alpha."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    base_share: Share = 0.0
    """This share of the requests asks for the base."""
    base: str = ""
    """Its name, where the endpoint does not list it."""
    provision: Provision | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Adapters":
        if (self.choice == "weights") != bool(self.weights):
            raise ValueError('weights belong to choice = "weights"')
        if self.choice == "weights" and not sum(self.weights.values()) > 0:
            raise ValueError("one weight at least must be above 0")
        if self.provision and self.names:
            raise ValueError("names and provision exclude each other")
        return self


class Churn(_Part):
    """Changes through the admin interface while the load runs, evenly spaced."""

    adds_per_min: Annotated[float, Field(ge=0)] = 0.0
    updates_per_min: Annotated[float, Field(ge=0)] = 0.0
    """Of adapters that the load asks for."""
    deletes_per_min: Annotated[float, Field(ge=0)] = 0.0
    """Of adapters that churn itself has added."""
    source: str = "deploy/demo/adapters/pirate"
    update_source: str = "deploy/demo/adapters/pirate-v2"
    """Updates alternate between the two."""
    seed: int = 1

    @property
    def any(self) -> bool:
        return self.adds_per_min + self.updates_per_min + self.deletes_per_min > 0


class Tenant(_Part):
    """A caller with a key of its own."""

    name: str
    key_env: str = ""
    """Empty: the bench makes a key through the admin interface and revokes it after."""
    weight: Positive = 1.0
    adapters: tuple[str, ...] = ()
    """Only these. Empty: any."""


class NotReady(_Part):
    """An endpoint that has scaled to zero says "not ready" for a while: wait, try again, and count that time apart."""

    retry: bool = True
    timeout_s: Annotated[float, Field(ge=0)] = 300.0
    interval_s: Positive = 0.5
    """Between tries, unless the endpoint says Retry-After."""


class Scrape(_Part):
    """What is read from the endpoint meanwhile."""

    every_s: Annotated[float, Field(gt=0.1)] = 1.0
    metrics: bool = True
    admin: bool = True


class Cost(_Part):
    """What it would cost."""

    price_per_replica_hour: Annotated[float, Field(ge=0)] = 0.0
    currency: str = "USD"
    replicas: Annotated[float, Field(gt=0)] | None = None
    """Where the endpoint does not say how many there are."""


class Scenario(_Part):
    """The whole file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    about: str = ""
    seed: int = 1
    targets: tuple[Target, ...] = (Target(),)
    load: Load
    prompts: Prompts = Prompts()
    adapters: Adapters = Adapters()
    churn: Churn = Churn()
    tenants: tuple[Tenant, ...] = ()
    not_ready: NotReady = NotReady()
    scrape: Scrape = Scrape()
    cost: Cost = Cost()
    slos: tuple[str, ...] = ()
    """For goodput and verdicts, such as `ttft:p99:500ms`."""

    @model_validator(mode="after")
    def _distinct(self) -> "Scenario":
        for what, names in (("target", [t.name for t in self.targets]), ("tenant", [t.name for t in self.tenants])):
            if len(set(names)) != len(names):
                raise ValueError(f"each {what} needs a name of its own")
        if not self.targets:
            raise ValueError("there is no target")
        return self


def available() -> dict[str, Path]:
    """The scenarios that come with the bench, by name."""
    return {path.stem: path for place in _PLACES if place.is_dir() for path in sorted(place.glob("*.toml"))}


def load_scenario(name_or_path: str, overrides: Iterable[str] = ()) -> Scenario:
    """By the name of one that comes with the bench, or by path; `overrides` such as `load.users=4` come last, their
    values in TOML (text without quotes is taken as text). Raises `ScenarioError`."""
    path = available().get(name_or_path) or Path(name_or_path)
    try:
        text = path.read_text("utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        known = ", ".join(sorted(available()))
        raise ScenarioError(f"There is no scenario {name_or_path!r}: neither a file nor one of {known}.") from None
    except (OSError, ValueError) as error:
        raise ScenarioError(f"The scenario {path} can not be read: {error}.") from error
    if not isinstance(content, dict):
        raise ScenarioError(f"The scenario {path} holds no table of keys.")
    content.setdefault("name", path.stem)
    for override in overrides:
        _override(content, override)
    return parse(content, str(path))


def parse(content: Mapping[str, Any], source: str) -> Scenario:
    """Raises `ScenarioError`, with the place of each fault."""
    try:
        return Scenario.model_validate(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'the scenario'}: {_said(fault)}"
            for fault in error.errors()
        ]
        raise ScenarioError(f"The scenario {source} is not right: {'; '.join(faults)}.") from error


def _said(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown key"
    return str(fault["msg"]).removeprefix("Value error, ")


def _override(content: dict[str, Any], override: str) -> None:
    place, equals, text = override.partition("=")
    keys = place.strip().split(".")
    if not equals or not all(keys):
        raise ScenarioError(f"An override has the form key.key=value, not {override!r}.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    inner: Any = content
    for key in keys[:-1]:
        inner = inner[_position(inner, key, place)] if isinstance(inner, list) else inner.setdefault(key, {})
        if not isinstance(inner, dict | list):
            raise ScenarioError(f"{place!r} leads through {key!r}, which holds a value.")
    if isinstance(inner, list):
        inner[_position(inner, keys[-1], place)] = value
    else:
        inner[keys[-1]] = value


def _position(inner: list[Any], key: str, place: str) -> int:
    if key.isdecimal() and key.isascii() and int(key) < len(inner):
        return int(key)
    raise ScenarioError(f"{place!r} leads to a list of {len(inner)}: {key!r} is no position in it, counted from 0.")


def endpoint_url(target: Target, environment: Mapping[str, str] = os.environ) -> str:
    """Where a target is; empty for `litellm` without one: the provider's own place."""
    if target.url or target.api == "litellm":
        return target.url.rstrip("/")
    if environment.get("LORAMUX_URL"):
        return environment["LORAMUX_URL"].rstrip("/")
    return f"http://127.0.0.1:{environment.get('LORAMUX_PORT') or 8080}"


def endpoint_key(target: Target, environment: Mapping[str, str] = os.environ) -> str:
    """The key for a target; empty where there is none. Raises `ScenarioError` for a variable that is not set."""
    if target.key_env:
        if not environment.get(target.key_env):
            raise ScenarioError(f"The target {target.name!r} wants its key in {target.key_env}, which is not set.")
        return environment[target.key_env]
    if target.api == "litellm":
        return ""
    if key := environment.get("LORAMUX_API_KEY") or environment.get("LORAMUX_ADMIN_KEY"):
        return key
    if urlsplit(endpoint_url(target, environment)).hostname not in ("127.0.0.1", "localhost", "::1"):
        return ""
    home = Path(environment.get("LORAMUX_HOME") or "~/.local/share/loramux").expanduser()
    try:
        return (home / "admin.key").read_text("utf-8").strip()
    except OSError:
        return ""


def find_source(source: str) -> Path:
    """A directory or file that a scenario names: from here, else from the checkout that the bench lies in. Raises
    `ScenarioError`."""
    for place in (Path(), Path(__file__).parents[2]):
        if (place / source).exists():
            return (place / source).resolve()
    raise ScenarioError(f"The scenario names {source!r}, which is not there.")
