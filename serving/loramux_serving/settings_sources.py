"""Settings from every place: defaults, LMI's and TGI's variables, one TOML file, the environment, flags; later wins.

The environment must agree with itself: where LMI's, TGI's and loramux' own variables set the same setting to different
values, nothing starts. The file and flags were written for loramux, so they win over LMI's and TGI's variables, as
LMI's own `serving.properties` does, and a warning names both.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    TomlConfigSettingsSource,
)

from loramux_adapters.errors import SettingsInvalid
from loramux_serving.engine.accelerators import count_accelerators
from loramux_serving.foreign.settings import Asked, Asking, asked_settings, shown
from loramux_serving.foreign.values import EVERY_ACCELERATOR
from loramux_serving.settings import Settings, Value, require_possible, value_at

Nested = dict[str, Any]
"""Settings as a file has them: sections are dictionaries."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What the log is to say of where settings came from, once it is set up. `level` is one of `logging`."""

    level: int
    event: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loaded:
    settings: Settings
    notices: tuple[Notice, ...]


def load(config: Path | None = None, **flags: Any) -> Loaded:
    """`config` is a TOML file; `flags` are nested dictionaries of what the command line gave, and None values are left
    out. Raises `SettingsInvalid`: one sentence for a contradiction, one line for each fault of values."""
    given = _without_none(flags)
    if config is not None and not config.is_file():
        raise SettingsInvalid(f"The configuration file {config} does not exist.")
    own = _build(given, config, {})
    asked = asked_settings(os.environ, own.engine.kind)
    _require_agreement(asked, own, EnvSettingsSource(Settings)())
    foreign, notices = _merge(asked, own, given, config)
    settings = _build(given, config, foreign) if foreign else own
    settings = _with_room_for_slots(settings, foreign)
    _check(settings, asked, foreign)
    return Loaded(settings, notices)


def _build(flags: Nested, config: Path | None, foreign: Mapping[str, Value]) -> Settings:
    class Sources(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            order = [InitSettingsSource(settings_cls, init_kwargs=flags), env_settings]
            if config is not None:
                order.append(TomlConfigSettingsSource(settings_cls, toml_file=config))
            order.append(InitSettingsSource(settings_cls, init_kwargs=_nested(foreign)))
            return tuple(order)

    try:
        return Sources()
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise SettingsInvalid("The settings are not valid: " + "; ".join(lines)) from error
    except ValueError as error:
        raise SettingsInvalid(f"The settings can not be read: {error}") from error


def _require_agreement(asked: Asked, own: Settings, environment: Nested) -> None:
    """Between the variables of others and loramux' own, which are in `environment`."""
    for asking in asked.askings:
        value = _at(environment, asking.setting)
        if value is None or _same(_typed(asking.setting, value), _counted(asking, own)):
            continue
        own_name = "LORAMUX_" + asking.setting.upper().replace(".", "__")
        raise SettingsInvalid(
            f"{asking} and {own_name}={shown(value)} contradict each other: both set {asking.setting}. "
            "Leave one of them out."
        )


def _merge(
    asked: Asked, own: Settings, flags: Nested, config: Path | None
) -> tuple[dict[str, Value], tuple[Notice, ...]]:
    """What LMI's and TGI's variables set, and what is to be said of it."""
    taken: dict[str, Value] = {}
    notices: list[Notice] = []
    for asking in asked.askings:
        value = _counted(asking, own)
        if not _is_given(own, asking.setting):
            taken[asking.setting] = value
            notices.append(_taken(asking, value))
        elif not _same(has := value_at(own, asking.setting), value):
            by = "a flag" if _at(flags, asking.setting) is not None else str(config)
            notices.append(_overruled(asking, has, by))
    notices += [
        Notice(logging.WARNING, "variable is not used", {"variable": remark.variable, "reason": remark.reason})
        for remark in asked.remarks
    ]
    return taken, tuple(notices)


def _taken(asking: Asking, value: Value) -> Notice:
    about = {"variable": asking.variable.name, "setting": asking.setting, "value": value}
    return Notice(logging.INFO, "variable sets a setting", about)


def _overruled(asking: Asking, has: object, by: str) -> Notice:
    about = {"variable": str(asking), "setting": asking.setting, "value": has, "set_by": by}
    return Notice(logging.WARNING, "variable is overruled", about)


def _counted(asking: Asking, own: Settings) -> Value:
    """`max` as a number: the accelerators that each replica can have."""
    if asking.value != EVERY_ACCELERATOR:
        return asking.value
    found = count_accelerators(own.engine.kind, os.environ)
    if found is None:
        raise SettingsInvalid(
            f"{asking} can not be counted: no accelerator of the kind {own.engine.kind} is seen here. Give a number."
        )
    return max(1, found // own.engine.replicas)


def _with_room_for_slots(settings: Settings, foreign: Mapping[str, Value]) -> Settings:
    """LMI keeps as many adapters in host memory as it has slots, where nothing else is said; so slots that its variable
    asks for never are too many."""
    engine = settings.engine
    if "engine.max_loras" not in foreign or _is_given(settings, "engine.max_cpu_loras"):
        return settings
    room = max(engine.max_cpu_loras, engine.max_loras)
    return settings.model_copy(update={"engine": engine.model_copy(update={"max_cpu_loras": room})})


def _check(settings: Settings, asked: Asked, foreign: Mapping[str, Value]) -> None:
    def called(setting: str) -> str:
        asking = asked.of(setting) if setting in foreign else None
        return str(asking or f"{setting}={shown(value_at(settings, setting))}")

    names = ("engine.max_loras", "engine.max_cpu_loras", "engine.max_prompt_tokens", "engine.max_model_len")
    require_possible({name: value_at(settings, name) for name in names}, called)


def _is_given(settings: Settings, name: str) -> bool:
    """Whether it does not have its default for want of anything else."""
    section, _, last = name.rpartition(".")
    return last in (value_at(settings, section) if section else settings).model_fields_set


def _same(one: object, other: object) -> bool:
    """A directory is the same with and without a slash at its end."""
    if isinstance(one, str) and isinstance(other, str):
        return one.rstrip("/") == other.rstrip("/")
    return one == other


def _typed(name: str, value: object) -> object:
    """An own variable's value as the setting has it; what is wrong with it was said before."""
    section, _, last = name.rpartition(".")
    try:
        if section:
            kind: Any = Settings.model_fields[section].annotation
            return getattr(kind.model_validate({last: value}), last)
        taken: Any = Settings.model_fields[last].annotation
        return TypeAdapter[Any](taken).validate_python(value)
    except ValidationError:  # a flag stands for it, else nothing would have been built
        return value


def _at(nested: Nested, name: str) -> Any:
    found: Any = nested
    for part in name.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(part)
    return found


def _nested(values: Mapping[str, Value]) -> Nested:
    made: Nested = {}
    for name, value in values.items():
        section, _, last = name.rpartition(".")
        (made.setdefault(section, {}) if section else made)[last] = value
    return made


def _without_none(values: Nested) -> Nested:
    kept = {key: _without_none(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}
