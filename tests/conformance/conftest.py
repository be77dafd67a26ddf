"""Gateways that the whole suite shares: one for each event loop and kind of limits."""

from collections.abc import Iterator

import pytest

from tests.conformance.scene import Scene, scenes
from tests.conformance.wire import Wire, wires

AT_ONCE = "entering at once"
WAYS = [("uvloop", AT_ONCE), ("uvloop", "waiting"), ("asyncio", AT_ONCE)]
"""The loop, and whether the gate lets requests in within the callback that brought them, so that most of them take no
task, or after a wait."""


@pytest.fixture(scope="session", params=WAYS, ids=lambda way: f"{way[0]}, {way[1]}")
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Scene, Scene]]:
    loop_name, entry = request.param
    with scenes(loop_name, at_once=entry == AT_ONCE) as both:
        yield both


@pytest.fixture
def scene(running: tuple[Scene, Scene]) -> Scene:
    """A gateway with usual limits: 16 KiB heads, 256 KiB bodies, one try."""
    running[0].reset()
    return running[0]


@pytest.fixture
def hasty(running: tuple[Scene, Scene]) -> Scene:
    """One whose limits of time are all 0.2 s."""
    running[1].reset()
    return running[1]


@pytest.fixture(scope="session")
def wire() -> Iterator[Wire]:
    """A gateway's protocol class, to be fed by hand."""
    with wires() as one:
        yield one
