"""Unpacks a GGUF file into an ordinary Hugging Face checkpoint. A program of its own, never imported.

    python -P unpack.py GGUF TARGET

`TARGET` is an empty directory. It then holds config.json, generation_config.json, model.safetensors (bfloat16),
the tokenizer and its chat template. Each line of standard output is one JSON object, `{"phase", "fraction"}`.
The exit status is 0 when everything is written, `FULL` when the disk is full, and another one otherwise, with
the reason on standard error.

It runs as a child because torch and transformers cost some 500 MB that a process never gives back, and because
the gateway never imports torch.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

FULL = 28  # errno.ENOSPC, which is the same number wherever vLLM runs


def main(gguf: Path, target: Path) -> int:
    logging.disable_progress_bar()
    try:
        report("reading the tokenizer", 0.15)
        tokenizer = read_tokenizer(gguf)
        report("dequantising the weights", 0.35)
        model = read_model(gguf)
        report("writing the checkpoint", 0.9)
        tokenizer.save_pretrained(target)
        model.save_pretrained(target)
    except (OSError, SafetensorError) as error:
        # safetensors raises its own class, with the system's message inside it.
        if getattr(error, "errno", None) == FULL or "os error 28" in str(error):
            return FULL
        raise
    return 0


def read_tokenizer(gguf: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of the GGUF file, splitting text as the model was trained to.

    transformers does not read `tokenizer.ggml.pre`. Its value `smollm` says that each digit is split off before
    the byte-level rule; without that, the spaces before a number come out as other tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.model_max_length = 8192
    for local in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(local, None)
    return tokenizer


def read_model(gguf: Path) -> PreTrainedModel:
    """The model in bfloat16. Weights are unpacked in float32 first: rounded once, not at each step."""
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    ).to(torch.bfloat16)
    return model


def report(phase: str, fraction: float) -> None:
    print(json.dumps({"phase": phase, "fraction": fraction}), flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
