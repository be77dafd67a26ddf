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
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Target(_Part):
    """An endpoint, and the interface to speak with it. Several share the load by weight."""

    name: str = "loramux"
    """By which results tell targets apart."""
    api: Literal["openai-chat", "openai-completions", "tgi", "sagemaker", "litellm"] = "openai-chat"
    """The interface."""
    url: str = ""
    """Without the interface's path. Empty: `LORAMUX_URL`, else http://127.0.0.1:8080; for `litellm` the provider's."""
    key_env: str = ""
    """The environment variable with the key. Empty: for the first target, and any on this machine, `LORAMUX_API_KEY`,
    else `LORAMUX_ADMIN_KEY`, else on this machine the key in `LORAMUX_HOME/admin.key`; for all others none."""
    model: str = ""
    """Instead of the scenario's adapters: for an endpoint of one model. For `litellm` with the provider's prefix."""
    weight: Annotated[int, Field(gt=0)] = 1
    """Its part of users, requests and rates, beside the other targets' weights."""
    extra: dict[str, Any] = {}
    """Further fields of every body. For `sagemaker` also `EndpointName`, which it needs, `region` and `form`."""
    admin: bool | None = None
    """Whether it has loramux' admin interface. None: try."""


class Normal(_Part):
    """Drawn anew until positive, as LLMPerf does."""

    mean: Annotated[int, Field(gt=0)]
    """Tokens."""
    stddev: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation, tokens; 0: always the mean."""


class Stage(_Part):
    """The rate goes from `rate_per_s` to `to_rate_per_s` (None: stays) over the time."""

    rate_per_s: Annotated[float, Field(ge=0)]
    """Requests a second at its begin."""
    to_rate_per_s: Annotated[float, Field(ge=0)] | None = None
    """At its end; between the two the rate changes evenly."""
    duration_s: Positive
    """How long it takes."""


class Arrivals(_Part):
    """When requests are due, in an open loop."""

    kind: Literal["constant", "poisson", "gamma", "trace"] = "poisson"
    """How the gaps between requests are: even, random, random in clumps, or as a file says."""
    rate_per_s: Positive = 1.0
    """Requests a second."""
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
    """Closed: users who wait for their answers. Open: requests that come when they are due, as `load.arrivals` says."""
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
    """Of an open loop."""

    @model_validator(mode="after")
    def _ends(self) -> "Load":
        endless = self.requests is None and self.duration_s is None
        if endless and not (self.shape == "open" and (self.arrivals.stages or self.arrivals.trace)):
            raise ValueError("a load needs an end: requests or duration_s")
        return self


class Prompts(_Part):
    """What is asked."""

    input_tokens: Normal = Normal(mean=64, stddev=8)
    """Length of the prompts, without the chat template."""
    output_tokens: Normal = Normal(mean=32, stddev=0)
    """`max_tokens` of the requests."""
    text: str = ""
    """A file to take prompts from. Empty: the bench's own text."""
    mark: str = ""
    """Prompts of runs with different marks begin differently, so that what an engine has cached of an earlier run does
    not flatter a later one. Empty: each run has its own."""
    tokenizer: str = ""
    """A `tokenizer.json`, or a directory with one. Empty: lengths are set by asking the endpoint for its usage."""
    ignore_eos: bool = True
    """Ask for answers of exactly their length, where the endpoint can: the model's own end of an answer is ignored."""
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    """Of the sampling. None is for JSON, as TOML has no such value: the endpoint's own."""
    stream: Literal[True] = True
    """Answers are streamed: without that there is neither TTFT nor ITL."""


class Provision(_Part):
    """Adapters that the bench uploads before the load and deletes after it."""

    count: Annotated[int, Field(gt=0)]
    """How many."""
    source: str = "deploy/demo/adapters/pirate"
    """A PEFT directory. Each adapter is a copy with content of its own (its file's metadata differ)."""
    prefix: str = "bench"
    """Of their names: `bench-000`, `bench-001`, …"""
    keep: bool = False
    """Leave them there after the load."""


