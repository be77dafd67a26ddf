"""`ARCHITECTURE.md` tells of the tree as it is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")

_PACKAGES = tuple(ROOT / name / f"loramux_{name}" for name in ("adapters", "serving", "bench"))

_FILE = re.compile(r"`([a-z0-9_/]+\.py)`")
_ROOM = re.compile(r"`([a-z0-9_/]+/)`")


def section(package: Path) -> str:
    """What is told of one package: from its heading to the next."""
    (found,) = re.findall(rf"^### {package.parent.name}: .*?\n(.*?)^##", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.parametrize("package", _PACKAGES, ids=lambda package: package.name)
def test_every_module_and_room_has_its_place(package: Path) -> None:
    rooms = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    files = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    told = section(package)
    missing = sorted(name for name in rooms | files if f"`{name}`" not in told)
    assert missing == [], f"not in ARCHITECTURE.md: {missing}"


@pytest.mark.parametrize("package", _PACKAGES, ids=lambda package: package.name)
def test_no_file_or_room_of_a_package_is_told_of_that_is_not_there(package: Path) -> None:
    told = section(package)
    assert {Path(name).name for name in _FILE.findall(told)} <= {path.name for path in package.rglob("*.py")}
    assert [room for room in _ROOM.findall(told) if not (package / room).is_dir()] == []


def test_no_file_is_told_of_that_is_not_there() -> None:
    places = (*_PACKAGES, ROOT / "docs")
    names = {path.name for place in places for path in place.rglob("*.py")}
    assert sorted({Path(name).name for name in _FILE.findall(PAGE)} - names) == []


def test_there_is_no_room_for_leftovers() -> None:
    generic = {"utils", "util", "helpers", "helper", "common", "misc", "manager2"}
    found = [path for package in _PACKAGES for path in package.rglob("*.py") if path.stem in generic]
    assert found == []
