"""What is done before a load, against servers that answer over real sockets."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from loramux_bench.admin.endpoint import Endpoint
from loramux_bench.admin.prepare import Prepared, prepare
from loramux_bench.admin.restoration import Restoration
from loramux_bench.errors import EndpointError, ScenarioError
from loramux_bench.scenario import Target, parse
from tests.fixtures.gateway import free_port

USAGE = {"choices": [{}], "usage": {"prompt_tokens": 30}}


class Server:
    """`answers` by method and path; a list of answers is gone through, its last stays."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []
        self.keys: list[str] = []
        self.url = ""

    def answer(self, call: str, body: bytes, key: str) -> tuple[int, bytes]:
        self.asked.append((call, json.loads(body) if body else None))
        self.keys.append(key)
        found = self.answers.get(call, (404, {"detail": "Not Found"}))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        status, said = found
        return status, said if isinstance(said, bytes) else json.dumps(said).encode()


@contextmanager
def serving(answers: dict[str, Any]) -> Iterator[Server]:
    server = Server(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, said = server.answer(f"{self.command} {self.path}", body, key)
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_POST = do_DELETE = do_PUT = do_GET

        def log_message(self, *_: object) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def models(*names: str, base: str = "tiny", owner: str = "vllm") -> tuple[int, Any]:
    listed: list[dict[str, Any]] = [{"id": base, "root": base, "parent": None, "owned_by": owner}]
    listed += [{"id": name, "root": f"/adapters/{name}", "parent": base, "owned_by": owner} for name in names]
    return 200, {"object": "list", "data": listed}


def vllm(*names: str) -> dict[str, Any]:
    return {
        "GET /v1/models": models(*names),
        "POST /v1/chat/completions": (200, USAGE),
        "GET /version": (200, {"version": "0.32.0"}),
    }


class Clock:
    """Sleeping moves it."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def prepared(
    urls: list[str],
    *,
    targets: list[dict[str, Any]] | None = None,
    clock: Clock | None = None,
    environment: dict[str, str] | None = None,
    look: Callable[[Prepared], None] = lambda _: None,
    **scenario: Any,
) -> Prepared:
    clock = clock or Clock()
    given = targets or [{"name": f"t{number}"} for number in range(len(urls))]
    described = parse(
        {
            "name": "x",
            "load": {"requests": 1},
            "targets": [{"url": url, **target} for url, target in zip(urls, given, strict=True)],
            **scenario,
        },
        "x",
    )
    env = {"LORAMUX_API_KEY": "secret"} if environment is None else environment
    complaints: list[str] = []
    with Restoration(complaints.append) as restoration:
        found = prepare(
            described,
            [Endpoint.of(target, env) for target in described.targets],
            restoration,
            tell=lambda *_: None,
            sleep=clock.sleep,
            now=clock.now,
            samples=("one two", "one two three four"),
            environment=env,
        )
        look(found)
    assert complaints == []
    return found


def test_a_stock_vllm() -> None:
    with serving(vllm("pirate", "sql")) as server:
        found = prepared([server.url])
    assert found.adapters == ("pirate", "sql")
    assert found.base == "tiny"
    assert found.observations == ((2, 30), (4, 30))
    assert found.ready_wait_s == 0.0
    assert not found.admin
    assert found.facts == {"models": 3, "url": server.url, "engine_version": "0.32.0"}
    asked = [body for call, body in server.asked if call == "POST /v1/chat/completions"]
    assert asked[1] == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "one two three four"}],
        "max_tokens": 1,
        "stream": False,
    }
    assert set(server.keys) == {"secret"}


def test_completions_with_a_tokenizer_only_look_whether_the_model_answers() -> None:
    answers = vllm("pirate") | {"POST /v1/completions": (200, {"choices": []})}
    with serving(answers) as server:
        found = prepared([server.url], targets=[{"api": "openai-completions"}], prompts={"tokenizer": "tokenizer.json"})
    assert found.observations is None
    assert [body["prompt"] for call, body in server.asked if call == "POST /v1/completions"] == ["one two"]


def test_an_endpoint_that_does_not_count() -> None:
    with serving(vllm("pirate") | {"POST /v1/chat/completions": (200, {"choices": [{}], "usage": None})}) as server:
        assert prepared([server.url]).observations is None


def test_aliases_of_loramux_are_left_out() -> None:
    listed = [
        {"id": "tiny", "root": "tiny", "parent": None, "owned_by": "loramux"},
        {"id": "captain", "root": "pirate", "parent": "tiny", "owned_by": "loramux"},
        {"id": "pirate", "root": "pirate", "parent": "tiny", "owned_by": "loramux"},
    ]
    with serving(vllm() | {"GET /v1/models": (200, {"data": listed})}) as server:
        assert prepared([server.url]).adapters == ("pirate",)
        assert prepared([server.url], adapters={"names": ["captain"]}).adapters == ("captain",)


def test_the_base_alone_where_there_is_no_adapter() -> None:
    with serving(vllm()) as server:
        found = prepared([server.url])
    assert found.adapters == ("tiny",)
    assert found.updatable == ()


def test_names_that_are_not_listed() -> None:
    with serving(vllm("pirate")) as server:
        for scenario in (
            {"adapters": {"names": ["pirate", "nobody"]}},
            {"adapters": {"choice": "weights", "weights": {"nobody": 1}}},
            {"tenants": [{"name": "a", "key_env": "LORAMUX_API_KEY", "adapters": ["nobody"]}]},
        ):
            with pytest.raises(EndpointError, match=r"does not list nobody:"):
                prepared([server.url], **scenario)
        assert prepared([server.url], adapters={"names": ["pirate@2"]}).adapters == ("pirate@2",)


def test_every_target_must_list_them() -> None:
    with serving(vllm("pirate")) as one, serving(vllm("other")) as two:
        with pytest.raises(EndpointError, match=f"{two.url} does not list pirate"):
            prepared([one.url, two.url])
        targets = [{"name": "a"}, {"name": "b", "model": "other"}]
        assert prepared([one.url, two.url], targets=targets).adapters == ("pirate",)


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_fails_at_once(status: int) -> None:
    error = {"error": {"message": "The key is not known.", "code": "unauthenticated"}}
    with serving({"GET /v1/models": (status, error)}) as server:
        clock = Clock()
        with pytest.raises(EndpointError, match=r"refused the key: The key is not known\. Set LORAMUX_API_KEY"):
            prepared([server.url], clock=clock)
        with pytest.raises(EndpointError, match="Set MY_KEY"):
            prepared([server.url], targets=[{"key_env": "MY_KEY"}], environment={"MY_KEY": "k"})
    assert clock.slept == []


@pytest.mark.parametrize("said", [b"hello", b"", b"\x00\xff", b"[1]", b'{"data": null}'])
def test_rubbish_fails_at_once(said: bytes) -> None:
    clock = Clock()
    with serving({"GET /v1/models": (200, said)}) as server, pytest.raises(EndpointError, match="not those of an Open"):
        prepared([server.url], clock=clock)
    assert clock.slept == []


def test_rubbish_in_place_of_an_answer() -> None:
    with (
        serving(vllm("pirate") | {"POST /v1/chat/completions": (200, b"<html>")}) as server,
        pytest.raises(EndpointError, match=r"chat/completions are not those of an OpenAI-compatible endpoint"),
    ):
        prepared([server.url])


def test_nobody_there_fails_at_once() -> None:
    clock = Clock()
    with pytest.raises(EndpointError, match=r"no endpoint at http://127.*make serve"):
        prepared([f"http://127.0.0.1:{free_port()}"], clock=clock)
    assert clock.slept == []


def test_not_ready_is_waited_for_and_its_time_kept() -> None:
    waking = [(503, b""), (424, b""), models("pirate")]
    ready = [(503, {"error": {"code": "engine_unavailable", "message": "x"}}), (200, USAGE)]
    with serving(vllm() | {"GET /v1/models": waking, "POST /v1/chat/completions": ready}) as server:
        clock = Clock()
        found = prepared([server.url], clock=clock, not_ready={"interval_s": 2.0})
    assert found.adapters == ("pirate",)
    assert clock.slept == [2.0, 2.0, 2.0]
    assert found.ready_wait_s == 6.0


def test_not_ready_has_an_end() -> None:
    with serving({"GET /v1/models": (503, b"")}) as server:
        clock = Clock()
        with pytest.raises(EndpointError, match=r"not ready within 5 s; not_ready\.timeout_s"):
            prepared([server.url], clock=clock, not_ready={"interval_s": 2.0, "timeout_s": 5.0})
        assert clock.slept == [2.0, 2.0, 1.0]
        with pytest.raises(EndpointError, match="answered 503"):
            prepared([server.url], clock=Clock(), not_ready={"retry": False})


@pytest.mark.parametrize(("api", "probe"), [("tgi", "GET /health"), ("sagemaker", "GET /ping")])
def test_other_interfaces_need_no_listing(api: str, probe: str) -> None:
    with serving({probe: [(503, b""), (200, b"")]}) as server:
        clock = Clock()
        found = prepared([server.url], targets=[{"api": api, "model": "m"}], clock=clock)
        assert found.adapters == ("m",)
        assert found.observations is None
        assert found.ready_wait_s == 0.5
        named = prepared([server.url], targets=[{"api": api}], adapters={"names": ["a", "b"], "base": "tiny"})
        assert (named.adapters, named.base) == (("a", "b"), "tiny")
        with pytest.raises(ScenarioError, match=r"set adapters\.names"):
            prepared([server.url], targets=[{"api": api}])


def test_a_provider_without_a_url() -> None:
    found = prepared([""], targets=[{"api": "litellm", "model": "bedrock/x"}])
    assert (found.adapters, found.control, found.admin) == (("bedrock/x",), None, False)


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ({"adapters": {"provision": {"count": 2}}}, r"adapters\.provision, for which"),
        ({"churn": {"adds_per_min": 1}}, "has churn, for which"),
        ({"tenants": [{"name": "a"}]}, "has tenants without key_env, for which"),
        ({"targets": [{"admin": True}]}, "says admin = true, but"),
    ],
)
def test_what_needs_the_admin_interface(scenario: dict[str, Any], said: str) -> None:
    with serving(vllm("pirate")) as server, pytest.raises(EndpointError, match=said):
        prepared([server.url], **scenario)


def admin(*names: str) -> dict[str, Any]:
    return vllm(*names) | {
        "GET /admin/v1/replicas": (200, {"replicas": [{"id": "engine-0", "state": "ready"}]}),
        "POST /admin/v1/keys": [(201, {"id": "k1", "key": "one"}), (201, {"id": "k2", "key": "two"})],
        "DELETE /admin/v1/keys/k1": (200, {}),
        "DELETE /admin/v1/keys/k2": (200, {}),
    }


def test_an_inference_key_may_not_administer() -> None:
    refused = (403, {"error": {"code": "forbidden", "message": "It is no admin key."}})
    with serving(admin("pirate") | {"GET /admin/v1/replicas": refused}) as server:
        assert not prepared([server.url]).admin
        with pytest.raises(EndpointError, match=r"no admin key\. Set LORAMUX_ADMIN_KEY"):
            prepared([server.url], churn={"adds_per_min": 1})


def test_the_admin_key_goes_to_the_admin_interface_alone() -> None:
    with serving(admin("pirate")) as server:
        assert prepared([server.url], environment={"LORAMUX_API_KEY": "k", "LORAMUX_ADMIN_KEY": "root"}).admin
        used = dict(zip((call for call, _ in server.asked), server.keys, strict=True))
    assert used["GET /v1/models"] == used["POST /v1/chat/completions"] == "k"
    assert used["GET /admin/v1/replicas"] == "root"


def test_an_admin_interface_that_is_not_wanted_is_not_asked() -> None:
    with serving(admin("pirate")) as server:
        assert not prepared([server.url], targets=[{"admin": False}]).admin
        assert not [call for call, _ in server.asked if "/admin/" in call]


def test_tenants_get_keys_that_are_revoked_again() -> None:
    def still_there(found: Prepared) -> None:
        assert found.tenants == {"a": "one", "b": "two", "c": "mine"}
        assert not [call for call, _ in server.asked if call.startswith("DELETE")]

    tenants = [{"name": "a", "adapters": ["pirate"]}, {"name": "b"}, {"name": "c", "key_env": "C"}]
    with serving(admin("pirate")) as server:
        prepared(
            [server.url],
            tenants=tenants,
            adapters={"base_share": 0.5},
            environment={"C": "mine"},
            look=still_there,
        )
        made = [body for call, body in server.asked if call == "POST /admin/v1/keys"]
        assert [body["adapters"] for body in made] == [["pirate", "tiny"], []]
        deleted = {call for call, _ in server.asked if call.startswith("DELETE")}
    assert deleted == {"DELETE /admin/v1/keys/k1", "DELETE /admin/v1/keys/k2"}


def test_a_tenants_variable_that_is_not_set_makes_no_key() -> None:
    with serving(admin("pirate")) as server:
        with pytest.raises(ScenarioError, match="tenant 'b' wants its key in NOWHERE"):
            prepared([server.url], tenants=[{"name": "a"}, {"name": "b", "key_env": "NOWHERE"}])
        assert "POST /admin/v1/keys" not in [call for call, _ in server.asked]


def test_somebodys_adapter_is_not_overwritten() -> None:
    theirs = {"name": "bench-001", "state": "ready", "tiers": {}, "versions": [{"number": 1, "source": "/srv/a"}]}
    page = (200, {"adapters": [theirs], "next_cursor": None})
    with serving(admin() | {"GET /admin/v1/adapters?limit=1000": page}) as server:
        with pytest.raises(EndpointError, match=r"no bench has uploaded: bench-001\. Give adapters\.provision another"):
            prepared([server.url], adapters={"provision": {"count": 2}})
        assert not [call for call, _ in server.asked if call.startswith(("PUT", "DELETE"))]


def test_keys_are_not_shown() -> None:
    endpoint = Endpoint.of(Target(), {"LORAMUX_API_KEY": "hidden", "LORAMUX_ADMIN_KEY": "hidden"})
    assert "hidden" not in repr(endpoint)
    with serving(admin("pirate")) as server:
        assert "mine" not in repr(
            prepared([server.url], tenants=[{"name": "c", "key_env": "C"}], environment={"C": "mine"})
        )
