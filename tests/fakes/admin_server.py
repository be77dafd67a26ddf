"""An admin interface over a dictionary, for the command line's tests. What it hears and says goes through the
gateway's own wire types, so that it can not drift from them."""

import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote

import httpx
from pydantic import BaseModel

from loramux_serving.api.admin import views

_Heard = TypeVar("_Heard", bound=BaseModel)

KEY = "lmx_test"
BASE = "tiny"


def version(number: int, **changed: Any) -> views.VersionView:
    fields: dict[str, Any] = {
        "number": number,
        "state": "ready",
        "reason": None,
        "source": f"/adapters/v{number}",
        "sha256": "ab" * 32,
        "engine_name": "pirate@abababababab",
        "bytes": 3 * 1024 * 1024,
        "rank": 8,
        "alpha": 16.0,
        "modules": ["q_proj", "v_proj"],
        "dtype": "F32",
        "warnings": [],
        "tiers": {"engine-0": "gpu", "engine-1": "disk"},
        "created_at": 1.7e9,
        "ready_at": 1.7e9,
    }
    return views.VersionView(**{**fields, **changed})


def adapter(name: str, **changed: Any) -> views.AdapterView:
    fields: dict[str, Any] = {
        "name": name,
        "base": BASE,
        "state": "ready",
        "reason": None,
        "live": 1,
        "canary": None,
        "aliases": [],
        "pin": None,
        "tiers": {"engine-0": "gpu", "engine-1": "disk"},
        "residency": {
            "engine-0": views.ResidencyView(tier="gpu", bytes=3 * 1024 * 1024, pin="gpu", age_s=0.4),
            "engine-1": views.ResidencyView(tier="disk", bytes=None, pin=None, age_s=1.2),
        },
        "running": 2,
        "queued": 1,
        "requests": 7,
        "last_used_at": None,
        "created_at": 1.7e9,
        "updated_at": 1.7e9,
        "versions": [version(1)],
    }
    return views.AdapterView(**{**fields, **changed})


