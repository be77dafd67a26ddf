"""What two parsers could read in two ways is refused, and not a byte of it goes on."""

import pytest

from tests.conformance.scene import Scene
from tests.conformance.smuggling_corpus import CORPUS, HOT, MARK

ROUTES = {"inference": HOT, "application": b"/admin/v1/adapters"}


@pytest.mark.parametrize("path", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("name", CORPUS)
def test_it_is_refused_and_not_forwarded(scene: Scene, name: str, path: bytes) -> None:
    with scene.caller() as caller:
        caller.send(CORPUS[name].replace(HOT, path, 1))
        (answer,) = caller.answers()
    assert 400 <= answer.status < 500
    assert answer.code
    assert answer.one("connection") == "close"
    upstream = scene.received
    assert upstream.requests == []
    assert MARK not in upstream.bytes_seen.lower()
    assert scene.gate.asgi_bodies == []
