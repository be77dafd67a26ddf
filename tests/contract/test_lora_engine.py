"""What `ports.LoraEngine` promises, of the fake, and of the client over a stand-in for vLLM with and without our
plugin, and over vLLM itself, with and without it."""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from loramux_adapters.errors import EngineRejected, EngineUnavailable
from loramux_adapters.model import Tier
from loramux_adapters.ports import LoraEngine
from loramux_serving.engine.process import free_port
from tests.fakes import vllm_server
from tests.fakes.lora_engine import FakeEngine
from tests.fixtures.vllm import RealVllm, engine_at, random_adapter

OPTIONS = {
    "server with plugin": ["--plugin"],
    "server that can not stage": ["--plugin", "--no-staging"],
    "server without plugin": [],
}
NAMES = ("poet@0123456789ab", "poet@ba9876543210", "law.v2-x_y@00ff00ff00ff")


@dataclass(frozen=True)
class Subject:
    """The engine under test, how to make an adapter that fits it, and how to make it unreachable."""

    engine: LoraEngine
    write: Callable[[Path], Path]
    unreachable: LoraEngine


@pytest.fixture(
    params=[
        "fake",
        "server with plugin",
        "server that can not stage",
        "server without plugin",
        pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.timeout(400)]),
        pytest.param("plain_vllm", marks=[pytest.mark.vllm, pytest.mark.timeout(400)]),
    ]
)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "fake":
        down = FakeEngine()
        down.up = False
        yield Subject(FakeEngine(), _write_config, down)
        return
    async with httpx.AsyncClient() as client:
        nobody = engine_at(f"http://127.0.0.1:{free_port()}", client)
        if request.param.endswith("vllm"):
            request.getfixturevalue("plain_start")  # it starts beside the other one
            real: RealVllm = request.getfixturevalue(request.param)
            engine = engine_at(real.url, client)
            yield Subject(engine, lambda directory: random_adapter(real.base, directory), nobody)
            for resident in await engine.residents():
                await engine.evict(resident.engine_name)
        else:
            with _server(*OPTIONS[request.param]) as url:
                yield Subject(engine_at(url, client), _write_config, nobody)


async def test_capabilities(subject: Subject) -> None:
    able = await subject.engine.capabilities()

    assert subject.engine.replica_id == "engine-0"
    assert able.dynamic_lora
    assert 1 <= able.max_loras <= able.max_cpu_loras
    assert able.max_lora_rank == 16
    assert able.version


async def test_what_is_loaded_is_resident_under_its_name_and_path(subject: Subject, tmp_path: Path) -> None:
    paths = {name: subject.write(tmp_path / name) for name in NAMES}
    for name, path in paths.items():
        await subject.engine.load(name, path)

    found = await subject.engine.residents()
    assert {item.engine_name: item.path for item in found} == {name: str(path) for name, path in paths.items()}
    assert {item.tier for item in found} <= {Tier.GPU, Tier.CPU}


async def test_loading_again_has_no_effect(subject: Subject, tmp_path: Path) -> None:
    path = subject.write(tmp_path / "a")
    for _ in range(3):
        await subject.engine.load(NAMES[0], path)

    assert [(item.engine_name, item.path) for item in await subject.engine.residents()] == [(NAMES[0], str(path))]


async def test_the_name_moves_to_another_path(subject: Subject, tmp_path: Path) -> None:
    await subject.engine.load(NAMES[0], subject.write(tmp_path / "a"))
    await subject.engine.load(NAMES[0], subject.write(tmp_path / "b"))

    assert [item.path for item in await subject.engine.residents()] == [str(tmp_path / "b")]


async def test_what_is_evicted_is_gone_and_may_come_back(subject: Subject, tmp_path: Path) -> None:
    path = subject.write(tmp_path / "a")
    for _ in range(2):
        await subject.engine.load(NAMES[0], path)
        await subject.engine.evict(NAMES[0])
        assert list(await subject.engine.residents()) == []
    await subject.engine.load(NAMES[0], path)
    assert len(await subject.engine.residents()) == 1


async def test_evicting_what_is_not_there_is_no_error(subject: Subject) -> None:
    await subject.engine.evict(NAMES[0])
    await subject.engine.evict(NAMES[0])


async def test_a_refusal_says_why_in_one_line_and_harms_nothing(subject: Subject, tmp_path: Path) -> None:
    await subject.engine.load(NAMES[0], subject.write(tmp_path / "a"))
    with pytest.raises(EngineRejected) as raised:
        await subject.engine.load(NAMES[1], tmp_path / "nothing")

    assert "\n" not in raised.value.message
    assert NAMES[1] in raised.value.message
    assert [item.engine_name for item in await subject.engine.residents()] == [NAMES[0]]


