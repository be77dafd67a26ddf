"""Which paths the relay serves itself, for POST, and who speaks there."""

from collections.abc import Mapping

import httptools
import msgspec

from loramux_serving.auth import sigv4
from loramux_serving.relay.dialect import Route
from loramux_serving.relay.dialects import tgi
from loramux_serving.relay.dialects.invocations import PATH as INVOCATIONS
from loramux_serving.relay.dialects.invocations import InvocationsDialect
from loramux_serving.relay.dialects.openai import OpenAIDialect
from loramux_serving.relay.dialects.sagemaker import OPERATIONS, SageMakerDialect
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.request import ENDPOINTS

_AWS_TARGET = b"x-amz-target"
"""Names an operation of SageMaker's control plane, which is FastAPI's."""
_ENDPOINTS = b"/endpoints/"


class Doors:
    """Immutable. `at` is looked into first, with the target as it came: one look for most requests."""

    def __init__(self, routes: Mapping[bytes, Route], behind_endpoints: Mapping[bytes, Route]) -> None:
        """`behind_endpoints`: by the last part of `/endpoints/{name}/{last part}`."""
        self._routes = routes
        self._behind_endpoints = behind_endpoints
        self.at: Mapping[bytes, Route] = {path: route for path, route in routes.items() if path != b"/"}

    @property
    def labels(self) -> list[str]:
        return sorted({route.label for route in (*self._routes.values(), *self._behind_endpoints.values())})

    def find(self, target: bytes, headers: Headers) -> Route | None:
        """The route of a target with a query, in absolute form, or with a name in its path. Raises
        `httptools.HttpParserInvalidURLError` for one that can not be read."""
        path = target.partition(b"?")[0]
        if not path.startswith(b"/"):
            path = httptools.parse_url(target).path or b""
        if path.startswith(_ENDPOINTS):
            name, slash, last = path[len(_ENDPOINTS) :].partition(b"/")
            return self._behind_endpoints.get(last) if name and slash else None
        if path == b"/" and any(header == _AWS_TARGET for header, _ in headers):
            return None
        return self._routes.get(path)


class DoorPlan(msgspec.Struct, frozen=True):
    """What doors must know. Travels to workers, so it holds no secret."""

    base_name: str
    """The model of requests that name none."""
    max_total_tokens: int = 0
    """Longest prompt and answer together, as the settings have it. 0: what the model says."""
    account: str = "000000000000"
    """The AWS account that ARNs name."""


def make_doors(plan: DoorPlan) -> Doors:
    """All of them."""
    routes = {path.encode(): Route(path, OpenAIDialect(path)) for path in ENDPOINTS}
    for path in tgi.PATHS:
        dialect = tgi.TgiDialect(plan.base_name, path, max_total_tokens=plan.max_total_tokens)
        routes[path.encode()] = Route(path, dialect)
    routes[INVOCATIONS.encode()] = Route(INVOCATIONS, InvocationsDialect(plan.base_name))
    behind_endpoints = {
        operation.encode(): Route(
            f"/endpoints/{{EndpointName}}/{operation}", SageMakerDialect(operation, sigv4, account=plan.account)
        )
        for operation in OPERATIONS
    }
    return Doors(routes, behind_endpoints)
