"""The real default base, unpacked once from the installed package (some 20 s on two cores)."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra `cpu` is not installed")
pytest.importorskip("gguf", reason="the extra `cpu` is not installed")

from loramux_serving.base.default import is_complete, prepare_default_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_default_base(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer  # heavy, and only here

    return AutoTokenizer.from_pretrained(base)


def test_is_complete(base: Path) -> None:
    assert is_complete(base)


def test_config_is_that_of_the_model(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (576, 30, 49152)
    assert "quantization_config" not in config


def test_weights_are_bfloat16(base: Path) -> None:
    with (base / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}
    assert tensors["model.layers.29.self_attn.q_proj.weight"]["shape"] == [576, 576]


def test_chat_template_survives(tokenizer: Any) -> None:
    conversation = [{"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


def test_digits_are_split_before_the_spaces(tokenizer: Any) -> None:
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]


def test_it_answers(base: Path, tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    conversation = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])
