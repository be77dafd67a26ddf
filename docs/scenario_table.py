"""Makes `docs/scenarios.md` from the scenarios' own model: `python docs/scenario_table.py`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loramux_bench.scenario import Scenario, available, load_scenario

PAGE = Path(__file__).with_name("scenarios.md")

Schema = Mapping[str, Any]
"""JSON schema, as pydantic makes it."""

_WHOLE: Schema = Scenario.model_json_schema()

_DEFAULTS = {"name": "the file's name"}
"""Defaults that are made when a file is read."""

_HEAD = """\
# Scenarios

<!-- Made by `python docs/scenario_table.py` from bench/loramux_bench/scenario.py. Do not edit. -->

A scenario says what load to send where. It is a TOML file; [bench.md](bench.md) says how it is run, and what comes of
it. A key that does not exist, or a value that does not fit, ends the command before anything is sent, with each fault
and its place. Files that it names are looked for from the current directory, then in the checkout.

`--set` changes a key for one run, by its full name as below: `--set load.users=4`. The value is TOML; text needs no
quotes. A place in a list is a number, from 0: `--set targets.0.model=pirate`.

```toml
about = "Twenty users and three adapters, the first of them for half of all requests."
slos = ["ttft:p99:500ms", "error_rate:0%"]

[load]
users = 20
warmup_requests = 20
duration_s = 120

[prompts]
input_tokens = { mean = 500, stddev = 25 }
output_tokens = { mean = 200, stddev = 20 }

[adapters]
names = ["pirate", "shop-sql", "ticket-json"]
choice = "zipf"
alpha = 0.9
```

Only `load` is needed, with an end: `requests`, `duration_s`, or the last of its stages or of a trace.
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the file; one that is found at several places is told once."""

    places: tuple[str, ...]
    """Full names; of the file itself the empty one."""
    listed: bool
    """`[[name]]` instead of `[name]`."""
    schema: Schema


def page() -> str:
    """The whole of `scenarios.md`."""
    return _HEAD + _coming() + "".join(_section(table) for table in tables())


def tables() -> tuple[Table, ...]:
    """The file itself, and each table in it, in the order of the keys that lead to them."""
    found: dict[str, Table] = {"": Table(("",), False, _WHOLE)}
    for place, inner in _inner("", _WHOLE):
        name = _table_name(inner)
        before = found.get(name)
        places = (*before.places, place) if before else (place,)
        found[name] = Table(places, inner.get("type") == "array", _definition(inner))
    return tuple(found.values())


def keys() -> Iterator[tuple[str, Schema]]:
    """Every key by its full name, tables and the keys in them."""
    for table in tables():
        for name, schema in table.schema["properties"].items():
            for place in table.places:
                yield f"{place}.{name}" if place else name, schema


def meaning_of(schema: Schema) -> str:
    """Empty where none is given. Pydantic leaves out a key's where it is the same as its table's."""
    told = schema.get("description") or _definition(schema).get("description") or ""
    return " ".join(told.split()).replace("|", "\\|")


def _inner(place: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Keys that hold tables of ours, at any depth, by their full names."""
    for key, inner in schema["properties"].items():
        if _table_name(inner):
            full = f"{place}.{key}" if place else key
            yield full, inner
            yield from _inner(full, _definition(inner))


def _table_name(schema: Schema) -> str:
    """Of the definition that a key's values have; empty for a key that holds no table of ours."""
    for part in (schema, schema.get("items", {}), *schema.get("anyOf", ())):
        if "$ref" in part:
            return str(part["$ref"]).rpartition("/")[2]
    return ""


def _definition(schema: Schema) -> Schema:
    """Of the table that a key holds, likewise."""
    found: Schema = _WHOLE["$defs"].get(_table_name(schema), {})
    return found


def _coming() -> str:
    lines = ["\n## Scenarios that come with the bench\n", "| name | about |", "|---|---|"]
    lines += [f"| `{name}` | {' '.join(load_scenario(name).about.split())} |" for name in available()]
    return "\n".join(lines) + "\n"


def _section(table: Table) -> str:
    marks = [f"`[[{place}]]`" if table.listed else f"`[{place}]`" for place in table.places]
    lines = [f"\n## {' and '.join(marks) if table.places[0] else 'The file'}\n"]
    if table.places[0]:
        lines.append(f"{meaning_of(table.schema)}\n")
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, schema in table.schema["properties"].items():
        needed = name in table.schema.get("required", ())
        full = [f"{place}.{name}" if place else name for place in table.places]
        shown = _DEFAULTS.get(full[0]) or ("needed" if needed else _default(schema))
        row = (", ".join(f"`{each}`" for each in full), _type(schema), shown, meaning_of(schema))
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _type(schema: Schema) -> str:
    if "anyOf" in schema:
        return _type(next(part for part in schema["anyOf"] if part.get("type") != "null"))
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "const" in schema:
        return _value(schema["const"])
    if "$ref" in schema:
        return "table"
    match schema["type"]:
        case "array":
            return f"list of {_type(schema['items'])}{'s' if _table_name(schema) else ''}"
        case "object":
            values = schema.get("additionalProperties")
            return f"table of {_type(values)}" if isinstance(values, dict) else "table"
        case "boolean":
            return "`true` or `false`"
        case "integer":
            return f"whole number{_bounds(schema)}"
        case "number":
            return f"number{_bounds(schema)}"
        case _:
            return "text"


def _bounds(schema: Schema) -> str:
    signs = (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
    told = [f"{sign} {schema[name]:g}" for name, sign in signs if name in schema]
    return f" {', '.join(told)}" if told else ""


def _default(schema: Schema) -> str:
    value = schema["default"]
    own = _own_defaults(schema)
    if own and value in (own, [own]):
        return "its own" if value == own else "one, with its own"
    return _value(value)


def _own_defaults(schema: Schema) -> dict[str, Any]:
    """Of a table of ours, each key's default."""
    properties = _definition(schema).get("properties", {})
    return {name: inner["default"] for name, inner in properties.items() if "default" in inner}


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if value in ("", [], {}):
        return "empty"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
