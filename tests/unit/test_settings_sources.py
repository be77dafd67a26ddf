"""Where settings come from, and which of two places wins."""

import logging
import os
from pathlib import Path

import pytest

from loramux_adapters.errors import SettingsInvalid
from loramux_serving.foreign.names import DEMANDS, UNUSED, VARIABLES
from loramux_serving.settings_sources import Loaded, load


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the machine's."""
    names = {known.name for known in (*VARIABLES, *DEMANDS, *UNUSED)}
    for name in list(os.environ):
        if name in names or name.startswith(("LORAMUX_", "OPTION_")):
            monkeypatch.delenv(name)


def told(loaded: Loaded, level: int) -> list[tuple[str, object]]:
    return [(notice.event, notice.fields["variable"]) for notice in loaded.notices if notice.level == level]


def test_a_variable_of_others_sets_a_setting_and_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTION_MAX_LORAS", "4")
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("HOSTNAME", "web-7f9c")
    loaded = load()

    assert (loaded.settings.engine.max_loras, loaded.settings.port, loaded.settings.host) == (4, 9000, "127.0.0.1")
    assert told(loaded, logging.INFO) == [
        ("variable sets a setting", "OPTION_MAX_LORAS"),
        ("variable sets a setting", "PORT"),
    ]
    assert loaded.notices[0].fields == {"variable": "OPTION_MAX_LORAS", "setting": "engine.max_loras", "value": 4}


def test_nothing_is_told_where_nothing_is_set() -> None:
    assert load().notices == ()


def test_an_own_variable_that_agrees_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTION_MAX_LORA_RANK", "64")
    monkeypatch.setenv("LORAMUX_ENGINE__MAX_LORA_RANK", "64")
    monkeypatch.setenv("HF_MODEL_ID", "/models/base")
    monkeypatch.setenv("LORAMUX_ENGINE__MODEL", "/models/base/")
    loaded = load()

    assert (loaded.settings.engine.max_lora_rank, loaded.notices) == (64, ())


@pytest.mark.parametrize(
    ("foreign", "own", "words"),
    [
        (
            {"OPTION_MAX_LORAS": "4"},
            {"LORAMUX_ENGINE__MAX_LORAS": "8"},
            "OPTION_MAX_LORAS=4 and LORAMUX_ENGINE__MAX_LORAS=8",
        ),
        ({"OPTION_MAX_LORAS": "4"}, {"LORAMUX_ENGINE": '{"max_loras": 8}'}, "LORAMUX_ENGINE__MAX_LORAS=8"),
        ({"PORT": "80"}, {"LORAMUX_PORT": "8080"}, "PORT=80 and LORAMUX_PORT=8080 contradict each other"),
    ],
)
def test_an_own_variable_that_does_not_agree_stops_the_start(
    foreign: dict[str, str], own: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (foreign | own).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid) as refused:
        load()
    assert words in refused.value.message


def test_a_file_and_flags_win_and_a_warning_names_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "loramux.toml"
    config.write_text("[engine]\nmax_loras = 8\n")
    monkeypatch.setenv("OPTION_MAX_LORAS", "4")
    monkeypatch.setenv("PORT", "9000")
    loaded = load(config, port=7000)

    assert (loaded.settings.engine.max_loras, loaded.settings.port) == (8, 7000)
    assert [dict(notice.fields) for notice in loaded.notices] == [
        {"variable": "OPTION_MAX_LORAS=4", "setting": "engine.max_loras", "value": 8, "set_by": str(config)},
        {"variable": "PORT=9000", "setting": "port", "value": 7000, "set_by": "a flag"},
    ]
    assert {notice.level for notice in loaded.notices} == {logging.WARNING}


def test_a_flag_stands_for_an_own_variable_that_can_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAMUX_PORT", "many")
    assert load(port=7000).settings.port == 7000
    monkeypatch.setenv("PORT", "7000")
    with pytest.raises(SettingsInvalid, match="PORT=7000 and LORAMUX_PORT=many"):
        load(port=7000)


def test_what_does_nothing_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTION_ENTRYPOINT", "djl_python.huggingface")
    monkeypatch.setenv("OPTION_MAX_LORA", "4")
    monkeypatch.setenv("HF_NUM_CORES", "2")

    assert told(load(), logging.WARNING) == [
        ("variable is not used", "HF_NUM_CORES"),
        ("variable is not used", "OPTION_ENTRYPOINT"),
        ("variable is not used", "OPTION_MAX_LORA"),
    ]


def test_neurons_variables_count_for_neuron(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_NUM_CORES", "2")
    monkeypatch.setenv("HF_AUTO_CAST_TYPE", "bf16")
    monkeypatch.setenv("LORAMUX_ENGINE__KIND", "neuron")
    engine = load().settings.engine

    assert (engine.tensor_parallel_size, engine.dtype) == (2, "bfloat16")


def test_slots_that_lmi_asks_for_find_room_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTION_MAX_LORAS", "70")
    assert load().settings.engine.max_cpu_loras == 70
    monkeypatch.setenv("OPTION_MAX_LORAS", "4")
    assert load().settings.engine.max_cpu_loras == 32


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OPTION_MAX_CPU_LORAS": "4"}, "OPTION_MAX_CPU_LORAS=4 must be at least engine.max_loras=8"),
        (
            {"OPTION_MAX_LORAS": "64", "LORAMUX_ENGINE__MAX_CPU_LORAS": "16"},
            "engine.max_cpu_loras=16 must be at least OPTION_MAX_LORAS=64",
        ),
        (
            {"MAX_INPUT_TOKENS": "4096", "LORAMUX_ENGINE__MAX_MODEL_LEN": "4096"},
            "MAX_INPUT_TOKENS=4096 must be below engine.max_model_len=4096",
        ),
        ({"LORAMUX_ENGINE__MAX_LORAS": "64"}, "engine.max_cpu_loras=32 must be at least engine.max_loras=64"),
    ],
)
def test_what_can_not_both_hold_stops_the_start(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid) as refused:
        load()
    assert words in refused.value.message


def test_max_is_what_each_replica_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTION_TENSOR_PARALLEL_DEGREE", "max")
    assert load().settings.engine.tensor_parallel_size == 1
    monkeypatch.setenv("LORAMUX_ENGINE__KIND", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert load().settings.engine.tensor_parallel_size == 4
    monkeypatch.setenv("LORAMUX_ENGINE__REPLICAS", "2")
    monkeypatch.setenv("LORAMUX_ENGINE__TENSOR_PARALLEL_SIZE", "2")
    assert load().settings.engine.tensor_parallel_size == 2
    monkeypatch.setenv("LORAMUX_ENGINE__KIND", "neuron")
    monkeypatch.delenv("LORAMUX_ENGINE__TENSOR_PARALLEL_SIZE")
    monkeypatch.delenv("NEURON_RT_NUM_CORES", raising=False)
    monkeypatch.delenv("NEURON_RT_VISIBLE_CORES", raising=False)
    with pytest.raises(SettingsInvalid, match="OPTION_TENSOR_PARALLEL_DEGREE=max can not be counted"):
        load()


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="does not exist"):
        load(tmp_path / "none.toml")