class AdminServer:
    """`transport` answers as a gateway would. Operations end at the second look, as `ending` says."""

    def __init__(self) -> None:
        self.adapters = {"pirate": adapter("pirate")}
        self.aliases: dict[str, views.AliasView] = {}
        self.operations: dict[str, views.OperationView] = {}
        self.ending: dict[str, Any] = {"state": "succeeded", "progress": 1.0}
        self.wanted = self.ready = 1
        self.requests: list[tuple[str, str]] = []
        self.last: Any = None
        self.upload = b""
        self.events = b""
        self.metrics = ""
        self.headers: httpx.Headers = httpx.Headers()

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((request.method, request.url.raw_path.decode()))
        self.headers = request.headers
        body = request.read()
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _error(401, "unauthenticated", "The key is not known here.")
        path = request.url.raw_path.decode().partition("?")[0]
        if path == "/metrics":
            return httpx.Response(200, text=self.metrics)
        if path.startswith("/v1/"):
            return self._inference(path, body)
        parts = [unquote(part) for part in path.removeprefix("/admin/v1/").split("/")]
        handler: Callable[..., httpx.Response] = getattr(self, f"_{parts[0]}")
        return handler(request, body, *parts[1:])

    def _adapters(self, request: httpx.Request, body: bytes, name: str = "", *rest: str) -> httpx.Response:
        if not name:
            if request.method == "POST":
                heard = self._hear(views.AddAdapter, body)
                self.adapters[heard.name] = adapter(heard.name)
                return self._accepted("add", heard.name)
            return self._page(request)
        if rest[:1] == ("artifact",):
            self.upload = body
            self.last = dict(request.url.params)
            self.adapters.setdefault(name, adapter(name))
            return self._accepted("add", name)
        view = self.adapters.get(name)
        if view is None:
            return _error(404, "adapter_not_found", f"There is no adapter {name!r}.")
        if request.method == "DELETE":
            self.last = rest
            return self._accepted("delete_version" if rest else "delete_adapter", name, int(rest[1]) if rest else None)
        if not rest:
            return _said(view)
        return self._act(name, view, rest[0], body)

    def _act(self, name: str, view: views.AdapterView, call: str, body: bytes) -> httpx.Response:
        if call == "versions":
            heard = self._hear(views.AddVersion, body)
            number = len(view.versions) + 1
            canary = None if isinstance(heard.promote, bool) else views.CanaryView(version=number, weight=heard.promote)
            live = number if heard.promote is True else view.live
            grown = {"versions": [*view.versions, version(number)], "live": live, "canary": canary}
            self.adapters[name] = view.model_copy(update=grown)
            return self._accepted("update", name, number)
        changed: dict[str, Any] = {}
        if call == "promote":
            changed = {"live": self._hear(views.Promote, body).version}
        elif call == "canary":
            asked = self._hear(views.Canary, body)
            changed["canary"] = (
                None
                if asked.version is None
                else views.CanaryView(
                    version=asked.version,
                    weight=asked.weight,
                    sticky=asked.sticky,
                    rule=None if asked.rule is None else views.RuleView(**asked.rule.model_dump()),
                )
            )
        elif call == "pin":
            changed = {"pin": self._hear(views.Pin, body).tier}
        elif call == "prefetch":
            self._hear(views.Prefetch, body)
        elif call == "unpin":
            changed = {"pin": None}
        self.adapters[name] = view.model_copy(update=changed)
        return _said(self.adapters[name])

    def _page(self, request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        self.last = dict(asked)
        names = [name for name in sorted(self.adapters) if name > asked.get("cursor", "")]
        page = names[: int(asked["limit"])]
        return _said(
            views.AdapterPage(
                adapters=[self.adapters[name] for name in page],
                next_cursor=page[-1] if len(names) > len(page) else None,
                total=len(self.adapters),
            )
        )

    def _aliases(self, request: httpx.Request, body: bytes, name: str = "") -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"aliases": [alias.model_dump() for alias in self.aliases.values()]})
        if request.method == "DELETE":
            self.aliases.pop(name)
            return httpx.Response(204)
        heard = self._hear(views.SetAlias, body)
        self.aliases[name] = views.AliasView(name=name, adapter=heard.adapter, version=heard.version, created_at=1.7e9)
        return _said(self.aliases[name])

    def _keys(self, request: httpx.Request, body: bytes, key_id: str = "") -> httpx.Response:
        key = {
            "id": "key_1",
            "name": "team",
            "role": "inference",
            "adapters": ["pirate*"],
            "requests_per_minute": 60,
            "tokens_per_minute": None,
            "created_at": 1.7e9,
            "revoked_at": 1.7e9 if key_id else None,
            "access_key_id": None,
        }
        if request.method == "POST":
            if self._hear(views.CreateKey, body).aws:
                made = views.NewAwsKey(id="key_1", access_key_id="LMXA7", secret_access_key="aws/secret")
                return _said(made, 201)
            return _said(views.NewKey(id="key_1", key="lmx_secret"), 201)
        return _said(views.KeyView(**key)) if key_id else httpx.Response(200, json={"keys": [key]})

    def _operations(self, _request: httpx.Request, _body: bytes, operation_id: str) -> httpx.Response:
        view = self.operations.get(operation_id)
        if view is None:
            return _error(404, "operation_not_found", f"There is no operation {operation_id!r}.")
        self.operations[operation_id] = view.model_copy(update={"finished_at": 1.7e9, **self.ending})
        return _said(view)

    def _events(self, _request: httpx.Request, _body: bytes) -> httpx.Response:
        return httpx.Response(200, content=self.events, headers={"Content-Type": "text/event-stream"})

    def _replicas(self, request: httpx.Request, body: bytes, replica: str = "", call: str = "") -> httpx.Response:
        """One that can run. What is scaled is done at the next look."""
        before, self.ready = self.ready, self.wanted
        if request.method == "PUT":
            self.wanted, self.ready = self._hear(views.Scale, body).wanted, before
        view = views.ReplicaView(
            id=replica or "engine-0",
            url="http://127.0.0.1:9000",
            state="draining" if call == "drain" else "ready" if self.ready else "stopped",
            detail="",
            outstanding=2,
            restarts=1,
            since=1.7e9,
            capabilities=None,
            staging=True,
            slots=views.OccupancyView(used=1, total=8, pinned=1),
            host=views.HostView(used=2, total=32, pinned=1, bytes=5 * 1024 * 1024),
            report_age_s=0.4,
            adapters={"pirate@abababababab": "gpu", "other@cdcdcdcdcdcd": "cpu"},
            residents=[
                views.ResidentView(
                    engine_name="pirate@abababababab", adapter="pirate", tier="gpu", bytes=3 * 1024 * 1024, pin="gpu"
                ),
                views.ResidentView(
                    engine_name="other@cdcdcdcdcdcd", adapter=None, tier="cpu", bytes=2 * 1024 * 1024, pin=None
                ),
            ],
        )
        return _said(
            view if replica else views.FleetView(wanted=self.wanted, ready=self.ready, limit=1, replicas=[view])
        )

    def _inference(self, path: str, body: bytes) -> httpx.Response:
        if path == "/v1/models":
            models = [{"id": BASE, "parent": None, "root": BASE}]
            models += [{"id": name, "parent": BASE, "root": name} for name in self.adapters]
            models += [{"id": alias.name, "parent": BASE, "root": alias.adapter} for alias in self.aliases.values()]
            return httpx.Response(200, json={"object": "list", "data": models})
        asked = json.loads(body)
        if asked["model"] not in (BASE, *self.adapters):
            return _error(404, "model_not_found", f"The model {asked['model']!r} does not exist.")
        assert asked["temperature"] == 0
        text = f"{asked['model']} says {asked['messages'][0]['content']}"
        return httpx.Response(200, json={"choices": [{"message": {"content": text}}]})

    def _hear(self, kind: type[_Heard], body: bytes) -> _Heard:
        heard = kind.model_validate_json(body)
        self.last = heard
        return heard

    def _accepted(self, kind: str, name: str, number: int | None = 1) -> httpx.Response:
        view = views.OperationView(
            id=f"op{len(self.operations)}",
            kind=kind,
            adapter=name,
            version=number,
            state="running",
            stage="staging",
            progress=0.8,
            error=None,
            created_at=1.7e9,
            finished_at=None,
        )
        self.operations[view.id] = view
        return _said(views.Accepted(operation=view), 202)


def _said(view: BaseModel, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=view.model_dump(mode="json"))


def _error(status: int, code: str, message: str) -> httpx.Response:
    error = {"code": code, "message": message, "retryable": False, "details": {}}
    return httpx.Response(status, json={"error": error})
