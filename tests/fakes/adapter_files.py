"""Builders of small adapters and archives, good and bad, for tests.

`tiny_base` is a Llama-shaped base of two layers; `write_adapter` makes an adapter that fits a base; `mutate` spoils
it. The safetensors bytes are put together here, not by the library, so that a test can also write headers that lie
and bfloat16 without torch.
"""

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loramux_adapters.model import BaseModel

Tensors = dict[str, NDArray[Any]]
Mutation = Callable[[dict[str, Any], Tensors], None]
"""Changes an adapter's config and tensors in place before they are written."""

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
}


def tiny_base(
    name: str = "tiny", *, layers: int = 2, hidden: int = 32, intermediate: int = 48, max_lora_rank: int = 32
) -> BaseModel:
    """A base of Llama's module names; keys and values have half the heads of the queries."""
    modules: dict[str, tuple[int, int]] = {}
    for layer in range(layers):
        block = f"model.layers.{layer}"
        modules |= {
            f"{block}.self_attn.q_proj": (hidden, hidden),
            f"{block}.self_attn.k_proj": (hidden // 2, hidden),
            f"{block}.self_attn.v_proj": (hidden // 2, hidden),
            f"{block}.self_attn.o_proj": (hidden, hidden),
            f"{block}.mlp.gate_proj": (intermediate, hidden),
            f"{block}.mlp.up_proj": (intermediate, hidden),
            f"{block}.mlp.down_proj": (hidden, intermediate),
        }
    return BaseModel(name=name, modules=modules, max_lora_rank=max_lora_rank, vocab_size=128)


def adapter_config(
    base: BaseModel, *, rank: int = 8, alpha: float = 16, targets: Iterable[str] = ("q_proj", "v_proj")
) -> dict[str, Any]:
    """What PEFT writes to `adapter_config.json` for a plain LoRA."""
    return {
        "alpha_pattern": {},
        "base_model_name_or_path": base.name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "target_modules": list(targets),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def adapter_tensors(
    base: BaseModel,
    *,
    rank: int = 8,
    targets: Iterable[str] = ("q_proj", "v_proj"),
    dtype: str = "F32",
    seed: int = 0,
) -> Tensors:
    """Small random A and B for every module of `base` that a target names. BF16 is held as its upper 16 bits."""
    random = np.random.default_rng(seed)
    wanted = set(targets)
    tensors: Tensors = {}
    for module, (out_features, in_features) in base.modules.items():
        if module.rsplit(".", 1)[-1] in wanted:
            for side, shape in (("A", (rank, in_features)), ("B", (out_features, rank))):
                values = random.normal(0.0, 0.02, shape).astype("<f4")
                tensors[f"base_model.model.{module}.lora_{side}.weight"] = as_dtype(values, dtype)
    return tensors


def as_dtype(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Float32 values as `dtype`; BF16 by dropping the lower half, as `<u2`."""
    if dtype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    return values.astype(_DTYPES[dtype])


def safetensors_bytes(tensors: Mapping[str, NDArray[Any]], *, metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file. `<u2` arrays are written as BF16."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = bytearray()
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": names[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    return raw_safetensors(header, bytes(data))


def raw_safetensors(header: Any, data: bytes, *, header_bytes: int | None = None) -> bytes:
    """A safetensors file of any header at all: an object to be written as JSON, or the very bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if header_bytes is None else header_bytes) + text + data


def adapter_files(
    base: BaseModel,
    *,
    rank: int = 8,
    alpha: float = 16,
    targets: Iterable[str] = ("q_proj", "v_proj"),
    dtype: str = "F32",
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    mutate: Mutation | None = None,
) -> dict[str, bytes]:
    """An adapter as file names and bytes. `config` replaces single options; `...` removes one."""
    targets = tuple(targets)
    options = adapter_config(base, rank=rank, alpha=alpha, targets=targets) | dict(config or {})
    options = {key: value for key, value in options.items() if value is not ...}
    tensors = adapter_tensors(base, rank=rank, targets=targets, dtype=dtype, seed=seed)
    if mutate is not None:
        mutate(options, tensors)
    return {
        CONFIG: json.dumps(options, indent=2).encode(),
        WEIGHTS: safetensors_bytes(tensors, metadata={"format": "pt"}),
    }


def write_adapter(
    directory: Path,
    base: BaseModel,
    *,
    rank: int = 8,
    alpha: float = 16,
    targets: Iterable[str] = ("q_proj", "v_proj"),
    dtype: str = "F32",
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    mutate: Mutation | None = None,
) -> Path:
    """Write an adapter into `directory`, made where it is missing, and return it."""
    files = adapter_files(
        base, rank=rank, alpha=alpha, targets=targets, dtype=dtype, seed=seed, config=config, mutate=mutate
    )
    return write_files(directory, files)


def write_files(directory: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def tar_bytes(files: Mapping[str, bytes], *, compress: bool = True, prefix: str = "") -> bytes:
    """A tar, gzipped unless told otherwise, of regular files under `prefix`."""
    return tar_members((tar_file(prefix + name, content) for name, content in files.items()), compress=compress)


def tar_file(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def tar_special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """A member that is no file: `tarfile.SYMTYPE`, `LNKTYPE`, `CHRTYPE`, `FIFOTYPE`, `DIRTYPE`…"""
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member, b""


def tar_members(members: Iterable[tuple[tarfile.TarInfo, bytes]], *, compress: bool = True) -> bytes:
    """A tar of exactly these members, in this order, whatever they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), compresslevel=6, mtime=0) if compress else buffer.getvalue()


def zip_bytes(files: Mapping[str, bytes], *, compress: bool = True, prefix: str = "") -> bytes:
    """A zip of regular files under `prefix`."""
    return zip_members(((zipfile.ZipInfo(prefix + name), data) for name, data in files.items()), compress=compress)


def zip_members(members: Iterable[tuple[zipfile.ZipInfo, bytes]], *, compress: bool = True) -> bytes:
    """A zip of exactly these members, in this order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in members:
            archive.writestr(member, content, zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED)
    return buffer.getvalue()
