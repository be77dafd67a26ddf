"""Makes `docs/settings.md` from the settings themselves: `python docs/settings_table.py`."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from loramux_serving.foreign.names import DEMANDS, MODEL_VARIABLES, PASSED_ON, UNUSED, VARIABLES, Unused, Variable
from loramux_serving.settings import Settings

PAGE = Path(__file__).with_name("settings.md")

_UNITS = {
    "_s": "s",
    "_bytes": "bytes",
    "_gib": "GiB",
    "_per_minute": "per minute",
    "max_ratio": "bytes per byte",
    "max_model_len": "tokens",
    "max_prompt_tokens": "tokens",
}
"""By how a name ends; the longest that fits."""

_DEFAULTS = {"engine.python": "the gateway's own interpreter"}
"""Defaults that are not the same everywhere."""

_HEAD = """\
# Settings

<!-- Made by `python docs/settings_table.py` from serving/loramux_serving/settings.py. Do not edit. -->

Every setting has one name, and can be given in three places. The later one wins. What was written for LMI's or TGI's
containers is read too: see [Settings of LMI and TGI](#settings-of-lmi-and-tgi).

1. a TOML file: `loramux serve --config FILE`;
2. the environment: `LORAMUX_` and the name in capitals, `__` between section and name;
3. flags of `loramux serve`: `--host`, `--port`, `--workers`, `--model` (`engine.model`), `--engine-urls`
   (`engine.urls`).

An empty variable counts as not set. A name that does not exist in the file, or a value that does not fit, stops the
start with an error that names each fault. Lists and tables in the environment are JSON:
`LORAMUX_ARTIFACTS__ROOTS='["/srv/adapters"]'`.

```toml
port = 8080

[engine]
kind = "cuda"
model = "/srv/models/base"
max_loras = 16
max_cpu_loras = 128
max_lora_rank = 32

[artifacts]
roots = ["/srv/adapters"]
```
"""


_FOREIGN = """
## Settings of LMI and TGI

The environment that a container of LMI (DJL Serving) or TGI was started with starts loramux too. Each variable that is
used is named in the log at the start, with its setting and value.

- The environment must not contradict itself. Two variables that set the same setting to different values stop the
  start, with one sentence that names both: `HF_MODEL_ID` and `MODEL_ID`, or `OPTION_MAX_LORAS` and
  `LORAMUX_ENGINE__MAX_LORAS`. So do values that can not both hold, as a `MAX_INPUT_TOKENS` that is not below
  `MAX_TOTAL_TOKENS`, and a value that can not be read.
- A TOML file and flags were written for loramux, so they win over these variables, as LMI's own `serving.properties`
  does; a warning names both.
- A variable that does nothing here is warned of, and so is an `OPTION_…` that nobody knows, with the nearest name that
  is known.
- Where nothing is said of `OPTION_MAX_CPU_LORAS`, `OPTION_MAX_LORAS` raises `engine.max_cpu_loras` with it, as in LMI.
- Where loramux has another default than LMI or TGI, loramux' counts: it listens on loopback, port 8080, until `PORT`
  and `HOSTNAME`, or its own settings, say otherwise.
- `HOSTNAME` counts where it is an IP address, as in TGI. Shells, containers and pods set it to the machine's name,
  which is no wish to listen there.
- `MAX_INPUT_TOKENS` is kept by the engines that loramux starts: vLLM itself knows no limit for the prompt alone, so
  loramux' plugin in it refuses longer ones, on every interface.
- `MAX_CONCURRENT_REQUESTS` counts what runs and what waits, as in TGI: further requests are refused
  (`queue_full`).
- `max` takes all accelerators that are visible, divided by `engine.replicas`.

"""


def page() -> str:
    """The whole of `settings.md`."""
    sections = [("", "The gateway", _scalars(Settings))]
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            sections.append((name, (kind.__doc__ or "").strip(), list(kind.model_fields.items())))
    own = "".join(_section(name, about, fields) for name, about, fields in sections)
    return _HEAD + own + _FOREIGN + foreign_table() + _foreign_unused()


def foreign_table() -> str:
    """LMI's and TGI's variables that are read, with what each sets."""
    lines = ["| variable | of | sets | takes |", "|---|---|---|---|"]
    for variable in sorted(VARIABLES, key=_order):
        only = _only(variable)
        lines.append(f"| `{variable.name}` | {variable.family} | `{variable.setting}` | {variable.takes}{only} |")
    for demand in DEMANDS:
        lines.append(f"| `{demand.name}` | {demand.family} | nothing: {demand.instead} | {demand.takes} |")
    for name, why in PASSED_ON.items():
        lines.append(f"| `{name}` | LMI, TGI | nothing: {why} | never shown |")
    return "\n".join(lines) + "\n"


def _order(variable: Variable) -> tuple[str, str]:
    return variable.setting, variable.name


def _only(variable: Variable | Unused) -> str:
    if isinstance(variable, Variable) and variable.kind:
        return f"; only where `engine.kind` is `{variable.kind}`"
    if variable.beside_model:
        return f"; only beside {' or '.join(f'`{name}`' for name in MODEL_VARIABLES)}"
    return ""


def _foreign_unused() -> str:
    lines = [
        "",
        "These do nothing, and the start says so:",
        "",
        "| variable | of | why, and what to do |",
        "|---|---|---|",
    ]
    lines += [f"| `{unused.name}` | {unused.family} | {unused.reason}{_only(unused)} |" for unused in UNUSED]
    return "\n".join(lines) + "\n"


def settings() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting by its full name."""
    for name, field in _scalars(Settings):
        yield name, field
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for part, inner in kind.model_fields.items():
                yield f"{name}.{part}", inner


def environment(name: str) -> str:
    return "LORAMUX_" + name.upper().replace(".", "__")


def default_of(name: str, field: FieldInfo) -> str:
    if name in _DEFAULTS:
        return _DEFAULTS[name]
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, SecretStr):
        return "none"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (list, dict)):
        return "empty" if not value else "`" + ", ".join(map(str, value)) + "`"
    return "empty" if value == "" else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _scalars(kind: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return [
        (name, field)
        for name, field in kind.model_fields.items()
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
    ]


def _section(name: str, about: str, fields: list[tuple[str, FieldInfo]]) -> str:
    title = f"`[{name}]`" if name else about
    lines = [f"\n## {title}\n"]
    if name:
        lines.append(f"{about}\n")
    lines += ["| setting | environment | default | unit | meaning |", "|---|---|---|---|---|"]
    for part, field in fields:
        full = f"{name}.{part}" if name else part
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        if choices := _choices(field.annotation):
            meaning += f" One of {choices}."
        row = (f"`{full}`", f"`{environment(full)}`", default_of(full, field), _unit(part), meaning)
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    inner = [part for part in get_args(annotation) if part is not NoneType]
    return _choices(inner[0]) if len(inner) == 1 else ""


def _unit(name: str) -> str:
    fitting = [end for end in _UNITS if name.endswith(end)]
    return _UNITS[max(fitting, key=len)] if fitting else ""


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
