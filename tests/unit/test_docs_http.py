"""Every route, request field and event type is in `docs/http.md`."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from loramux_serving.api.admin import views
from loramux_serving.app import create_app
from loramux_serving.relay.doors import DoorPlan, make_doors
from loramux_serving.services import Services

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "http.md").read_text("utf-8")

_ADMIN = "/admin/v1"
_RELAYED = make_doors(DoorPlan("base")).labels
_EVENT = re.compile(r'\.publish\(\s*f?"([a-z_]+)\.([a-z_{}]+)"')


def test_every_route_is_named() -> None:
    paths = create_app(cast(Services, None), nullcontext()).openapi()["paths"]
    routes = [f"{method.upper()} {path.removeprefix(_ADMIN)}" for path, methods in paths.items() for method in methods]
    assert routes
    assert [route for route in routes if f"`{route}`" not in PAGE] == []
    assert [path for path in _RELAYED if f"`POST {path}`" not in PAGE] == []


def test_no_route_is_named_that_is_not_there() -> None:
    paths = create_app(cast(Services, None), nullcontext()).openapi()["paths"]
    known = {f"{method.upper()} {path.removeprefix(_ADMIN)}" for path, methods in paths.items() for method in methods}
    known |= {f"POST {path}" for path in _RELAYED}
    told = re.findall(r"^\| `((?:GET|POST|PUT|DELETE) [^`]+)`", PAGE, re.MULTILINE)
    assert [route for route in told if route not in known] == []


def test_every_field_of_a_request_is_named() -> None:
    heard = [
        kind
        for kind in vars(views).values()
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.model_config.get("extra") == "forbid"
    ]
    assert views.AddAdapter in heard
    missing = {
        f"{kind.__name__}.{field}"
        for kind in heard
        for field in kind.model_fields
        if f"`{field}`" not in PAGE and f'"{field}"' not in PAGE
    }
    assert missing == set()


def test_every_event_is_named() -> None:
    found = set()
    for path in [*(ROOT / "adapters").rglob("*.py"), *(ROOT / "serving").rglob("*.py")]:
        found |= set(_EVENT.findall(path.read_text("utf-8")))
    assert found
    missing = [
        f"{noun}.{verb}"
        for noun, verb in found
        if "{" not in verb and f"`{noun}.{verb}`" not in PAGE and not re.search(rf"`{noun}\.[^|]*`\.{verb}`", PAGE)
    ]
    assert missing == []
