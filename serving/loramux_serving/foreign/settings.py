"""What LMI's and TGI's variables ask for: an environment in, settings out. Pure.

`settings_sources` reads the gateway's own environment with it, SageMaker's control plane that of a model's container.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from loramux_adapters.errors import SettingsInvalid
from loramux_serving.foreign.names import DEMANDS, MODEL_VARIABLES, UNUSED, VARIABLES, Demand, Variable
from loramux_serving.foreign.values import EVERY_ACCELERATOR
from loramux_serving.settings import Settings, Value, require_possible, value_at

_OPTION = "OPTION_"
_KNOWN_OPTIONS = tuple(known.name for known in (*VARIABLES, *DEMANDS, *UNUSED) if known.name.startswith(_OPTION))
_MOUNTED_MODEL = "/opt/ml/model"
"""Where SageMaker puts a container's model data: whatever the base is, this is its name."""
_MORE_IS_FINE = (
    "engine.max_loras",
    "engine.max_cpu_loras",
    "engine.max_lora_rank",
    "engine.max_model_len",
    "engine.max_num_seqs",
)
"""A fleet that runs with more has what was asked for; 0 is what the model or vLLM can do at most."""
_NOT_OF_THE_FLEET = ("host", "port", "engine.start_timeout_s")
"""Where a container listens and how long it may take to start say nothing of an engine that runs."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One variable that asks for a setting: `value` as the setting has it, `given` as the environment has it."""

    variable: Variable
    value: Value
    given: str

    @property
    def setting(self) -> str:
        return self.variable.setting

    def __str__(self) -> str:
        return f"{self.variable.name}={self.given}"


@dataclass(frozen=True, slots=True)
class Remark:
    """A variable that was given and does nothing, and why: to be warned of. Without its value."""

    variable: str
    reason: str

    def __str__(self) -> str:
        return f"{self.variable} is not used: {self.reason}."


@dataclass(frozen=True, slots=True)
class Asked:
    """What an environment asks for. Variables of one setting have one value."""

    askings: tuple[Asking, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def settings(self) -> dict[str, Value]:
        """By the setting's full name. `engine.tensor_parallel_size` may be `EVERY_ACCELERATOR`."""
        return {asking.setting: asking.value for asking in self.askings}

    def of(self, setting: str) -> Asking | None:
        return next((asking for asking in self.askings if asking.setting == setting), None)


def asked_settings(environment: Mapping[str, str], kind: str = "") -> Asked:
    """What the variables of LMI and TGI in `environment` ask for; everything else in it is left alone. An empty one
    counts as not set. `kind` is that of the engine: variables for another kind are not used; "": all are.

    Raises `SettingsInvalid`, in one sentence with the names and values of the variables: where a value can not be read,
    or two variables contradict each other.
    """
    given = {name: text.strip() for name, text in environment.items() if text.strip()}
    beside_model = any(name in given for name in MODEL_VARIABLES)
    askings: list[Asking] = []
    remarks: list[Remark] = []
    for variable in VARIABLES:
        text = given.get(variable.name)
        if text is None or (variable.beside_model and not beside_model):
            continue
        if variable.counts is not None and not variable.counts(text):
            continue
        if kind and variable.kind not in ("", kind):
            remarks.append(Remark(variable.name, f"it is for {variable.kind}, and engine.kind is {kind}"))
            continue
        askings.append(Asking(variable, _read(variable, text), text))
    for demand in DEMANDS:
        if demand.name in given:
            _read(demand, given[demand.name])
    for unused in UNUSED:
        if unused.name in given and (beside_model or not unused.beside_model):
            remarks.append(Remark(unused.name, unused.reason.replace("`", "")))
    remarks += _unknown(given)
    _require_agreement(askings)
    asked = Asked(tuple(askings), tuple(remarks))
    require_possible(asked.settings, lambda setting: str(asked.of(setting)))
    return asked


def differences(asked: Asked, settings: Settings, base_name: str) -> list[str]:
    """How a fleet that runs with `settings` and serves the base `base_name` falls short of what was asked for: one
    sentence each, none where it fits.

    More slots, more memory for adapters, larger ranks, longer contexts and larger batches than asked for fit. All
    accelerators (`max`) are taken to be those that the fleet has.
    """
    found = []
    for asking in asked.askings:
        if asking.variable.kind not in ("", settings.engine.kind) or _fits(asking, settings, base_name):
            continue
        has = base_name if asking.setting == "engine.model" else shown(value_at(settings, asking.setting))
        found.append(f"{asking} asks for another {asking.setting} than the running fleet's, which is {has}.")
    return found


def shown(value: object) -> str:
    """As it is written in an environment."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else "empty"


def _fits(asking: Asking, settings: Settings, base_name: str) -> bool:
    setting, wanted = asking.setting, asking.value
    if setting in _NOT_OF_THE_FLEET or wanted == EVERY_ACCELERATOR:
        return True
    if setting == "engine.model":
        return _same_base(str(wanted), settings.engine.model.rstrip("/"), base_name)
    if setting == "engine.revision" and _place(settings.engine.model) != "hub":
        return True  # its files were chosen otherwise
    if setting == "engine.gpu_memory_utilization" and settings.engine.kind != "cuda":
        return True
    has = value_at(settings, setting)
    if setting in _MORE_IS_FINE:
        return bool(has == 0 or has >= wanted)
    return bool(has == wanted)


def _same_base(wanted: str, running: str, base_name: str) -> bool:
    """Two places of the same kind have to be the same; else the last part of the name tells, as it does for callers."""
    if wanted in (running, base_name, _MOUNTED_MODEL):
        return True
    if _place(wanted) == _place(running):
        return False
    return wanted.rpartition("/")[2] in (base_name, running.rpartition("/")[2])


def _place(model: str) -> str:
    if not model:
        return "embedded"
    if model.startswith("s3://"):
        return "s3"
    return "directory" if model.startswith(("/", ".", "~")) else "hub"


def _read(known: Variable | Demand, text: str) -> Value:
    try:
        return known.read(text)
    except ValueError as error:
        raise SettingsInvalid(f"{known.name}={text} is not possible: it must be {error}.") from None


def _unknown(given: Mapping[str, str]) -> Iterator[Remark]:
    for name in sorted(given):
        if name.startswith(_OPTION) and name not in _KNOWN_OPTIONS:
            near = get_close_matches(name, _KNOWN_OPTIONS, n=1, cutoff=0.75)
            meant = f"did you mean {near[0]}? If it" if near else "if it"
            yield Remark(
                name, f"loramux does not know it; {meant} is an argument of vLLM, give it in engine.extra_args"
            )


def _require_agreement(askings: list[Asking]) -> None:
    first: dict[str, Asking] = {}
    for asking in askings:
        other = first.setdefault(asking.setting, asking)
        if other.value != asking.value:
            raise SettingsInvalid(
                f"{other} and {asking} contradict each other: both set {asking.setting}. Leave one of them out."
            )