async def test_host_memory_and_slots_are_two_tiers_where_it_stages(subject: Subject, tmp_path: Path) -> None:
    engine, name = subject.engine, NAMES[0]
    stages = (await engine.capabilities()).staging
    path = subject.write(tmp_path / "a")
    await engine.load(name, path, tier=Tier.CPU)
    if stages:
        assert await _tiers(engine) == {name: Tier.CPU}
    else:
        assert (await _tiers(engine))[name] in (Tier.CPU, Tier.GPU)

    assert await engine.activate(name) is stages
    if stages:
        assert await _tiers(engine) == {name: Tier.GPU}
    assert await engine.activate(name) is stages, "again"

    await engine.load(name, path, tier=Tier.CPU)
    if stages:
        assert await _tiers(engine) == {name: Tier.GPU}, "it was above already"

    await engine.deactivate(name)
    await engine.deactivate(name)
    if stages:
        assert await _tiers(engine) == {name: Tier.CPU}
    assert list(await _tiers(engine)) == [name]


async def test_slots_go_to_who_came_last_but_for_those_that_are_kept(subject: Subject, tmp_path: Path) -> None:
    engine = subject.engine
    able = await engine.capabilities()
    names = [f"many@{number:012x}" for number in range(able.max_loras + 2)]
    for name in names[:-1]:
        await engine.load(name, subject.write(tmp_path / name))
    if able.staging:
        tiers = await _tiers(engine)
        assert tiers == {name: Tier.CPU if name == names[0] else Tier.GPU for name in names[:-1]}

    await engine.load(names[-1], subject.write(tmp_path / names[-1]), keep=names[1:-1])
    if able.staging:
        assert (await _tiers(engine))[names[-1]] is Tier.CPU, "every slot was kept"
        assert not await engine.activate(names[-1], keep=names[1:-1])
        assert await engine.activate(names[-1], keep=names[1:3])
        tiers = await _tiers(engine)
        assert [tiers[name] for name in names[:5]] == [Tier.CPU, Tier.GPU, Tier.GPU, Tier.CPU, Tier.GPU]
        found = {item.engine_name: item for item in await engine.residents()}
        in_slots = sorted((item for item in found.values() if item.tier is Tier.GPU), key=lambda item: item.recency)
        assert in_slots[-1].engine_name == names[-1]
        assert in_slots[0].engine_name == names[1]
        assert all(item.size_bytes > 0 for item in found.values())
    assert len(await engine.residents()) == len(names)


async def test_pins_hold_and_leave_one_slot(subject: Subject, tmp_path: Path) -> None:
    engine = subject.engine
    able = await engine.capabilities()
    names = [f"many@{number:012x}" for number in range(able.max_loras)]
    for name in names:
        await engine.load(name, subject.write(tmp_path / name), tier=Tier.CPU)
    for name in names[:-1]:
        await engine.pin(name, Tier.GPU)
    if able.staging:
        with pytest.raises(EngineRejected):
            await engine.pin(names[-1], Tier.GPU)
        await engine.pin(names[-1], Tier.CPU)
        pins = {item.engine_name: item.pin for item in await engine.residents()}
        assert pins == {name: Tier.CPU if name == names[-1] else Tier.GPU for name in names}
        await engine.deactivate(names[0])
        tiers = await _tiers(engine)
        assert [tiers[name] for name in names[:-1]] == [Tier.GPU] * (able.max_loras - 1)
    else:
        await engine.pin(names[-1], Tier.GPU)

    for name in (*names, "nobody@0123456789ab"):
        await engine.unpin(name)
    assert {item.pin for item in await engine.residents()} == {None}
    await engine.pin(names[0], Tier.GPU)
    await engine.evict(names[0])
    assert names[0] not in await _tiers(engine)


async def test_what_is_not_there_can_be_neither_activated_nor_pinned(subject: Subject) -> None:
    with pytest.raises(EngineRejected):
        await subject.engine.activate(NAMES[0])
    with pytest.raises(EngineRejected):
        await subject.engine.pin(NAMES[0], Tier.CPU)
    await subject.engine.deactivate(NAMES[0])


async def test_an_engine_that_is_not_there(subject: Subject, tmp_path: Path) -> None:
    engine = subject.unreachable
    for call in (engine.capabilities, engine.residents):
        with pytest.raises(EngineUnavailable):
            await call()
    with pytest.raises(EngineUnavailable):
        await engine.load(NAMES[0], tmp_path)
    for of_one in (engine.activate, engine.deactivate, engine.unpin):
        with pytest.raises(EngineUnavailable):
            await of_one(NAMES[0])
    with pytest.raises(EngineUnavailable):
        await engine.pin(NAMES[0], Tier.CPU)
    with pytest.raises(EngineUnavailable) as raised:
        await engine.evict(NAMES[0])
    assert raised.value.retry_after_s


async def _tiers(engine: LoraEngine) -> dict[str, Tier]:
    return {item.engine_name: item.tier for item in await engine.residents()}


def _write_config(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({"r": 8}))
    return directory


@contextmanager
def _server(*options: str) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, str(Path(vllm_server.__file__)), "--port", str(port), *options]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        try:
            for _ in range(500):
                try:
                    httpx.get(f"{url}/health")
                    break
                except httpx.ConnectError:
                    time.sleep(0.02)
            yield url
        finally:
            process.kill()
