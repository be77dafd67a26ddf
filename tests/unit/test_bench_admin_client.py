"""The control calls over the gateway's own wire types, and what goes wrong in words that help."""

import httpx
import pytest

from loramux_bench.admin.answers import CanaryView, fault_of
from loramux_bench.admin.client import AdminClient, CallFailed
from loramux_bench.errors import EndpointError, ScenarioError
from tests.fakes.admin_server import KEY, AdminServer, adapter

RULE = {
    "window_s": 60.0,
    "min_requests": 5,
    "max_error_rate": 0.1,
    "max_p95_s": None,
    "max_p95_ratio": 2.0,
    "promote_after_s": None,
}


def client(server: AdminServer, key: str = KEY) -> AdminClient:
    return AdminClient("http://gateway/", key, transport=server.transport)


def answering(status: int, text: str, **headers: str) -> AdminClient:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text=text, headers=headers))
    return AdminClient("http://gateway", KEY, transport=transport)


def test_all_pages_of_adapters_are_read() -> None:
    server = AdminServer()
    server.adapters = {f"a{number:04}": adapter(f"a{number:04}") for number in range(2345)}
    assert [each.name for each in client(server).adapters()] == sorted(server.adapters)
    assert len(server.requests) == 3


def test_an_adapter_is_described() -> None:
    found = client(AdminServer()).adapter("pirate")
    assert found is not None
    assert (found.live, found.canary, found.tiers) == (1, None, {"engine-0": "gpu", "engine-1": "disk"})
    assert client(AdminServer()).adapter("nobody") is None


@pytest.mark.parametrize(
    ("canary", "shown"),
    [
        (CanaryView(version=1, weight=0.1), CanaryView(version=1, weight=0.1, sticky="request")),
        (CanaryView(version=1, weight=0.1, sticky="key", rule=RULE),) * 2,
    ],
)
def test_a_canary_is_set_as_it_was_shown(canary: CanaryView, shown: CanaryView) -> None:
    server = AdminServer()
    client(server).set_canary("pirate", canary)
    found = client(server).adapter("pirate")
    assert found is not None
    assert found.canary == shown


def test_an_upload_and_its_operation() -> None:
    server = AdminServer()
    operation = client(server).upload("fresh one", iter([b"ab", b"cd"]))
    assert server.upload == b"abcd"
    assert server.last == {"promote": "true"}
    assert operation.version == 1
    server.ending = {"state": "succeeded"}
    server.operations[operation.id] = server.operations[operation.id].model_copy(update=server.ending)
    client(server).wait(operation)
    assert server.requests[-1] == ("GET", f"/admin/v1/operations/{operation.id}?wait=true")


def test_an_operation_that_failed_says_why() -> None:
    server = AdminServer()
    operation = client(server).upload("fresh", iter([b"ab"]))
    error = {"code": "weights_mismatch", "message": "A shape does not fit.", "retryable": False}
    server.operations[operation.id] = server.operations[operation.id].model_validate(
        {**server.operations[operation.id].model_dump(), "state": "failed", "error": error}
    )
    with pytest.raises(CallFailed, match=r"could not add 'fresh': A shape does not fit\.") as failed:
        client(server).wait(operation)
    assert failed.value.code == "weights_mismatch"


def test_deleting_what_is_not_there_is_done() -> None:
    client(AdminServer()).delete("nobody")


def test_keys_and_replicas() -> None:
    server = AdminServer()
    made = client(server).create_key("bench team", ["pirate"])
    assert (made.id, made.key) == ("key_1", "lmx_secret")
    assert server.last.adapters == ["pirate"]
    client(server).revoke_key(made.id)
    assert server.requests[-1] == ("DELETE", "/admin/v1/keys/key_1")
    assert [(replica.id, replica.state) for replica in client(server).replicas()] == [("engine-0", "ready")]


def test_a_wrong_key_is_said_with_the_variable() -> None:
    for call in (client(AdminServer(), "wrong").models, client(AdminServer(), "wrong").adapters):
        with pytest.raises(CallFailed, match=r"refused the key.*Set LORAMUX_ADMIN_KEY") as failed:
            call()
        assert failed.value.status == 401
        assert not failed.value.not_ready


@pytest.mark.parametrize("text", ["hello", "", "[]", "{}", '{"data": 3}', '{"data": [{"name": "x"}]}', "\xff\0"])
def test_rubbish_is_said_to_be_rubbish(text: str) -> None:
    with pytest.raises(CallFailed, match=r"are not those of an OpenAI-compatible endpoint") as failed:
        answering(200, text).models()
    assert failed.value.code == "bad_answer"
    with pytest.raises(CallFailed, match="are not those of loramux' admin interface"):
        answering(200, text).adapters()


@pytest.mark.parametrize(
    ("status", "text", "not_ready"),
    [
        (503, "", True),
        (424, '{"error": {"code": "x", "message": "y"}}', True),
        (429, '{"error": {"type": "ModelNotReadyException", "message": "wait"}}', True),
        (429, '{"message": "The model is not ready for inference."}', True),
        (429, '{"error": {"code": "rate_limited", "message": "Too many."}}', False),
        (500, '{"error": "boom"}', False),
        (404, "", False),
    ],
)
def test_not_ready_is_told_from_failure(status: int, text: str, not_ready: bool) -> None:
    with pytest.raises(CallFailed) as failed:
        answering(status, text, **{"Retry-After": "7"}).models()
    assert failed.value.not_ready is not_ready
    assert failed.value.retry_after_s == 7.0


def test_a_retry_after_that_is_a_date_is_passed_over() -> None:
    with pytest.raises(CallFailed) as failed:
        answering(503, "", **{"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}).models()
    assert failed.value.retry_after_s is None


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "http://[::1", "http://x:port"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(EndpointError, match="is no address"):
        AdminClient(url, "")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error": {"code": "x", "message": "y"}}', ("x", "y")),
        (b'{"error": {"code": null, "type": "t", "message": "y"}}', ("t", "y")),
        (b'{"error": "tgi", "error_type": "x"}', ("", "tgi")),
        (b'{"message": "aws"}', ("", "aws")),
        (b"{}", ("", "")),
        (b"<html>", ("", "")),
        (b"\xff", ("", "")),
    ],
)
def test_faults_are_read_in_all_forms(body: bytes, expected: tuple[str, str]) -> None:
    assert fault_of(body) == expected


def test_a_key_that_no_header_can_hold_is_refused_and_not_shown() -> None:
    with pytest.raises(ScenarioError, match="no header") as refused:
        AdminClient("http://127.0.0.1:1", "lmx_secret\nx")
    assert "secret" not in str(refused.value)
