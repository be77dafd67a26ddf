"""What `loramux bench scale` does to a gateway: a real one, whose engine is a stand-in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loramux_bench.studies.adapters import LoraShapes, write_adapters
from loramux_bench.studies.growth import grow_gateway
from loramux_bench.studies.scale import Load, restart_cost_s, slopes
from loramux_bench.studies.servers import EngineShape, Loramux
from loramux_serving.base.default import NAME
from tests.fakes.streaming_vllm import Streaming
from tests.fakes.vllm_server import Engine, listening

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def engine() -> Iterator[tuple[str, Engine]]:
    held = Engine(NAME, plugin=True, staging=True)
    with listening(Streaming, held) as url:
        yield url, held


def test_every_count_is_registered_measured_and_asked(
    engine: tuple[str, Engine], vllm_base: Path, tmp_path: Path
) -> None:
    url, held = engine
    load = Load(counts=(5,), clients=2, requests=8, restarts=1)
    shape = EngineShape(base=vllm_base, max_loras=2, max_cpu_loras=4, max_lora_rank=16)
    adapters = write_adapters(
        tmp_path / "adapters", LoraShapes.of(vllm_base), load.names(5), rank=2, modules=("q_proj", "v_proj")
    )

    def gateway() -> Loramux:
        return Loramux(
            shape,
            home=tmp_path / "home",
            log=tmp_path / "gateway.log",
            roots=[tmp_path],
            settings={"ENGINE__URLS": url},
        )

    rows = list(grow_gateway(load, gateway, adapters))

    assert [row.adapters for row in rows] == [0, 5]
    assert [row.registered.adapters for row in rows if row.registered] == [5]
    for row in rows:
        assert row.books is not None
        assert row.books.memory_bytes > 20_000_000
        assert 0 < row.books.first_page_s < 10
        assert 0 < row.books.ready_s < 60
    assert rows[0].figures is None
    assert [(row.figures.requests, row.figures.errors) for row in rows if row.figures] == [(8, 0)]
    assert slopes(rows) is not None
    assert set(restart_cost_s(rows)) == {5}
    assert {name.partition("@")[0] for name in held.names} == set(load.names(5))
