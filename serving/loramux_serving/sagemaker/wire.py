"""Requests and answers in the JSON 1.1 protocol."""

import re
from typing import Any, TypeVar

import msgspec

from loramux_adapters.errors import RequestInvalid
from loramux_adapters.names import shown
from loramux_serving.sagemaker.shapes.basics import Input, Output

_Request = TypeVar("_Request", bound=Input)

_FAULT = re.compile(r"(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[A-Za-z0-9_]+)|\[(?P<index>\d+|\.\.\.)\]")
_MISSING = re.compile(r"Object missing required field `(?P<name>\w+)`")
_NULL = re.compile(r"Expected .*, got `null`")
_BOUND = re.compile(r"Expected `(?P<type>\w+)`(?: of length)? (?P<sign><=|>=) (?P<bound>.+)")
_PATTERN = re.compile(r"Expected `str` matching regex '(?P<pattern>.*)'", re.DOTALL)
_ENUM = re.compile(r"Invalid enum value")

_UNSHOWN = "environment"
"""Its values are not said back."""


def decode(body: bytes, kind: type[_Request]) -> _Request:
    """Raises `RequestInvalid` as the service words it: `SerializationException` for what is of a wrong type, else the
    constraint that is not met."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), body, kind) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise _serialization(f"The body is not JSON: {error}.") from error


def encode(answer: Output | None) -> bytes:
    """Operations that answer nothing have an empty body."""
    return b"" if answer is None else msgspec.json.encode(answer)


def _serialization(message: str) -> RequestInvalid:
    return RequestInvalid(message, details={"aws_code": "SerializationException"})


def _invalid(told: str, body: bytes, kind: type[Input]) -> RequestInvalid:
    fault = _FAULT.fullmatch(told)
    assert fault is not None
    what, path = fault["what"], fault["path"] or ""
    if missing := _MISSING.fullmatch(what):
        return _unmet("null", f"{path}.{missing['name']}", "Member must not be null")
    if _NULL.fullmatch(what):
        return _unmet("null", path, "Member must not be null")
    constraint = _constraint(what, kind, path)
    if constraint is None:
        return _serialization(f"{what}{f' at {_member(path)}' if path else ''}.")
    return _unmet(_value(body, path, bool(fault["key"])), path, constraint)


def _unmet(value: str, path: str, constraint: str) -> RequestInvalid:
    return RequestInvalid(
        f"1 validation error detected: Value {value} at '{_member(path)}' failed to satisfy constraint: {constraint}"
    )


def _constraint(what: str, kind: type[Input], path: str) -> str | None:
    if found := _PATTERN.fullmatch(what):
        pattern = found["pattern"].replace("\\\\", "\\").removeprefix("^").removesuffix("\\Z")
        return f"Member must satisfy regular expression pattern: {pattern}"
    if found := _BOUND.fullmatch(what):
        side = "less" if found["sign"] == "<=" else "greater"
        measure = "value" if found["type"] in ("int", "float") else "length"
        return f"Member must have {measure} {side} than or equal to {found['bound'].removesuffix('.0')}"
    if _ENUM.match(what):
        return f"Member must satisfy enum value set: [{', '.join(_choices(kind, path))}]"
    return None


def _choices(kind: type[Input], path: str) -> list[str]:
    """The values that the member at `path` may have."""
    found: Any = msgspec.inspect.type_info(kind)
    for step in _STEP.finditer(path):
        found = _inner(found)
        if step["index"] is not None:
            found = getattr(found, "item_type", None) or found.value_type
        else:
            found = next(field.type for field in found.fields if field.encode_name == step["name"])
    return [str(value) for value in _inner(found).values]


def _inner(found: Any) -> Any:
    """Without metadata and None."""
    while True:
        if isinstance(found, msgspec.inspect.Metadata):
            found = found.type
        elif isinstance(found, msgspec.inspect.UnionType):
            found = next(each for each in found.types if not isinstance(each, msgspec.inspect.NoneType))
        else:
            return found


def _value(body: bytes, path: str, of_key: bool) -> str:
    """What the caller sent there, quoted."""
    found: Any = msgspec.json.decode(body)
    for step in _STEP.finditer(path):
        if step["index"] == "..." or str(step["name"]).lower() == _UNSHOWN or of_key:
            return "(not shown)"
        found = found[int(step["index"])] if step["index"] else found[step["name"]]
    return shown(found) if isinstance(found, str) else shown(msgspec.json.encode(found).decode()).replace('"', "'")


def _member(path: str) -> str:
    """As the service writes it: `$.Tags[0].Key` is `tags.1.member.key`."""
    steps = []
    for step in _STEP.finditer(path):
        if step["name"]:
            steps.append(step["name"][:1].lower() + step["name"][1:])
        elif step["index"] != "...":
            steps += [str(int(step["index"]) + 1), "member"]
    return ".".join(steps)
