"""Staging in real vLLM: weights come and go beside the step loop, and are what vLLM would have made of them."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loramux_adapters.errors import EngineRejected
from loramux_adapters.model import BaseModel, Tier
from loramux_serving.engine.client import VllmEngine
from tests.e2e.conftest import DEMO
from tests.fakes.adapter_files import Mutation, write_adapter
from tests.fixtures.gateway import eventually
from tests.fixtures.vllm import RealVllm, engine_at, random_adapter

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

FAR_S = 60.0


@dataclass(frozen=True)
class Subject:
    real: RealVllm
    http: httpx.AsyncClient
    engine: VllmEngine

    async def complete(self, model: str, **more: Any) -> dict[str, Any]:
        body = {"model": model, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0, **more}
        answer = await self.http.post("/v1/completions", json=body, timeout=FAR_S)
        assert answer.status_code == 200, answer.text
        choice: dict[str, Any] = answer.json()["choices"][0]
        return choice

    async def tiers(self) -> dict[str, Tier]:
        return {item.engine_name: item.tier for item in await self.engine.residents()}

    def stager(self) -> psutil.Process:
        return psutil.Process(httpx.get(f"{self.real.url}/loramux/v1/engine").json()["stager"]["pid"])

    def slabs(self) -> int:
        """Adapters whose memory the engine's processes map."""
        server = self.stager().parent()
        assert server is not None
        return sum(
            Path(f"/proc/{process.pid}/maps").read_text().count("memfd:loramux-adapter")
            for process in (server, *server.children(recursive=True))
        )


@pytest.fixture
async def subject(vllm: RealVllm) -> AsyncIterator[Subject]:
    async with httpx.AsyncClient(base_url=vllm.url) as http:
        engine = engine_at(vllm.url, http)
        yield Subject(vllm, http, engine)
        for resident in await engine.residents():
            await engine.evict(resident.engine_name)


def attention(base: Path, *names: str) -> BaseModel:
    """The base's modules of these names, one of them in half of the layers only."""
    config = json.loads((base / "config.json").read_text())
    hidden, between = config["hidden_size"], config["intermediate_size"]
    keys = config["head_dim"] * config["num_key_value_heads"]
    shapes = {
        **{f"self_attn.{name}_proj": (out, hidden) for name, out in (("q", hidden), ("k", keys), ("v", keys))},
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (between, hidden),
        "mlp.up_proj": (between, hidden),
        "mlp.down_proj": (hidden, between),
    }
    modules = {
        f"model.layers.{layer}.{module}": shape
        for layer in range(config["num_hidden_layers"])
        for module, shape in shapes.items()
        if module.rpartition(".")[2] in names and not (layer % 2 and module.endswith(names[0]))
    }
    return BaseModel("base", modules, max_lora_rank=16, vocab_size=config["vocab_size"])


def _rslora(config: dict[str, Any], _: Any) -> None:
    config["use_rslora"] = True


