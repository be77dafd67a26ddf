"""What a base model's checkpoint says of its layers, from its safetensors headers alone."""

import json
from pathlib import Path
from typing import Any

from loramux_adapters.errors import EngineConfigInvalid, WeightsCorrupt
from loramux_adapters.lora_layout import VOCABULARY_LAYERS
from loramux_adapters.model import BaseModel
from loramux_adapters.names import shown
from loramux_adapters.safetensors_header import TensorSpec, read_header

_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
_WEIGHT = ".weight"
_INDEX = "model.safetensors.index.json"


def describe_base(directory: Path, name: str, max_lora_rank: int) -> BaseModel:
    """The base whose checkpoint is in `directory`: `config.json` and `model.safetensors`, or shards with their index.

    `modules` holds every two-dimensional floating-point `<module>.weight` as (out, in), except what maps from or to
    tokens (`embed_tokens`, `lm_head` and their kin): adapters of these are not served. Names are the checkpoint's,
    which are PEFT's for the text models of transformers. Layers whose weights are packed integers (GPTQ, AWQ) or
    fused over experts (three-dimensional) are left out, and adapters of them refused.

    Raises `EngineConfigInvalid` where `directory` is no such checkpoint.
    """
    try:
        config = _json_object(directory / "config.json")
        tensors = [spec for path in _weight_files(directory) for spec in read_header(path).values()]
    except WeightsCorrupt as error:
        raise EngineConfigInvalid(f"The base {shown(name)} can not be read. {error.message}") from error
    except OSError as error:
        raise EngineConfigInvalid(
            f"The base {shown(name)} is no checkpoint at {directory}: {error.strerror or error}."
        ) from error
    modules = {spec.name.removesuffix(_WEIGHT): (spec.shape[0], spec.shape[1]) for spec in tensors if _is_linear(spec)}
    if not modules:
        raise EngineConfigInvalid(f"The base {shown(name)} has no linear layers that adapters could fit.")
    return BaseModel(
        name=name, modules=modules, max_lora_rank=max_lora_rank, vocab_size=_vocab_size(name, config, tensors)
    )


def _is_linear(spec: TensorSpec) -> bool:
    if not spec.name.endswith(_WEIGHT) or len(spec.shape) != 2 or spec.dtype not in _FLOATS:
        return False
    return spec.name.removesuffix(_WEIGHT).rsplit(".", 1)[-1] not in VOCABULARY_LAYERS


def _weight_files(directory: Path) -> list[Path]:
    index = directory / _INDEX
    if index.is_file():
        names = _json_object(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
            raise EngineConfigInvalid(f"{_INDEX} in {directory} has no weight_map of file names.")
        files = sorted(set(names.values()))
        if any(Path(file).name != file for file in files):
            raise EngineConfigInvalid(f"{_INDEX} in {directory} names files outside its directory.")
        return [directory / file for file in files]
    return sorted(directory.glob("model-*-of-*.safetensors")) or [directory / "model.safetensors"]


def _vocab_size(name: str, config: dict[str, Any], tensors: list[TensorSpec]) -> int:
    text_config = config.get("text_config")
    for options in (config, text_config if isinstance(text_config, dict) else {}):
        size = options.get("vocab_size")
        if type(size) is int and size > 0:
            return size
    for spec in tensors:
        if spec.name.endswith(("embed_tokens.weight", "wte.weight")) and len(spec.shape) == 2:
            return spec.shape[0]
    raise EngineConfigInvalid(f"The base {shown(name)} does not say its vocab_size in config.json.")


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise EngineConfigInvalid(f"{path} is not valid JSON.") from error
    if not isinstance(value, dict):
        raise EngineConfigInvalid(f"{path} is not a JSON object.")
    return value
