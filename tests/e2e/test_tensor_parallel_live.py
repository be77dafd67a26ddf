"""Staging over two workers that share one model: both take what was staged, and the answers are vLLM's own."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loramux_adapters.model import Tier
from loramux_serving.settings import EngineSettings
from tests.fakes.adapter_files import write_adapter
from tests.fixtures.gateway import eventually
from tests.fixtures.tiny_model import MODULES, SHAPES, write_tiny_model
from tests.fixtures.vllm import START_TIMEOUT_S, RealVllm, engine_at, running, stager_state

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

SETTINGS = EngineSettings(
    kind="cpu",
    name="tiny",
    max_loras=2,
    max_cpu_loras=4,
    max_lora_rank=16,
    max_model_len=256,
    tensor_parallel_size=2,
    extra_env={"VLLM_CPU_OMP_THREADS_BIND": "nobind"},
)
TARGETS = tuple(name.partition(".")[2] for name in MODULES)


@pytest.fixture(scope="module")
def two_workers(vllm_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    tiny = write_tiny_model(vllm_base, tmp_path_factory.mktemp("tiny") / "model")
    with running(tiny, SETTINGS) as real:
        eventually(lambda: stager_state(real.url) == "ready", START_TIMEOUT_S)
        yield real


async def test_two_workers_hold_the_same_and_answer_as_vllm_would(two_workers: RealVllm, tmp_path: Path) -> None:
    paths = [
        write_adapter(tmp_path / str(n), SHAPES, rank=16 - 5 * n, alpha=300, targets=TARGETS[n:], dtype="BF16", seed=n)
        for n in range(3)
    ]
    async with httpx.AsyncClient(base_url=two_workers.url, timeout=60.0) as http:
        engine = engine_at(two_workers.url, http)

        async def answer(model: str) -> list[float]:
            body = {"model": model, "prompt": "The capital", "max_tokens": 4, "temperature": 0, "logprobs": 1}
            said = (await http.post("/v1/completions", json=body)).raise_for_status().json()
            logprobs: list[float] = said["choices"][0]["logprobs"]["token_logprobs"]
            return logprobs

        async def workers() -> list[dict[str, Any]]:
            told: list[dict[str, Any]] = (await http.get("/loramux/v1/workers")).json()
            assert len(told) == 2
            return told

        untouched = await answer(two_workers.name)
        for number, path in enumerate(paths):
            plain = {"lora_name": f"plain{number}", "lora_path": str(path)}
            (await http.post("/v1/load_lora_adapter", json=plain)).raise_for_status()
            expected = await answer(f"plain{number}")
            assert expected != pytest.approx(untouched, abs=1e-3)
            await engine.evict(f"plain{number}")

            await engine.load(f"staged@{number:012x}", path, tier=Tier.CPU if number else Tier.GPU)
            assert await answer(f"staged@{number:012x}") == pytest.approx(expected, abs=1e-4)

        for told in await workers():
            assert [one["name"] for one in told["host"]] == [f"staged@{number:012x}" for number in (0, 1, 2)]
            assert {one["name"] for one in told["slots"]} == {f"staged@{number:012x}" for number in (1, 2)}
            assert told["filling"] == []
        first, second = await workers()
        assert first["host"] == second["host"]

        await engine.pin("staged@000000000001", Tier.GPU)
        deadline = time.monotonic() + 20.0
        while not await engine.activate("staged@000000000000"):  # for a second, the last step's adapter is in use
            assert time.monotonic() < deadline
        for told in await workers():
            assert {one["name"]: one["pinned"] for one in told["slots"]} == {
                "staged@000000000001": True,
                "staged@000000000000": False,
            }
        for number in range(3):
            await engine.evict(f"staged@{number:012x}")
        assert await workers() == [{"slots": [], "host": [], "filling": []}] * 2
