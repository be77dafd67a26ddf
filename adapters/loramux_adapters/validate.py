"""Whether an adapter on disk can be served on a base: everything that is checked before an engine sees it."""

from pathlib import Path

from loramux_adapters.adapter_config import CONFIG_FILE, MAX_CONFIG_BYTES, AdapterConfig, parse_config
from loramux_adapters.errors import (
    ConfigInvalid,
    OptionUnsupported,
    RankTooLarge,
    StorageFailed,
    WeightsMissing,
    WeightsUnsafe,
)
from loramux_adapters.finite import check_finite as check_values
from loramux_adapters.lora_layout import DTYPES, check_targets, check_tensors
from loramux_adapters.model import AdapterInfo, BaseModel
from loramux_adapters.names import shown
from loramux_adapters.safetensors_header import read_header

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
"""Files that run code when they are read. They are never opened here."""


def validate(directory: Path, base: BaseModel, *, max_rank: int | None, check_finite: bool) -> AdapterInfo:
    """Check the adapter in `directory` (`adapter_config.json` and `adapter_model.safetensors`) against `base`.

    `max_rank`, where given, lowers the base's own limit. With `check_finite` every weight is read. Other files are
    not looked into. Guarantees of an adapter that passes: its config has only options that vLLM serves; its weights
    are whole safetensors, in pairs, each of the shape that the base's layer of that name needs.

    Raises the class of `ArtifactError` that fits, its message one sentence for the adapter's owner; `StorageFailed`
    where the disk does not answer.
    """
    try:
        return _validate(directory, base, max_rank, check_finite)
    except OSError as error:
        raise StorageFailed(f"The adapter can not be read from disk: {error.strerror}.") from error


def _validate(directory: Path, base: BaseModel, max_rank: int | None, check_finite: bool) -> AdapterInfo:
    files = {path.name for path in directory.iterdir() if path.is_file() and not path.is_symlink()}
    config = _config(directory, files)
    _check_rank(config, base, max_rank)
    if any(name.startswith("new_embeddings.") for name in files):
        raise OptionUnsupported("The adapter brings new embeddings, which are not served.")
    _check_weights_file(files)
    check_targets(config, base)
    weights = directory / WEIGHTS_FILE
    specs = read_header(weights)
    kinds = check_tensors(specs, config, base)
    if check_finite:
        check_values(weights, specs.values())
    return AdapterInfo(
        rank=config.max_rank,
        alpha=config.alpha,
        target_modules=kinds,
        dtype="+".join(sorted({DTYPES[spec.dtype] for spec in specs.values()})),
        parameters=sum(spec.elements for spec in specs.values()),
        warnings=tuple(_warnings(config, base, files)),
    )


def _config(directory: Path, files: set[str]) -> AdapterConfig:
    if CONFIG_FILE not in files:
        raise ConfigInvalid(f"{CONFIG_FILE} is missing; an adapter is that file and {WEIGHTS_FILE}.")
    with (directory / CONFIG_FILE).open("rb") as file:
        return parse_config(file.read(MAX_CONFIG_BYTES + 1))


def _check_rank(config: AdapterConfig, base: BaseModel, max_rank: int | None) -> None:
    limit = base.max_lora_rank if max_rank is None else min(max_rank, base.max_lora_rank)
    if config.max_rank > limit:
        raise RankTooLarge(
            f"The adapter has rank {config.max_rank}, the engine serves at most {limit}; start the engine with a "
            "larger max_lora_rank or train with a smaller rank.",
            details={"rank": config.max_rank, "max_rank": limit},
        )


def _check_weights_file(files: set[str]) -> None:
    if WEIGHTS_FILE in files:
        return
    pickles = _pickles(files)
    if pickles:
        raise WeightsUnsafe(
            f"The weights come only as {shown(pickles[0])}, a pickle, which can run code; save them as {WEIGHTS_FILE}."
        )
    others = sorted(name for name in files if name.endswith(".safetensors"))
    found = f"; there is {shown(others[0])}, rename it if it is the adapter" if others else ""
    raise WeightsMissing(f"{WEIGHTS_FILE} is missing{found}.")


def _pickles(files: set[str]) -> list[str]:
    return sorted(name for name in files if Path(name).suffix.lower() in PICKLE_SUFFIXES)


def _warnings(config: AdapterConfig, base: BaseModel, files: set[str]) -> list[str]:
    found = []
    trained_on = config.base_model
    if trained_on and _last_part(trained_on) != _last_part(base.name):
        found.append(
            f"The adapter says that it was trained on {shown(trained_on)}; it is served on {shown(base.name)}, "
            "which its shapes fit."
        )
    if pickles := _pickles(files):
        found.append(f"{shown(pickles[0])} is a pickle and was dropped; the weights are taken from {WEIGHTS_FILE}.")
    return found


def _last_part(name: str) -> str:
    """`org/Model` and a local path to it are the same base."""
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