def _patterns(config: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Queries of layer 0 have rank 4, and keys another alpha."""
    config["rank_pattern"] = {"layers.0.self_attn.q_proj": 4}
    config["alpha_pattern"] = {"k_proj": 40}
    for name in [name for name in tensors if "layers.0.self_attn.q_proj" in name]:
        tensors[name] = tensors[name][:4] if "lora_A" in name else tensors[name][:, :4].copy()


@pytest.mark.parametrize(
    ("names", "rank", "dtype", "mutation"),
    [
        (("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), 16, "BF16", None),
        (("q_proj",), 8, "F32", None),
        (("v_proj", "gate_proj", "down_proj"), 3, "F16", None),
        (("q_proj", "o_proj", "up_proj"), 8, "BF16", _rslora),
        (("k_proj", "q_proj", "v_proj"), 8, "F32", _patterns),
    ],
)
async def test_what_is_staged_answers_as_what_vllm_loads(
    subject: Subject, tmp_path: Path, names: tuple[str, ...], rank: int, dtype: str, mutation: Mutation | None
) -> None:
    base = attention(subject.real.base, *names)
    path = write_adapter(
        tmp_path / "a", base, rank=rank, alpha=24 * rank, targets=names, dtype=dtype, seed=rank, mutate=mutation
    )
    more = {"logprobs": 1, "max_tokens": 6}
    plain = {"lora_name": "plain", "lora_path": str(path)}
    (await subject.http.post("/v1/load_lora_adapter", json=plain, timeout=FAR_S)).raise_for_status()
    expected = await subject.complete("plain", **more)
    untouched = await subject.complete(subject.real.name, **more)

    await subject.engine.load("staged@0123456789ab", path, tier=Tier.CPU)
    assert (await subject.tiers())["staged@0123456789ab"] is Tier.CPU, "it came through the stager"
    found = await subject.complete("staged@0123456789ab", **more)

    assert found["text"] == expected["text"]
    assert found["logprobs"]["token_logprobs"] == pytest.approx(expected["logprobs"]["token_logprobs"], abs=1e-4)
    assert expected["logprobs"]["token_logprobs"] != pytest.approx(untouched["logprobs"]["token_logprobs"], abs=1e-2)


async def test_what_is_evicted_leaves_no_memory(subject: Subject, tmp_path: Path) -> None:
    before = subject.slabs()
    for number in range(3):
        path = random_adapter(subject.real.base, tmp_path / str(number), seed=number)
        await subject.engine.load(f"many@{number:012x}", path, tier=Tier.CPU if number else Tier.GPU)
    assert subject.slabs() == before + 3

    for number in range(3):
        await subject.engine.evict(f"many@{number:012x}")
    workers = (await subject.http.get("/loramux/v1/workers")).json()
    assert workers == [{"slots": [], "host": [], "filling": []}]
    assert subject.slabs() == before


async def test_many_stage_at_once_and_a_bad_one_harms_only_itself(subject: Subject, tmp_path: Path) -> None:
    good = [random_adapter(subject.real.base, tmp_path / str(n), seed=n) for n in range(4)]
    cut = random_adapter(subject.real.base, tmp_path / "cut")
    weights = cut / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50_000])
    big = random_adapter(subject.real.base, tmp_path / "big", rank=32)
    before = subject.slabs()

    async def load(name: str, path: Path) -> None:
        await subject.engine.load(f"{name}@0123456789ab", path, tier=Tier.CPU)

    results = await asyncio.gather(
        *(load(f"good{number}", path) for number, path in enumerate(good)),
        load("cut", cut),
        load("big", big),
        load("nothing", tmp_path / "nothing"),
        return_exceptions=True,
    )

    assert results[:4] == [None] * 4
    assert all(isinstance(result, EngineRejected) for result in results[4:]), results
    assert "rank" in str(results[5])
    assert set(await subject.tiers()) == {f"good{number}@0123456789ab" for number in range(4)}
    assert subject.slabs() == before + 4
    assert (await subject.complete("good1@0123456789ab"))["text"]


async def test_without_the_stager_adapters_load_the_plain_way_until_it_is_back(
    subject: Subject, tmp_path: Path
) -> None:
    paths = [random_adapter(subject.real.base, tmp_path / str(number), seed=number) for number in range(3)]
    stager = subject.stager()
    stager.send_signal(signal.SIGSTOP)
    under_way = asyncio.create_task(subject.engine.load("first@0123456789ab", paths[0], tier=Tier.CPU))
    await asyncio.sleep(0)
    stager.kill()
    await under_way
    await subject.engine.load("second@0123456789ab", paths[1], tier=Tier.CPU)
    assert set((await subject.tiers()).values()) == {Tier.GPU}, "vLLM loads into a slot"
    assert (await subject.complete("first@0123456789ab"))["text"]

    def ready() -> bool:
        told = httpx.get(f"{subject.real.url}/loramux/v1/engine").json()["stager"]
        return bool(told["state"] == "ready" and told["pid"] != stager.pid)

    await asyncio.to_thread(eventually, ready, FAR_S)
    await subject.engine.load("third@0123456789ab", paths[2], tier=Tier.CPU)
    assert (await subject.tiers())["third@0123456789ab"] is Tier.CPU


async def test_the_stager_stands_back(subject: Subject) -> None:
    assert subject.stager().nice() == 10
    assert os.getpriority(os.PRIO_PROCESS, 0) == 0


async def test_streams_keep_their_adapters_while_slots_change_hands(subject: Subject, tmp_path: Path) -> None:
    """Four slots: two stay with streams, and ten adapters pass through the others meanwhile, some taken away while they
    are copied."""
    tones = ("pirate", "pirate-v2")
    for tone in tones:
        await subject.engine.load(f"{tone}@0123456789ab", DEMO / "adapters" / tone)
    question = {
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 24,
        "temperature": 0,
    }

    async def ask(tone: str) -> str:
        body = {"model": f"{tone}@0123456789ab", **question}
        answer = await subject.http.post("/v1/chat/completions", json=body, timeout=FAR_S)
        return str(answer.json()["choices"][0]["message"]["content"])

    expected = {tone: await ask(tone) for tone in tones}
    assert expected["pirate"] != expected["pirate-v2"]
    paths = [random_adapter(subject.real.base, tmp_path / str(n), rank=16, seed=n) for n in range(5)]
    over = False
    answers: list[tuple[str, str]] = []

    async def caller(tone: str) -> None:
        while not over:
            answers.append((tone, await ask(tone)))

    callers = [asyncio.create_task(caller(tone)) for tone in tones]
    try:
        for turn in range(10):
            name = f"passing@{turn:012x}"
            await subject.engine.load(name, paths[turn % 5], tier=Tier.GPU if turn % 3 else Tier.CPU)
            if turn % 2:
                filling = asyncio.create_task(subject.engine.activate(name))
                await asyncio.sleep(0)
                await subject.engine.evict(name)
                await asyncio.wait([filling])
                filling.exception()
    finally:
        over = True
        await asyncio.gather(*callers)

    assert len(answers) >= 4
    assert all(text == expected[tone] for tone, text in answers)


@pytest.mark.parametrize("tone", ["pirate", "shop-sql"])
async def test_the_cpu_kernels_answer_as_vllms_own(
    subject: Subject, plain_vllm: RealVllm, tmp_path: Path, tone: str
) -> None:
    """Within rounding, on an engine with our plugin and on one without: logits of 16 and more are an eighth apart in
    bfloat16."""
    path = DEMO / "adapters" / tone
    await subject.engine.load(f"{tone}@0123456789ab", path)
    async with httpx.AsyncClient(base_url=plain_vllm.url, timeout=FAR_S) as other:
        stock = engine_at(plain_vllm.url, other)
        await stock.load(f"{tone}@0123456789ab", path)
        try:
            for prompt in ("How many orders were placed in May?", "What is the capital of France?"):
                body = {
                    "model": f"{tone}@0123456789ab",
                    "messages": [{"role": "user", "content": prompt}],
                    "max_tokens": 12,
                    "temperature": 0,
                    "logprobs": True,
                }
                answers = [
                    (await client.post("/v1/chat/completions", json=body, timeout=FAR_S)).json()["choices"][0]
                    for client in (subject.http, other)
                ]
                ours, theirs = answers
                assert ours["message"]["content"] == theirs["message"]["content"]
                assert [token["logprob"] for token in ours["logprobs"]["content"]] == pytest.approx(
                    [token["logprob"] for token in theirs["logprobs"]["content"]], abs=0.3
                )
        finally:
            await stock.evict(f"{tone}@0123456789ab")
