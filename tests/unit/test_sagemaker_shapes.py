"""No field is invented: requests and answers of the control plane against SageMaker's own service model."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.inspect import (
    BoolType,
    DictType,
    FloatType,
    IntType,
    ListType,
    LiteralType,
    Metadata,
    NoneType,
    StrType,
    StructType,
    Type,
    UnionType,
)

from loramux_serving.sagemaker.assembly import build_control_plane
from loramux_serving.sagemaker.control_plane import Operation
from loramux_serving.sagemaker.shapes import components, endpoint_configs, endpoints, models, tagging
from loramux_serving.sagemaker.shapes.basics import Output
from tests.fixtures.sagemaker_model import service

# Not checked in some requests: adapters that came otherwise may have other names, and machines are the operator's.
_LOOSE = ("InferenceComponentName", "InstanceType", "InferenceAmiVersion")
ARN = "arn:aws:sagemaker:x:000000000000:model/a"
_TAG_PATTERN = r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)"


def operations() -> dict[str, Operation]:
    nothing: Any = None
    plane = build_control_plane(
        nothing, nothing, nothing, nothing, nothing, nothing, nothing, start_timeout_s=1.0, account="0" * 12
    )
    return plane.operations


OPERATIONS = sorted(operations())


def output_of(name: str) -> type[Output] | None:
    for module in (models, endpoint_configs, endpoints, components, tagging):
        found = getattr(module, f"{name}Output", None)
        if found is not None:
            kind: type[Output] = found
            return kind
    return None


def bare(found: Type) -> Type:
    """Without metadata and None."""
    if isinstance(found, Metadata):
        return bare(found.type)
    if isinstance(found, UnionType):
        rest = [each for each in found.types if not isinstance(each, NoneType)]
        assert len(rest) == 1, found
        return bare(rest[0])
    return found


def differences(ours: Type, theirs: Any, at: str, *, answer: bool) -> Iterator[str]:
    ours = bare(ours)
    match ours, theirs.type_name:
        case StructType(), "structure":
            yield from _of_fields(ours, theirs, at, answer=answer)
        case ListType(), "list":
            if not _foreign(ours.item_type):
                yield from _bounds(ours.min_length, ours.max_length, theirs, at, answer=answer)
                yield from differences(ours.item_type, theirs.member, f"{at}[]", answer=answer)
        case DictType(), "map":
            yield from _bounds(ours.min_length, ours.max_length, theirs, at, answer=answer)
            yield from differences(ours.key_type, theirs.key, f"{at} key", answer=answer)
            yield from differences(ours.value_type, theirs.value, f"{at}{{}}", answer=answer)
        case DictType(), "structure" if _foreign(ours):
            pass  # refused wherever it does something, and so not read
        case StrType(), "string":
            yield from _bounds(ours.min_length, ours.max_length, theirs, at, answer=answer)
            yield from _pattern(ours.pattern, theirs, at, answer=answer)
        case LiteralType(), "string":
            unknown = set(ours.values) - set(theirs.enum)
            if unknown or (not answer and set(ours.values) != set(theirs.enum)):
                yield f"{at}: {ours.values} are not {theirs.enum}"
        case IntType(), "integer" | "long":
            yield from _bounds(ours.ge, ours.le, theirs, at, answer=answer)
        case FloatType(), "float" | "double":
            yield from _bounds(ours.ge, ours.le, theirs, at, answer=answer)
        case (FloatType(), "timestamp") | (BoolType(), "boolean"):
            pass
        case _:
            yield f"{at}: {ours} for {theirs.type_name}"


def _of_fields(ours: StructType, theirs: Any, at: str, *, answer: bool) -> Iterator[str]:
    if ours.cls.__name__ != theirs.name and not theirs.name.endswith(("Input", "Request", "Output", "Response")):
        yield f"{at}: {ours.cls.__name__} is {theirs.name} in the model"
    known = {field.encode_name: field for field in ours.fields}
    for name, field in known.items():
        if name not in theirs.members:
            yield f"{at}.{name}: there is no such member"
            continue
        if field.required is not (name in theirs.required_members):
            yield f"{at}.{name}: required differs"
        yield from differences(field.type, theirs.members[name], f"{at}.{name}", answer=answer)
    for name in theirs.required_members:
        if name not in known:
            yield f"{at}.{name}: required, and missing"


def _foreign(ours: Type) -> bool:
    return isinstance(ours, DictType) and not isinstance(bare(ours.value_type), StrType)


def _bounds(least: Any, most: Any, theirs: Any, at: str, *, answer: bool) -> Iterator[str]:
    wanted = theirs.metadata.get("min"), theirs.metadata.get("max")
    told = (wanted[0] or None, wanted[1])  # a length or value of 0 or more is no bound that could be missed
    if (least or None, most) != told and not _is_loose(least, most, None, at, answer=answer):
        yield f"{at}: bounds {least}, {most} are {wanted} in the model"


def _pattern(pattern: str | None, theirs: Any, at: str, *, answer: bool) -> Iterator[str]:
    wanted = theirs.metadata.get("pattern")
    if wanted == _TAG_PATTERN or _is_loose(None, None, pattern, at, answer=answer):
        return
    if pattern != (None if wanted is None else rf"^{wanted}\Z"):
        yield f"{at}: pattern {pattern} is {wanted} in the model"


def _is_loose(least: Any, most: Any, pattern: str | None, at: str, *, answer: bool) -> bool:
    """Answers repeat what was checked when it came; and nothing may be checked that the model does not ask for."""
    nothing = least is None and most is None and pattern is None
    return nothing and (answer or at.endswith(_LOOSE))


@pytest.mark.parametrize("name", OPERATIONS)
def test_requests_are_as_the_model_says(name: str) -> None:
    shape = service().operation_model(name).input_shape
    assert list(differences(msgspec.inspect.type_info(operations()[name].asked), shape, name, answer=False)) == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_as_the_model_says(name: str) -> None:
    shape, ours = service().operation_model(name).output_shape, output_of(name)
    assert (shape is None) is (ours is None)
    if ours is not None:
        assert list(differences(msgspec.inspect.type_info(ours), shape, name, answer=True)) == []


def test_every_shape_is_used() -> None:
    """Each operation has its own, and none is left over."""
    for module in (models, endpoint_configs, endpoints, components, tagging):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__ and (found := re.fullmatch(r"(.+?)(Input|Output)", name)):
                assert found[1] in OPERATIONS
    assert {f"{name}Input" for name in OPERATIONS} == {each.asked.__name__ for each in operations().values()}


@pytest.mark.parametrize("text", ["team", "größe", "a b", "a:/=+-@._", "名前", "\u00a0"])
def test_tags_take_what_the_service_takes(text: str) -> None:
    told = msgspec.json.encode({"ResourceArn": ARN, "Tags": [{"Key": text, "Value": ""}]})
    assert msgspec.json.decode(told, type=tagging.AddTagsInput).tags[0].key == text


@pytest.mark.parametrize("text", ["", "a\n", "a\tb", "a*", "a,b", "x" * 129])
def test_tags_refuse_what_the_service_refuses(text: str) -> None:
    told = msgspec.json.encode({"ResourceArn": ARN, "Tags": [{"Key": text, "Value": ""}]})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(told, type=tagging.AddTagsInput)
