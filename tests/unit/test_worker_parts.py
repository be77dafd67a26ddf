"""Parts of the gateway's workers, one by one."""

import os
import socket
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loramux_adapters.errors import LoramuxError, SettingsInvalid, classes
from loramux_serving.workers.control_server import private_path
from loramux_serving.workers.crew import BACKOFF_MAX_S, pause_s
from loramux_serving.workers.forwarding import Forwarding
from loramux_serving.workers.messages import Fault, error_of, fault_of
from loramux_serving.workers.port import SharedPort

# --- errors ---


@pytest.mark.parametrize("kind", list(classes()), ids=lambda kind: kind.code)
def test_every_error_comes_back_as_its_class(kind: type[LoramuxError]) -> None:
    sent = fault_of(kind("A sentence.", details={"limit": 3, "of": ["a"]}, retry_after_s=1.5))
    error = error_of(msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=Fault))
    assert type(error) is kind
    assert (error.message, error.details, error.retry_after_s) == ("A sentence.", {"limit": 3, "of": ["a"]}, 1.5)


# --- the port ---


@pytest.fixture(params=["127.0.0.1", "::1"])
def claim(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as claim:
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claim.bind((request.param, 0))
        yield claim


def taken(address: tuple[str, int]) -> bool:
    """For a gateway that starts."""
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError:
            return True
        return False


def test_a_shared_port_is_nobody_elses(claim: socket.socket) -> None:
    address = claim.getsockname()
    with SharedPort(claim, 3) as port:
        port.open()
        listeners = [port.listener(index) for index in range(3)]
        assert {listener.getsockname() for listener in listeners} == {address}
        assert taken(address)
    assert not taken(address)


def test_connections_go_where_somebody_serves(claim: socket.socket) -> None:
    address = claim.getsockname()
    with SharedPort(claim, 2) as port:
        port.open()
        port.shut(0)
        callers = [socket.create_connection(address[:2]) for _ in range(20)]
        serving = port.listener(1)
        serving.settimeout(5)
        accepted = [serving.accept()[0] for _ in callers]
        assert port.listener(0).getsockname() == address
        for each in (*callers, *accepted):
            each.close()


def test_a_port_that_somebody_took_meanwhile_is_not_shared(claim: socket.socket) -> None:
    """Both were bound before either listened."""
    with SharedPort(claim, 2) as port, socket.socket(claim.family) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(claim.getsockname())
        other.listen()
        with pytest.raises(OSError, match="in use"):
            port.open()


# --- the rest ---


def test_the_first_restart_waits_for_nothing_and_later_ones_longer_and_longer() -> None:
    pauses = [pause_s(failures) for failures in range(1, 100)]
    assert pauses[:4] == [0.0, 0.5, 1.0, 2.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == BACKOFF_MAX_S


def test_the_control_processs_socket_is_out_of_others_reach() -> None:
    with private_path() as path:
        assert os.stat(Path(path).parent).st_mode & 0o777 == 0o700
    assert not Path(path).parent.exists()


def test_a_directory_with_too_long_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(SettingsInvalid, match="TMPDIR"), private_path():
        pass
    assert list(deep.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/admin/v1/adapters", lambda body: (body["error"]["code"], body["error"]["retryable"])),
        ("/v1/models", lambda body: (body["error"]["code"], body["error"]["type"] == "server_error")),
    ],
)
async def test_without_its_control_process_a_worker_answers_503(tmp_path: Path, path: str, code: Any) -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b""}

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
    await Forwarding(str(tmp_path / "nobody"))(scope, receive, send)
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"] == b"1"
    assert code(msgspec.json.decode(sent[1]["body"])) == ("operation_interrupted", True)
