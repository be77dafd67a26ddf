"""`ARCHITECTURE.md` tells of the tree as it is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")

_PACKAGES = (ROOT / "adapters" / "loramux_adapters", ROOT / "serving" / "loramux_serving")


def test_every_module_of_the_domain_and_the_gateway_has_its_place() -> None:
    for package in _PACKAGES:
        rooms = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
        files = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
        missing = sorted(name for name in rooms | files if f"`{name}`" not in PAGE)
        assert missing == [], f"not in ARCHITECTURE.md: {missing}"


def test_no_file_is_told_of_that_is_not_there() -> None:
    names = {path.name for package in _PACKAGES for path in package.rglob("*.py")}
    told = {Path(name).name for name in re.findall(r"`([a-z0-9_/]+\.py)`", PAGE)} - {"settings_table.py"}
    assert sorted(told - names) == []


def test_there_is_no_room_for_leftovers() -> None:
    generic = {"utils", "util", "helpers", "helper", "common", "misc", "manager2"}
    found = [path for package in _PACKAGES for path in package.rglob("*.py") if path.stem in generic]
    assert found == []
