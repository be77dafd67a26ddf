"""Schemathesis on everything in `/openapi.json`: no 500, and answers as the document says. Seeded, so that a failure
comes again; the command prints the request that failed, as curl's arguments."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.adapter_files import tar_bytes
from tests.fixtures.gateway import GatewayProcess, free_port
from tests.fixtures.vllm import NAME, random_adapter

pytestmark = pytest.mark.timeout(240)

STAND_IN = Path(__file__).parents[1] / "fakes" / "vllm_server.py"
COMMAND = str(Path(sys.executable).with_name("schemathesis"))
MAX_S = 100.0
CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance,response_headers_conformance"
CHECKED = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "503"]
"""
"""503: the calls under test drain the one replica, and scale to none."""
THERE = """
[parameters]
"path.name" = "one"
"path.model" = "one"
"path.number" = 1
"path.replica_id" = "engine-0"
"""
"""What is there, in the words of Schemathesis' configuration."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    port = free_port()
    engine = subprocess.Popen(
        [sys.executable, str(STAND_IN), "--port", str(port), "--plugin", "--served-model-name", NAME],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process = GatewayProcess(tmp_path_factory.mktemp("home"), LORAMUX_ENGINE__URLS=f"http://127.0.0.1:{port}")
    with process:
        yield process
    engine.terminate()
    engine.wait(20)


def fuzz(gateway: GatewayProcess, directory: Path, *options: str, configuration: str = "") -> None:
    """Fails where it found something, or tested nothing."""
    file = directory / "schemathesis.toml"
    file.write_text(CHECKED + configuration)
    done = subprocess.run(
        [
            *(COMMAND, "--config-file", str(file), "run", f"{gateway.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {gateway.key}", "--checks", CHECKS, "--seed", "7"),
            # A stream that never ends.
            *("--exclude-path", "/admin/v1/events", "--request-timeout", "30", "--continue-on-failure"),
            *("--no-shrink", "--generation-database", "none", "--no-color", "--warnings", "off"),
            *options,
        ],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=MAX_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " 0 generated" not in done.stdout
    assert "Traceback" not in gateway.log


@pytest.fixture
def one(gateway: GatewayProcess, vllm_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The adapter `one` answers, and does again after all that was called: what took the replica away, or the adapter,
    is taken back."""
    files = random_adapter(vllm_base, tmp_path_factory.mktemp("one"))
    archive = tar_bytes({path.name: path.read_bytes() for path in files.iterdir()})

    def furnish() -> None:
        gateway.admin("PUT", "/replicas", json={"wanted": 1}).raise_for_status()
        gateway.admin("POST", "/replicas/engine-0/undrain").raise_for_status()
        gateway.wait_for("/readyz", timeout_s=30.0)
        gateway.admin("PUT", "/adapters/one/artifact?wait=true", content=archive).raise_for_status()
        assert gateway.admin("GET", "/adapters/one").json()["state"] == "ready"
        assert "one" in gateway.models()

    furnish()
    yield
    furnish()


@pytest.mark.usefixtures("one")
def test_what_is_made_up_gives_no_500(gateway: GatewayProcess, tmp_path: Path) -> None:
    """And what is learned from answers, which may take away what is there."""
    fuzz(gateway, tmp_path, "--phases", "coverage,fuzzing,stateful", "--max-examples", "20")


@pytest.mark.usefixtures("one")
def test_calls_on_what_is_there_give_no_500(gateway: GatewayProcess, tmp_path: Path) -> None:
    options = ["--phases", "coverage,fuzzing", "--max-examples", "15", "--exclude-method", "DELETE"]
    found = ["--include-path-regex", r"\{(name|model|number|replica_id)"]
    fuzz(gateway, tmp_path, *options, *found, configuration=THERE)
