"""Gateways in front of the session's one real vLLM. Never two at a time: each reconciles the engine to its own
registry."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.vllm import RealVllm

DEMO = Path(__file__).parents[2] / "deploy" / "demo"


@pytest.fixture(scope="module")
def gateway(vllm: RealVllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """With the demo adapters, ready."""
    process = GatewayProcess(tmp_path_factory.mktemp("home"), "--demo", str(DEMO), LORAMUX_ENGINE__URLS=vllm.url)
    with process:
        process.wait_for_adapters("pirate", "shop-sql", "ticket-json")
        yield process
