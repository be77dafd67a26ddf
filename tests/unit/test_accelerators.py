"""How many accelerators an engine could use."""

from pathlib import Path

import pytest

from loramux_serving.engine.accelerators import count_accelerators


@pytest.mark.parametrize(
    ("kind", "environment", "count"),
    [
        ("cpu", {"CUDA_VISIBLE_DEVICES": "0,1"}, 1),
        ("cuda", {"CUDA_VISIBLE_DEVICES": "GPU-1, GPU-2"}, 2),
        ("cuda", {}, 2),
        ("cuda", {"CUDA_VISIBLE_DEVICES": ""}, 2),
        ("neuron", {"NEURON_RT_NUM_CORES": "8"}, 8),
        ("neuron", {"NEURON_RT_VISIBLE_CORES": "0-3,6", "NEURON_RT_NUM_CORES": "8"}, 5),
        ("neuron", {"NEURON_RT_VISIBLE_CORES": "all"}, None),
        ("neuron", {"NEURON_RT_NUM_CORES": "0"}, None),
        ("neuron", {}, None),
    ],
)
def test_the_count(kind: str, environment: dict[str, str], count: int | None, tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert count_accelerators(kind, environment, tmp_path) == count


def test_no_device_is_no_count(tmp_path: Path) -> None:
    assert count_accelerators("cuda", {}, tmp_path) is None