class Adapters(_Part):
    """Which adapter a request asks for."""

    names: tuple[str, ...] = ()
    """Empty: those that the endpoint lists, its base left out."""
    choice: Literal["one", "round-robin", "uniform", "zipf", "weights"] = "round-robin"
    """The first name always, each in turn, each as likely as the others, by Zipf's law, or by `weights`."""
    alpha: Annotated[float, Field(gt=0)] = 1.0
    """Zipf: the k-th name has weight k to the power of minus alpha."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """By name; names without one are not asked for."""
    base_share: Share = 0.0
    """This share of the requests asks for the base."""
    base: str = ""
    """Its name, where the endpoint does not list it."""
    provision: Provision | None = None
    """Make the adapters for the run, in place of `names`."""

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
    """New adapters, which the load does not ask for."""
    updates_per_min: Annotated[float, Field(ge=0)] = 0.0
    """Of adapters that the load asks for."""
    deletes_per_min: Annotated[float, Field(ge=0)] = 0.0
    """Of adapters that churn itself has added."""
    source: str = "deploy/demo/adapters/pirate"
    """A PEFT directory: what is added."""
    update_source: str = "deploy/demo/adapters/pirate-v2"
    """Updates alternate between the two."""
    seed: int = 1
    """Of the order in which adapters are updated."""

    @property
    def any(self) -> bool:
        return self.adds_per_min + self.updates_per_min + self.deletes_per_min > 0


class Tenant(_Part):
    """A caller with a key of its own."""

    name: str
    """By which results tell tenants apart."""
    key_env: str = ""
    """The environment variable with the key. Empty: the bench makes a key through the admin interface and revokes it
    after."""
    weight: Positive = 1.0
    """Its part of the requests, beside the other tenants' weights."""
    adapters: tuple[str, ...] = ()
    """Only these. Empty: any."""


class NotReady(_Part):
    """An endpoint that has scaled to zero says "not ready" for a while: wait, try again, and count that time apart."""

    retry: bool = True
    """Whether to try again. If not, "not ready" is an error."""
    timeout_s: Annotated[float, Field(ge=0)] = 300.0
    """After so long it is an error; before the load, the run fails."""
    interval_s: Positive = 0.5
    """Between tries, unless the endpoint says Retry-After."""


class Scrape(_Part):
    """What is read from the endpoint meanwhile."""

    every_s: Annotated[float, Field(gt=0.1)] = 1.0
    """Between two looks."""
    metrics: bool = True
    """Prometheus metrics, at `/metrics`."""
    admin: bool = True
    """Replicas and tiers of the adapters, from loramux' admin interface."""


class Cost(_Part):
    """What it would cost."""

    price_per_replica_hour: Annotated[float, Field(ge=0)] = 0.0
    """0: no cost is told."""
    currency: str = "USD"
    """Its name, as it is shown."""
    replicas: Annotated[float, Field(gt=0)] | None = None
    """Where the endpoint does not say how many there are."""


class Scenario(_Part):
    """The whole file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """What its results are called: letters, digits, `.`, `_` and `-`."""
    about: str = ""
    """For people: `loramux bench scenarios` and the report show it."""
    seed: int = 1
    """Of everything that is drawn: with the same seed the same adapters, lengths and times."""
    targets: tuple[Target, ...] = (Target(),)
    """Where the load goes. The admin interface is the first's."""
    load: Load
    """How much."""
    prompts: Prompts = Prompts()
    """What is asked."""
    adapters: Adapters = Adapters()
    """Of whom."""
    churn: Churn = Churn()
    """What changes meanwhile."""
    tenants: tuple[Tenant, ...] = ()
    """By whom. Empty: one caller, with the target's key."""
    not_ready: NotReady = NotReady()
    """What to do with an endpoint that is not ready."""
    scrape: Scrape = Scrape()
    """What is looked at meanwhile."""
    cost: Cost = Cost()
    """What it would cost."""
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
    return f"http://127.0.0.1:{environment.get('LORAMUX_PORT') or environment.get('PORT') or 8080}"


def endpoint_key(target: Target, environment: Mapping[str, str] = os.environ, *, first: bool = True) -> str:
    """The key for a target; empty where there is none. `first` of the scenario's: the one that a person's own keys are
    for. Raises `ScenarioError` for a variable that is not set."""
    if target.key_env:
        if not environment.get(target.key_env):
            raise ScenarioError(f"The target {target.name!r} wants its key in {target.key_env}, which is not set.")
        return environment[target.key_env]
    if target.api == "litellm" or not (first or on_this_machine(endpoint_url(target, environment))):
        return ""
    if key := environment.get("LORAMUX_API_KEY") or environment.get("LORAMUX_ADMIN_KEY"):
        return key
    if not on_this_machine(endpoint_url(target, environment)):
        return ""
    home = Path(environment.get("LORAMUX_HOME") or "~/.local/share/loramux").expanduser()
    try:
        return (home / "admin.key").read_text("utf-8").strip()
    except OSError:
        return ""


def on_this_machine(url: str) -> bool:
    """Whether the host is a loopback address."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def find_source(source: str) -> Path:
    """A directory or file that a scenario names: from here, else from the checkout that the bench lies in. Raises
    `ScenarioError`."""
    for place in (Path(), Path(__file__).parents[2]):
        if (place / source).exists():
            return (place / source).resolve()
    raise ScenarioError(f"The scenario names {source!r}, which is not there.")
