"""`tests/promises.toml` and the tests agree, both ways."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISES = tomllib.loads((ROOT / "tests" / "promises.toml").read_text())
_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def named_in(path: Path) -> set[str]:
    name = path.relative_to(ROOT).as_posix()
    return {f"{name}::{test}" for test in _TEST.findall(path.read_text())}


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_is_shown_by_tests_that_exist(promise: str) -> None:
    shown = PROMISES[promise]["shown"]
    assert PROMISES[promise]["says"]
    assert shown
    for test in shown:
        assert test in named_in(ROOT / test.partition("::")[0])


def test_each_end_to_end_test_shows_a_promise() -> None:
    shown = {test for promise in PROMISES.values() for test in promise["shown"]}
    there = set().union(*(named_in(path) for path in (ROOT / "tests" / "e2e").glob("test_*.py")))
    assert there - shown == set()
