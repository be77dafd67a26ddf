"""Whether an adapter's tensors are LoRA pairs that fit the layers of a base. Pure: names and shapes in, a verdict out.

vLLM serves what does not fit as the plain base, silently, or dies of it inside a step; so every tensor is accounted
for here. Names are PEFT's: `base_model.model.<module>.lora_A.weight` of shape (rank, in) and `…lora_B.weight` of shape
(out, rank). `vllm/lora/utils.py: parse_fine_tuned_lora_name` accepts a few more, which can not be told from mistakes.
"""

import difflib
from collections.abc import Iterable, Mapping
from itertools import islice

from loramux_adapters.adapter_config import CONFIG_FILE, AdapterConfig
from loramux_adapters.errors import OptionUnsupported, WeightsMismatch
from loramux_adapters.model import BaseModel
from loramux_adapters.names import shown
from loramux_adapters.safetensors_header import TensorSpec

PREFIX = "base_model.model."
DTYPES: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""What safetensors calls the dtypes that are served, and what the rest of the world calls them."""
VOCABULARY_LAYERS = frozenset({"embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out", "word_embeddings"})
"""Last parts of names of layers that map from or to tokens; adapters of these are not served."""


def check_targets(config: AdapterConfig, base: BaseModel) -> None:
    """Raises `WeightsMismatch` for a target module that `base` lacks altogether, `OptionUnsupported` for the
    embeddings or the head."""
    if isinstance(config.target_modules, str):
        return
    endings = {module[start:] for module in base.modules for start in _part_starts(module)}
    for target in config.target_modules:
        if target.rsplit(".", 1)[-1] in VOCABULARY_LAYERS:
            raise OptionUnsupported(
                f"{CONFIG_FILE} has {shown(target)} in target_modules: adapters of it are not served."
            )
        if target not in endings:
            raise WeightsMismatch(
                f"{CONFIG_FILE} has {shown(target)} in target_modules, which the base {shown(base.name)} does not "
                f"have; it has {_examples(target, _kinds(base.modules))}."
            )


def check_tensors(specs: Mapping[str, TensorSpec], config: AdapterConfig, base: BaseModel) -> tuple[str, ...]:
    """The kinds of module (`q_proj`) that the tensors adapt, sorted.

    Raises `WeightsMismatch` where a name is not PEFT's, a pair is not whole, a module is not the base's, a shape or
    dtype does not fit, or there is nothing; `OptionUnsupported` for tensors of features that are not served.
    """
    pairs: dict[str, dict[str, TensorSpec]] = {}
    for spec in specs.values():
        module, side = _parse(spec.name)
        pairs.setdefault(module, {})[side] = spec
    if not pairs:
        raise WeightsMismatch("The weights hold no LoRA tensors.")
    for module, pair in pairs.items():
        _check_pair(module, pair, config, base)
    return _kinds(pairs)


def _parse(name: str) -> tuple[str, str]:
    """`base_model.model.<module>.lora_A.weight` → (module, "A")."""
    for side in "AB":
        suffix = f".lora_{side}.weight"
        if name.startswith(PREFIX) and name.endswith(suffix) and len(name) > len(PREFIX) + len(suffix):
            module = name[len(PREFIX) : -len(suffix)]
            if module.rsplit(".", 1)[-1] in VOCABULARY_LAYERS:
                raise OptionUnsupported(f"The tensor {shown(name)} adapts an embedding or head, which is not served.")
            return module, side
    raise _refusal(name)


def _refusal(name: str) -> OptionUnsupported | WeightsMismatch:
    parts = name.split(".")
    if parts[-1] in ("lora_embedding_A", "lora_embedding_B") or parts[0] == "new_embeddings":
        return OptionUnsupported(f"The tensor {shown(name)} adapts embeddings, which is not served.")
    if "lora_magnitude_vector" in parts:
        return OptionUnsupported(f"The tensor {shown(name)} belongs to DoRA, which the engine does not serve.")
    if parts[-1] == "bias":
        return OptionUnsupported(f"The tensor {shown(name)} is a bias; the engine serves adapters without biases.")
    if parts[-1] == "weight" and not any(part.startswith("lora_") for part in parts):
        return OptionUnsupported(
            f"The tensor {shown(name)} is a full weight, not a LoRA pair; fully trained modules are not served."
        )
    return WeightsMismatch(
        f"The tensor {shown(name)} is not named as PEFT names LoRA weights, "
        f"{PREFIX}<module>.lora_A.weight or .lora_B.weight; save the adapter again with save_pretrained."
    )


def _check_pair(module: str, pair: Mapping[str, TensorSpec], config: AdapterConfig, base: BaseModel) -> None:
    if module not in base.modules:
        raise WeightsMismatch(
            f"The weights adapt {shown(module)}, which the base {shown(base.name)} does not have; "
            f"it has {_examples(module, base.modules)}."
        )
    if len(pair) != 2:
        present = next(iter(pair))
        raise WeightsMismatch(f"The module {shown(module)} has lora_{present} but not its other half.")
    out_features, in_features = base.modules[module]
    rank = config.rank_of(module)
    for side, expected in (("A", (rank, in_features)), ("B", (out_features, rank))):
        spec = pair[side]
        if spec.dtype not in DTYPES:
            raise WeightsMismatch(
                f"The tensor {shown(spec.name)} is {spec.dtype}; the engine takes {', '.join(DTYPES.values())}."
            )
        if spec.shape != expected:
            raise WeightsMismatch(
                f"The tensor {shown(spec.name)} has shape {list(spec.shape)}; with rank {rank} the base "
                f"{shown(base.name)} needs {list(expected)}."
            )


def _part_starts(module: str) -> Iterable[int]:
    """Where the dotted parts of a name begin."""
    return [0, *(index + 1 for index, character in enumerate(module) if character == ".")]


def _kinds(modules: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({module.rsplit(".", 1)[-1] for module in modules}))


def _examples(wanted: str, names: Iterable[str], count: int = 4) -> str:
    """A few of `names`, the most alike first."""
    names = list(islice(names, 2000))
    alike = difflib.get_close_matches(wanted[:256], names, n=count, cutoff=0.5)
    chosen = (alike + [name for name in names if name not in alike])[:count]
    return ", ".join(chosen) + (", …" if len(names) > len(chosen) else "")
