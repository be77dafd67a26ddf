"""Random adapters of a base's shapes, as PEFT writes them.

They are made to be loaded, not to be sensible: every file has content of its own, and values are small, so that answers
stay near the base's. Files are on the disk when they are handed out: their pages can be dropped from the page cache.
"""

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from loramux_bench.admin.artifact import CONFIG, WEIGHTS
from loramux_bench.errors import ResultsError, ScenarioError

Dtype = Literal["bfloat16", "float16", "float32"]

ALL_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

_BLOCKS = {name: "self_attn" if name in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp" for name in ALL_MODULES}
_TAGS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_SPREAD = 0.02
"""Standard deviation of the values: their product moves an answer by little."""


@dataclass(frozen=True, slots=True)
class LoraShapes:
    """The linear layers of a base that an adapter may be of: of Llama's kind, as its config.json tells them."""

    name: str
    layers: int
    modules: dict[str, tuple[int, int]]
    """Output and input width by kind of module."""

    @classmethod
    def of(cls, base: Path) -> "LoraShapes":
        """Raises `ScenarioError` where `base` has no such config.json."""
        try:
            config = json.loads((base / "config.json").read_bytes())
            hidden, inner = int(config["hidden_size"]), int(config["intermediate_size"])
            heads = int(config["num_attention_heads"])
            head = int(config.get("head_dim") or hidden // heads)
            keys = head * int(config.get("num_key_value_heads") or heads)
            layers = int(config["num_hidden_layers"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ScenarioError(f"The shapes of {base} can not be read of its config.json: {error!r}.") from error
        outputs = {"q_proj": head * heads, "k_proj": keys, "v_proj": keys, "gate_proj": inner, "up_proj": inner}
        modules = {name: (outputs[name], hidden) for name in outputs}
        modules |= {"o_proj": (hidden, head * heads), "down_proj": (hidden, inner)}
        return cls(base.name, layers, modules)

    def parameters(self, rank: int, modules: Sequence[str]) -> int:
        return self.layers * rank * sum(sum(self.modules[name]) for name in modules)


def write_adapter(
    directory: Path,
    shapes: LoraShapes,
    *,
    rank: int,
    seed: int,
    modules: Sequence[str] = ALL_MODULES,
    dtype: Dtype = "bfloat16",
) -> Path:
    """A PEFT directory, the same for the same arguments; alpha is the rank. `directory` is made. bfloat16 is rounded to
    nearest, ties to even. Raises `ScenarioError` for a module that there is none of, `ResultsError` where it can not
    be written."""
    if unknown := [name for name in modules if name not in shapes.modules]:
        raise ScenarioError(f"There is no module {unknown[0]!r}; there are {', '.join(shapes.modules)}.")
    header, size_bytes = _header(shapes, rank, modules, dtype)
    values = np.random.default_rng(seed).standard_normal(size_bytes // _BYTES[dtype], dtype=np.float32)
    values *= _SPREAD
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": shapes.name,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(modules),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / CONFIG).write_text(json.dumps(config), "utf-8")
        with (directory / WEIGHTS).open("wb") as file:
            file.write(header)
            file.write(_encoded(values, dtype).data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ResultsError(f"Adapters can not be written to {directory}: {error.strerror}.") from error
    return directory


def write_adapters(
    directory: Path,
    shapes: LoraShapes,
    names: Sequence[str],
    *,
    rank: int,
    seed: int = 0,
    modules: Sequence[str] = ALL_MODULES,
    dtype: Dtype = "bfloat16",
) -> dict[str, Path]:
    """One for each name, in a directory of its name below `directory`. Raises what `write_adapter` raises."""
    return {
        name: write_adapter(
            directory / name, shapes, rank=rank, seed=seed_of(seed, index), modules=modules, dtype=dtype
        )
        for index, name in enumerate(names)
    }


def seed_of(seed: int, index: int) -> int:
    """A seed for each adapter of a set: no two of any two sets of up to a million are the same."""
    return seed * 1_000_000 + index


def _header(shapes: LoraShapes, rank: int, modules: Sequence[str], dtype: Dtype) -> tuple[bytes, int]:
    """Of a safetensors file, with its length; and how many bytes of tensors follow."""
    tensors: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for layer in range(shapes.layers):
        for module in modules:
            wide_out, wide_in = shapes.modules[module]
            for side, shape in (("A", (rank, wide_in)), ("B", (wide_out, rank))):
                end = at + shape[0] * shape[1] * _BYTES[dtype]
                name = f"base_model.model.model.layers.{layer}.{_BLOCKS[module]}.{module}.lora_{side}.weight"
                tensors[name] = {"dtype": _TAGS[dtype], "shape": shape, "data_offsets": [at, end]}
                at = end
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, at


def _encoded(values: NDArray[np.float32], dtype: Dtype) -> NDArray[Any]:
    match dtype:
        case "float32":
            return values
        case "float16":
            return values.astype(np.float16)
        case "bfloat16":  # numpy has none: the upper half of a float32
            bits = values.view(np.uint32)
            bits += 0x7FFF + ((bits >> 16) & 1)
            return (bits >> 16).astype(np.uint16)
