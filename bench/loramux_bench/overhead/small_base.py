"""A checkpoint of Llama's shapes that nobody computes with: the gateway checks adapters against it."""

import json
import struct
from pathlib import Path

_HIDDEN, _INNER, _HEADS, _LAYERS = 32, 48, 4, 2
_VOCABULARY = 64


def write_base(directory: Path) -> None:
    """`directory` is made. Raises `OSError`."""
    directory.mkdir(parents=True, exist_ok=True)
    shapes = {
        "self_attn.q_proj": (_HIDDEN, _HIDDEN),
        "self_attn.k_proj": (_HIDDEN, _HIDDEN),
        "self_attn.v_proj": (_HIDDEN, _HIDDEN),
        "self_attn.o_proj": (_HIDDEN, _HIDDEN),
        "mlp.gate_proj": (_INNER, _HIDDEN),
        "mlp.up_proj": (_INNER, _HIDDEN),
        "mlp.down_proj": (_HIDDEN, _INNER),
    }
    tensors: dict[str, object] = {}
    at = 0
    for layer in range(_LAYERS):
        for module, (wide_out, wide_in) in shapes.items():
            end = at + wide_out * wide_in * 2
            name = f"model.layers.{layer}.{module}.weight"
            tensors[name] = {"dtype": "F16", "shape": [wide_out, wide_in], "data_offsets": [at, end]}
            at = end
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(at))
    config = {
        "hidden_size": _HIDDEN,
        "intermediate_size": _INNER,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "num_hidden_layers": _LAYERS,
        "vocab_size": _VOCABULARY,
    }
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
