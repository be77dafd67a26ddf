"""The relay's tests once more, on the loop that the gateway runs on: the loops differ in how connections end."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from types import ModuleType

import pytest
import uvloop

from tests.integration import test_relay_failures, test_relay_framing, test_relay_way

Scenario = Callable[..., Coroutine[None, None, None]]


def _scenarios(*modules: ModuleType) -> list[tuple[Scenario, dict[str, object]]]:
    """Every asynchronous test of these modules; of those with parameters, the first and the last set."""
    found: list[tuple[Scenario, dict[str, object]]] = []
    for module in modules:
        for name, test in vars(module).items():
            if name.startswith("test_") and inspect.iscoroutinefunction(test):
                sets = _parameters(test)
                found += [(test, chosen) for chosen in (sets[0], sets[-1])[: len(sets)]]
    return found


def _parameters(test: Scenario) -> list[dict[str, object]]:
    sets: list[dict[str, object]] = [{}]
    for mark in getattr(test, "pytestmark", []):
        names, values = mark.args[:2]
        keys = [names] if isinstance(names, str) else list(names)
        rows = [dict(zip(keys, (value,) if isinstance(names, str) else value, strict=True)) for value in values]
        sets = [{**one, **row} for one in sets for row in rows]
    return sets


@pytest.mark.parametrize(
    ("scenario", "arguments"),
    [
        pytest.param(scenario, arguments, id=f"{scenario.__name__[5:]}-{number}")
        for number, (scenario, arguments) in enumerate(
            _scenarios(test_relay_way, test_relay_framing, test_relay_failures)
        )
    ],
)
def test_on_uvloop(scenario: Scenario, arguments: dict[str, object]):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario(**arguments))
