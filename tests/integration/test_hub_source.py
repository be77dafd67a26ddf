"""`hf://` against a hub that speaks huggingface.co's routes."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub.utils._http import close_session

from loramux_adapters.artifacts.hub import HubSource
from loramux_adapters.artifacts.limits import ArchiveLimits
from loramux_adapters.errors import (
    ArchiveTooLarge,
    LoramuxError,
    RequestInvalid,
    SourceForbidden,
    SourceNotFound,
    SourceTooLarge,
    SourceUnavailable,
)
from tests.fakes.adapter_files import WEIGHTS, adapter_files, tiny_base
from tests.fakes.hub_server import SHA, HubServer, hub_server

MIB = 1 << 20
LIMITS = ArchiveLimits(max_archive_bytes=MIB, max_unpacked_bytes=MIB, max_files=4, max_ratio=200)
FILES = adapter_files(tiny_base())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("time.sleep", lambda _s: None)
    with hub_server() as server:
        server.repositories["org/adapter"] = FILES | {"README.md": b"x", "adapter_model.bin": b"p", "sub/x.bin": b"p"}
        yield server


def fetch(
    hub: HubServer, into: Path, source: str = "hf://org/adapter", limits: ArchiveLimits = LIMITS, token: str = "t0"
) -> list[tuple[int, int | None]]:
    into.mkdir(exist_ok=True)
    seen: list[tuple[int, int | None]] = []
    fetcher = HubSource(limits, endpoint=hub.url, token=token, timeout_s=5.0)
    fetcher.check(source)
    fetcher.fetch(source, into, lambda done, total: seen.append((done, total)))
    return seen


def refused(hub: HubServer, into: Path, error: type[LoramuxError], source: str = "hf://org/adapter") -> LoramuxError:
    with pytest.raises(error) as caught:
        fetch(hub, into, source)
    assert type(caught.value) is error
    return caught.value


@pytest.mark.parametrize("revision", ["", "@main", "@refs/pr/1", f"@{SHA}"])
def test_an_adapter_is_fetched_and_nothing_else(hub: HubServer, tmp_path: Path, revision: str) -> None:
    seen = fetch(hub, tmp_path / "into", f"hf://org/adapter{revision}")
    found = {path.name: path.read_bytes() for path in (tmp_path / "into").iterdir()}
    assert found == FILES | {"adapter_model.bin": b""}
    total = sum(map(len, FILES.values()))
    assert seen[-1] == (total, total)
    assert not any("README" in line or ".bin" in line for line in hub.requests)


def test_files_are_those_of_one_commit(hub: HubServer, tmp_path: Path) -> None:
    fetch(hub, tmp_path / "into")
    assert all(SHA in line for line in hub.requests if "/resolve/" in line)


def test_nothing_stays_in_the_user_s_cache(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    fetch(hub, tmp_path / "into")
    assert not (tmp_path / "cache").exists()


def test_the_endpoint_may_come_from_the_environment(hub: HubServer, tmp_path: Path) -> None:
    """In a process of its own: the library reads HF_ENDPOINT when it is imported."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom loramux_adapters.artifacts.hub import HubSource\n"
        "from loramux_adapters.artifacts.limits import ArchiveLimits\n"
        "HubSource(ArchiveLimits(1 << 20, 1 << 20, 4, 200), token='t0').fetch(\n"
        "    'hf://org/adapter', Path(sys.argv[1]), lambda done, total: None)\n"
    )
    environment = os.environ | {"HF_ENDPOINT": hub.url, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True, timeout=60)
    assert (tmp_path / WEIGHTS).read_bytes() == FILES[WEIGHTS]


def test_a_repository_that_is_missing_is_not_found(hub: HubServer, tmp_path: Path) -> None:
    refused(hub, tmp_path / "into", SourceNotFound, "hf://org/absent")


def test_a_revision_that_is_missing_is_not_found(hub: HubServer, tmp_path: Path) -> None:
    refused(hub, tmp_path / "into", SourceNotFound, "hf://org/adapter@v9")


def test_a_gated_repository_is_forbidden(hub: HubServer, tmp_path: Path) -> None:
    hub.gated.add("org/adapter")
    assert "gated" in refused(hub, tmp_path / "into", SourceForbidden).message


def test_a_token_is_sent(hub: HubServer, tmp_path: Path) -> None:
    hub.token = "secret"
    refused(hub, tmp_path / "into", SourceNotFound)
    fetch(hub, tmp_path / "again", token="secret")


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, SourceForbidden), (500, SourceUnavailable), (503, SourceUnavailable), (429, SourceUnavailable)],
)
def test_a_hub_that_refuses_is_told_apart(
    hub: HubServer, tmp_path: Path, status: int, error: type[LoramuxError]
) -> None:
    hub.status = status
    refused(hub, tmp_path / "into", error)


def test_a_hub_that_answers_rubbish_is_unavailable(hub: HubServer, tmp_path: Path) -> None:
    hub.rubbish = True
    refused(hub, tmp_path / "into", SourceUnavailable)


def test_a_hub_that_is_not_there_is_unavailable(hub: HubServer, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        hub.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert refused(hub, tmp_path / "into", SourceUnavailable).retryable


def test_offline_mode_is_unavailable(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    close_session()
    try:
        refused(hub, tmp_path / "into", SourceUnavailable)
    finally:
        monkeypatch.undo()
        close_session()


def test_a_download_that_breaks_off_is_unavailable(hub: HubServer, tmp_path: Path) -> None:
    hub.cut_bytes = 10
    refused(hub, tmp_path / "into", SourceUnavailable)


def test_a_repository_that_is_too_large_is_refused_before_a_byte_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    hub.claimed_bytes = 2 * MIB
    refused(hub, tmp_path / "into", SourceTooLarge)
    assert not any("/resolve/" in line for line in hub.requests)


def test_a_hub_that_sends_more_than_it_said_is_stopped(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/adapter"] = FILES | {WEIGHTS: bytes(3 * MIB)}
    hub.claimed_bytes = 10
    refused(hub, tmp_path / "into", SourceTooLarge)
    assert sum(path.stat().st_size for path in (tmp_path / "into").rglob("*") if path.is_file()) < 2 * MIB


def test_a_repository_of_too_many_files_is_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/adapter"] |= {f"{index}.bin": b"" for index in range(9)}
    refused(hub, tmp_path / "into", ArchiveTooLarge)


@pytest.mark.parametrize(
    "source",
    ["hf://", "hf://org", "hf://org/", "hf://org/a/b", "hf://org/a@", "hf://org/a@b c", "hf://../a", "hf://org/a@../x",
     "hf://org/a@/x", "hf:org/a", "hf://org/a?x", "hf://o--r/a"],
)  # fmt: skip
def test_a_malformed_source_is_refused(hub: HubServer, tmp_path: Path, source: str) -> None:
    refused(hub, tmp_path / "into", RequestInvalid, source)
    assert hub.requests == []
