"""Every key of a scenario is in `docs/scenarios.md`, as it is now."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from docs.scenario_table import PAGE, keys, page
from loramux_bench.results.slo import parse as parse_slo
from loramux_bench.scenario import Scenario, parse

_ROW = re.compile(r"^\| (`[a-z_.`, ]+`) \| (.+?) \| (.+?) \| (.+) \|$", re.MULTILINE)


def parts_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from parts_of(inner)


def fields(model: type[BaseModel], place: str = "") -> dict[str, str]:
    """What the code says of each key, by the key's full name."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        full = f"{place}.{name}" if place else name
        found[full] = field.description or ""
        for part in parts_of(field.annotation):
            found |= fields(part, full)
    return found


def test_the_page_is_what_the_scenarios_say() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python docs/scenario_table.py"


def test_every_key_has_a_meaning() -> None:
    assert [name for name, meaning in fields(Scenario).items() if not meaning.strip()] == []


def test_every_key_has_a_row_with_type_default_and_meaning() -> None:
    told = [name.strip("` ") for names, *_ in _ROW.findall(PAGE.read_text("utf-8")) for name in names.split(",")]
    assert sorted(told) == sorted(fields(Scenario))
    assert sorted(name for name, _ in keys()) == sorted(fields(Scenario))


def test_its_example_is_a_scenario() -> None:
    found = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    example = parse({"name": "example", **tomllib.loads(found[0])}, "of the page")
    assert [parse_slo(text).text for text in example.slos] == list(example.slos)
