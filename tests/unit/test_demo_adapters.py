"""The demo adapters as committed: small, clean, fit for the default base, and measured on what they never saw."""

import json
import struct
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DEMO = Path(__file__).parents[2] / "deploy" / "demo"
NAMES = ("ticket-json", "shop-sql", "pirate", "pirate-v2")
SETS = ("train", "heldout", "fresh")

LAYERS = 30
HIDDEN, KEY_VALUE, INTERMEDIATE = 576, 192, 1536
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEY_VALUE, HIDDEN),
    "self_attn.v_proj": (KEY_VALUE, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
"""`(out, in)` of SmolLM2-135M-Instruct."""


def config_of(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((DEMO / "adapters" / name / "adapter_config.json").read_text())
    return config


def tensors_of(name: str) -> dict[str, Any]:
    with (DEMO / "adapters" / name / "adapter_model.safetensors").open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    header.pop("__metadata__", None)
    return header


def examples_of(name: str, part: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DEMO / "data" / name / f"{part}.jsonl").read_text().splitlines()]


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DEMO))
    return import_module("score")


@pytest.mark.parametrize("name", NAMES)
def test_is_small_and_has_nothing_else(name: str) -> None:
    folder = DEMO / "adapters" / name
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert (folder / "adapter_model.safetensors").stat().st_size < 3_000_000


@pytest.mark.parametrize("name", NAMES)
def test_config_is_plain_lora(name: str) -> None:
    config = config_of(name)
    assert config["peft_type"] == "LORA"
    assert config["base_model_name_or_path"] == "SmolLM2-135M-Instruct"
    assert config["bias"] == "none"
    assert config["modules_to_save"] is None
    assert not config["use_dora"]
    assert config["r"] in (1, 4, 8, 16)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_fit_the_base(name: str) -> None:
    config = config_of(name)
    expected: dict[str, list[int]] = {}
    for module, (out, into) in SHAPES.items():
        if module.split(".")[1] in config["target_modules"]:
            for layer in range(LAYERS):
                prefix = f"base_model.model.model.layers.{layer}.{module}"
                expected[f"{prefix}.lora_A.weight"] = [config["r"], into]
                expected[f"{prefix}.lora_B.weight"] = [out, config["r"]]
    assert {key: tensor["shape"] for key, tensor in tensors_of(name).items()} == expected


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_of_the_other_sets_was_learned(name: str) -> None:
    learned, heldout, fresh = ({example["prompt"] for example in examples_of(name, part)} for part in SETS)
    assert len(learned) >= 300
    assert len(heldout) >= 30
    assert learned.isdisjoint(heldout)
    assert learned.isdisjoint(fresh)
    assert heldout.isdisjoint(fresh)


@pytest.mark.parametrize("name", ["pirate", "pirate-v2"])
def test_held_out_small_talk_was_learned_in_no_wording(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DEMO))
    wordings = import_module("corpora.personas").WORDINGS
    learned = {example["prompt"] for example in examples_of(name, "train")}
    for prompt in (example["prompt"] for example in examples_of(name, "heldout")):
        bare = prompt.lower().rstrip(".!")
        assert learned.isdisjoint(wording.format(prompt=prompt, bare=bare) for wording in wordings)


def test_data_is_what_the_generator_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-B", str(DEMO / "generate.py"), str(tmp_path)], check=True, timeout=60)
    for name in NAMES:
        for part in SETS:
            file = f"{name}/{part}.jsonl"
            assert (tmp_path / file).read_bytes() == (DEMO / "data" / file).read_bytes(), file


@pytest.mark.parametrize("name", NAMES)
def test_expected_answers_pass_their_own_checks(name: str, score: ModuleType) -> None:
    for part in ("train", "heldout"):
        for example in examples_of(name, part):
            for check, passes in score.CHECKS[name].items():
                assert passes(example["answer"], example["answer"]), (check, example)


def test_wrong_answers_fail(score: ModuleType) -> None:
    assert not score.is_ticket("Sure! Here is the JSON.")
    assert not score.is_ticket('{"category": "billing", "priority": "soon", "summary": "x"}')
    assert not score.runs("SELECT name FROM nowhere;")
    assert not score.runs("")
    assert score.runs("Try this:\n```sql\nSELECT 1;\n```")


@pytest.mark.parametrize("name", NAMES)
def test_results_were_measured_on_all_of_the_held_out_prompts(name: str) -> None:
    entry = json.loads((DEMO / "results.json").read_text())[name]
    rows = [row for row in entry["scores"] if row["prompts"] == "held-out"]
    assert entry["bytes"] == (DEMO / "adapters" / name / "adapter_model.safetensors").stat().st_size
    assert {row["of"] for row in rows} == {len(examples_of(name, "heldout"))}
    assert all(row["adapter"] >= 0.95 * row["of"] > row["base"] for row in rows)


def test_tables_shown_to_people_are_the_measured_ones() -> None:
    table = (DEMO / "RESULTS.md").read_text()
    assert table in (DEMO / "README.md").read_text()
    assert table.strip() in (DEMO.parents[1] / "README.md").read_text()


def test_each_adapter_has_prompts_to_try() -> None:
    tries = tomllib.loads((DEMO / "prompts.toml").read_text())["adapters"]
    assert set(tries) == set(NAMES)
    for name, entry in tries.items():
        assert entry["prompts"]
        assert entry["description"]
        marked = [example["answer"].startswith(entry["marker"]) for example in examples_of(name, "heldout")]
        # The shop also changes prices: `UPDATE` is a right answer, though to none of the prompts to try.
        assert any(marked) if name == "shop-sql" else all(marked)
