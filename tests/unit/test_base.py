import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loramux_adapters.base import describe_base
from loramux_adapters.errors import EngineConfigInvalid
from tests.fakes.adapter_files import safetensors_bytes

Q = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"
TENSORS = {
    Q: np.zeros((8, 4), np.float16),
    DOWN: np.zeros((4, 16), np.float16),
    "model.layers.0.input_layernorm.weight": np.zeros(4, np.float16),
    "model.layers.0.self_attn.q_proj.bias": np.zeros(8, np.float16),
    "model.layers.0.experts.weight": np.zeros((2, 4, 4), np.float16),
    "model.embed_tokens.weight": np.zeros((100, 4), np.float16),
    "lm_head.weight": np.zeros((100, 4), np.float16),
}


def write(directory: Path, config: Any, **files: dict[str, Any]) -> Path:
    (directory / "config.json").write_text(json.dumps(config))
    for name, tensors in files.items():
        (directory / f"{name.replace('_', '-')}.safetensors").write_bytes(safetensors_bytes(tensors))
    return directory


def test_linear_layers_are_listed_and_embeddings_are_not(tmp_path: Path) -> None:
    base = describe_base(write(tmp_path, {"vocab_size": 100}, model=TENSORS), "b", 16)
    assert dict(base.modules) == {
        "model.layers.0.self_attn.q_proj": (8, 4),
        "model.layers.0.mlp.down_proj": (4, 16),
    }
    assert (base.name, base.max_lora_rank, base.vocab_size) == ("b", 16, 100)


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    write(tmp_path, {"text_config": {"vocab_size": 7}}, part_a={Q: TENSORS[Q]}, part_b={DOWN: TENSORS[DOWN]})
    index = {"weight_map": {Q: "part-a.safetensors", DOWN: "part-b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    base = describe_base(tmp_path, "b", 16)
    assert len(base.modules) == 2
    assert base.vocab_size == 7


def test_shards_are_found_without_an_index(tmp_path: Path) -> None:
    write(tmp_path, {"vocab_size": 7}, model_00001_of_00002={Q: TENSORS[Q]}, model_00002_of_00002={DOWN: TENSORS[DOWN]})
    assert len(describe_base(tmp_path, "b", 16).modules) == 2


def test_the_vocabulary_may_be_told_by_the_embeddings(tmp_path: Path) -> None:
    assert describe_base(write(tmp_path, {}, model=TENSORS), "b", 16).vocab_size == 100


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    def refused(words: str) -> None:
        with pytest.raises(EngineConfigInvalid, match=words):
            describe_base(tmp_path, "b", 16)

    refused("no checkpoint")
    (tmp_path / "config.json").write_text("{")
    refused("not valid JSON")
    (tmp_path / "config.json").write_text("[]")
    refused("not a JSON object")
    (tmp_path / "config.json").write_text("{}")
    refused("no checkpoint")
    (tmp_path / "model.safetensors").write_bytes(b"rubbish")
    refused("truncated")
    write(tmp_path, {}, model={"norm.weight": np.zeros(4, np.float16)})
    refused("no linear layers")
    write(tmp_path, {}, model={Q: TENSORS[Q]})
    refused("vocab_size")


@pytest.mark.parametrize("index", [{}, {"weight_map": ["a"]}, {"weight_map": {"a": "../../secret.safetensors"}}])
def test_an_index_that_is_none_is_refused(tmp_path: Path, index: Any) -> None:
    write(tmp_path, {"vocab_size": 7}, model=TENSORS)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EngineConfigInvalid):
        describe_base(tmp_path, "b", 16)
