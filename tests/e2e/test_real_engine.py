"""The engine that users get: vLLM on the embedded base, spoken to as the gateway does."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import httpx
import pytest

from loramux_adapters.errors import EngineRejected
from loramux_adapters.model import Tier
from loramux_serving.engine.client import VllmEngine
from tests.fixtures.vllm import RealVllm, engine_at, random_adapter

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]
NAME = "poet@0123456789ab"


@dataclass(frozen=True)
class Subject:
    real: RealVllm
    http: httpx.AsyncClient
    engine: VllmEngine

    async def complete(self, model: str) -> httpx.Response:
        body = {"model": model, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
        return await self.http.post("/v1/completions", json=body, timeout=60.0)

    async def held(self) -> dict[str, int]:
        """Id by name of what the engine process itself says that it holds."""
        response = await self.http.get("/loramux/v1/adapters")
        return {item["name"]: item["id"] for item in response.json() if item["tier"] != "disk"}


@pytest.fixture
async def subject(vllm: RealVllm) -> AsyncIterator[Subject]:
    async with httpx.AsyncClient(base_url=vllm.url) as http:
        engine = engine_at(vllm.url, http)
        yield Subject(vllm, http, engine)
        for resident in await engine.residents():
            await engine.evict(resident.engine_name)


async def test_the_plugin_is_on_and_tells_the_engines_own_limits(subject: Subject) -> None:
    able = await subject.engine.capabilities()

    assert (able.max_loras, able.max_cpu_loras, able.max_lora_rank) == (4, 8, 16)
    assert able.evict
    assert any(line.startswith("[engine-0] ") for line in subject.real.log)


async def test_an_adapter_answers_until_it_is_evicted_and_again_when_it_is_back(
    subject: Subject, tmp_path: Path
) -> None:
    path = random_adapter(subject.real.base, tmp_path / "poet")
    base = (await subject.complete(subject.real.name)).json()["choices"][0]["text"]
    assert (await subject.complete(NAME)).status_code == 404

    await subject.engine.load(NAME, path)
    first = await subject.complete(NAME)
    assert first.status_code == 200
    assert first.json()["model"] == NAME
    assert first.json()["choices"][0]["text"] != base, "the adapter is applied"
    held = await subject.held()
    assert set(held) == {NAME}

    await subject.engine.evict(NAME)
    assert await subject.held() == {}
    assert (await subject.complete(NAME)).status_code == 404

    await subject.engine.load(NAME, path)
    again = await subject.complete(NAME)
    assert again.json()["choices"][0]["text"] == first.json()["choices"][0]["text"]


async def test_an_adapter_of_too_large_a_rank_is_refused_and_the_engine_lives(subject: Subject, tmp_path: Path) -> None:
    path = random_adapter(subject.real.base, tmp_path / "big", rank=64)
    with pytest.raises(EngineRejected, match="rank") as raised:
        await subject.engine.load(NAME, path)

    assert "\n" not in raised.value.message
    assert await subject.held() == {}
    assert (await subject.complete(NAME)).status_code == 404
    assert (await subject.complete(subject.real.name)).status_code == 200


async def test_eviction_frees_what_the_cache_has_room_for(subject: Subject, tmp_path: Path) -> None:
    """Thrice as many as the host cache takes, one after another, and never is one pushed out by another."""
    kept = random_adapter(subject.real.base, tmp_path / "kept")
    await subject.engine.load("kept@0123456789ab", kept)
    for number in range(24):
        path = random_adapter(subject.real.base, tmp_path / str(number), rank=8, seed=number)
        await subject.engine.load(f"passing@{number:012x}", path)
        assert set(await subject.held()) == {"kept@0123456789ab", f"passing@{number:012x}"}
        await subject.engine.evict(f"passing@{number:012x}")


async def test_what_the_engines_own_cache_drops_is_reported_and_loaded_again(subject: Subject, tmp_path: Path) -> None:
    paths = {f"many@{n:012x}": random_adapter(subject.real.base, tmp_path / str(n), seed=n) for n in range(9)}
    for name, path in paths.items():
        await subject.engine.load(name, path)
    first, last = next(iter(paths)), list(paths)[-1]
    tiers = {item.engine_name: item.tier for item in await subject.engine.residents()}
    assert tiers[first] is Tier.DISK
    assert tiers[last] is not Tier.DISK
    assert len(tiers) == 9

    await subject.engine.load(first, paths[first])
    tiers = {item.engine_name: item.tier for item in await subject.engine.residents()}
    assert tiers[first] is not Tier.DISK


@pytest.mark.skipif(
    "loramux" not in entry_points(group="vllm.general_plugins").names, reason="the entry point is not installed"
)
async def test_slots_are_the_gpu_tier(subject: Subject, tmp_path: Path) -> None:
    for number in range(6):
        path = random_adapter(subject.real.base, tmp_path / str(number), seed=number)
        await subject.engine.load(f"many@{number:012x}", path)

    tiers = [item.tier for item in await subject.engine.residents()]
    assert tiers == [Tier.CPU] * 2 + [Tier.GPU] * 4, "the last four of six are in the four slots"


async def test_many_loads_of_one_name_at_once_are_one(subject: Subject, tmp_path: Path) -> None:
    path = random_adapter(subject.real.base, tmp_path / "poet")
    await asyncio.gather(*(subject.engine.load(NAME, path) for _ in range(8)))

    assert list(await subject.held()) == [NAME]
