"""What studies share: random adapters, the frame, the page cache, interrupts."""

import os
import signal
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest

from loramux_adapters.base import describe_base
from loramux_adapters.validate import validate
from loramux_bench.errors import ScenarioError
from loramux_bench.interrupts import interrupts_held
from loramux_bench.results.measures import Values
from loramux_bench.studies import page_cache
from loramux_bench.studies.adapters import ALL_MODULES, Dtype, LoraShapes, write_adapter, write_adapters
from loramux_bench.studies.servers import EngineShape
from loramux_bench.studies.study import StudyDir, in_turn, ms
from tests.fixtures.stalling_vllm import small_base


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_random_adapters_are_such_as_the_gateway_takes(dtype: Dtype, tmp_path: Path) -> None:
    directory = small_base(tmp_path / "base")
    shapes = LoraShapes.of(directory)
    made = write_adapter(tmp_path / "a", shapes, rank=4, seed=1, dtype=dtype)
    info = validate(made, describe_base(directory, "base", 8), max_rank=8, check_finite=True)
    assert (info.rank, info.alpha, set(info.target_modules)) == (4, 4.0, set(ALL_MODULES))
    weights = (made / "adapter_model.safetensors").read_bytes()
    assert len(weights) >= shapes.parameters(4, ALL_MODULES) * (4 if dtype == "float32" else 2)
    again = write_adapter(tmp_path / "b", shapes, rank=4, seed=1, dtype=dtype)
    assert (again / "adapter_model.safetensors").read_bytes() == weights


def test_bfloat16_is_the_nearest_to_float32(tmp_path: Path) -> None:
    shapes = LoraShapes.of(small_base(tmp_path / "base"))
    single, half = (
        _values(write_adapter(tmp_path / dtype, shapes, rank=2, seed=5, dtype=dtype), dtype)
        for dtype in ("float32", "bfloat16")
    )
    assert np.abs(single - half).max() <= np.abs(single).max() * 2**-8
    assert 0.01 < single.std() < 0.04


def _values(adapter: Path, dtype: str) -> Values:
    content = (adapter / "adapter_model.safetensors").read_bytes()
    tensors = content[8 + int.from_bytes(content[:8], "little") :]
    if dtype == "float32":
        return np.frombuffer(tensors, np.float32).astype(np.float64)
    return (np.frombuffer(tensors, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def test_adapters_of_a_set_have_content_of_their_own(tmp_path: Path) -> None:
    shapes = LoraShapes.of(small_base(tmp_path / "base"))
    made = write_adapters(tmp_path / "set", shapes, ["a", "b", "c"], rank=1, modules=["q_proj"])
    assert len({(path / "adapter_model.safetensors").read_bytes() for path in made.values()}) == 3
    with pytest.raises(ScenarioError, match="z_proj"):
        write_adapter(tmp_path / "d", shapes, rank=1, seed=1, modules=["z_proj"])
    with pytest.raises(ScenarioError, match=r"config\.json"):
        LoraShapes.of(tmp_path)


def test_rounds_go_there_and_back() -> None:
    assert list(in_turn("ab", 3)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


def test_a_result_says_where_it_was_measured(tmp_path: Path) -> None:
    study = StudyDir.create(tmp_path, "stall")
    study.scratch.mkdir()
    shape = EngineShape(base=small_base(tmp_path / "base"), max_loras=3)
    study.write({"rows": [1.5]}, shape)
    study.sweep()
    assert not study.scratch.exists()
    content = msgspec.json.decode(study.result_path.read_bytes())
    assert {"cpu_model", "cpus", "memory_bytes", "command", "packages"} <= set(content["machine"])
    assert content["study"] == "stall"
    assert content["engine"]["max_loras"] == 3
    assert content["result"] == {"rows": [1.5]}
    assert str(tmp_path) not in study.result_path.read_text().replace(content["machine"]["command"], "")


def test_milliseconds_have_three_digits() -> None:
    assert [ms(value) for value in (None, 0.0012345, 0.012345, 0.12345, 1.2345)] == ["", "1.23", "12.3", "123", "1234"]


def test_dropped_pages_are_read_from_the_disk(tmp_path: Path) -> None:
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True).stdout
    if kind.strip() in ("tmpfs", "ramfs"):
        pytest.skip("files of this directory are in memory alone")
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 40_000)
    assert page_cache.cached_share(path) > 0.9
    page_cache.drop([path])
    assert page_cache.cached_share(path) < 0.05
    path.read_bytes()
    assert page_cache.cached_share(path) > 0.9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_until_what_may_not_stop_is_done(number: signal.Signals) -> None:
    done = False
    before = signal.getsignal(number)

    def work() -> None:
        nonlocal done
        with interrupts_held():
            os.kill(os.getpid(), number)
            done = True

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert signal.getsignal(number) == before
