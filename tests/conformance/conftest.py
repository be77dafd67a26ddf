"""Gateways that the whole suite shares: one for each event loop and kind of limits."""

from collections.abc import Iterator

import pytest

from tests.conformance.scene import LOOPS, Scene, scenes
from tests.conformance.wire import Wire, wires


@pytest.fixture(scope="session", params=list(LOOPS))
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Scene, Scene]]:
    with scenes(request.param) as both:
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
