"""`adapter_config.json` as PEFT writes it, and which of its options vLLM serves.

The options are PEFT's (`peft/tuners/lora/config.py`, 0.21); what of them is served is vLLM's
(`vllm/lora/peft_helper.py`, 0.32), which reads some, refuses some and silently ignores the rest. Here everything that
would change what the adapter computes and that vLLM does not do is refused.
"""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from loramux_adapters.errors import ConfigInvalid, OptionUnsupported
from loramux_adapters.names import shown

CONFIG_FILE = "adapter_config.json"
MAX_CONFIG_BYTES = 1 << 20
_MAX_ALPHA = 1e6
_MAX_ENTRIES = 1024
_MAX_REPEATING = 32
"""Patterns with `*` or `+`; the others are matched in no time."""
_SERVED_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
"""Inits that only set the first values of A and B. The others (PiSSA, OLoRA, CorDA, LoftQ…) change the base."""

_UNSERVED = MappingProxyType(
    {
        "use_dora": "DoRA",
        "lora_bias": "biases in LoRA layers",
        "modules_to_save": "fully trained modules",
        "trainable_token_indices": "trained tokens",
        "alora_invocation_tokens": "activated LoRA",
        "layer_replication": "replicated layers",
        "use_bdlora": "block-diagonal LoRA",
        "use_qalora": "QALoRA",
        "target_parameters": "LoRA on bare parameters",
        "megatron_config": "Megatron's layers",
        "arrow_config": "Arrow routing",
        "kasa_config": "KaSA",
        "monteclora_config": "Monte Carlo LoRA",
    }
)
"""Options that must be absent, null, false or empty."""

_PLAIN_PATTERN = re.compile(r"[\w.\\^$|()\[\]*+?:-]{1,256}", re.ASCII)
_SAFE_NAME = re.compile(r"[\x20-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What of the config decides how an adapter is served. `target_modules` is a tuple of names, or PEFT's single
    expression (`all-linear` or a regular expression), which only training evaluates."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...] | str
    base_model: str | None = None
    rank_patterns: tuple[tuple[re.Pattern[str], int], ...] = ()

    @property
    def max_rank(self) -> int:
        return max(self.rank, *(rank for _, rank in self.rank_patterns), 0)

    def rank_of(self, module: str) -> int:
        """The rank of one module: the first pattern that matches its name's end at a dot, else `rank`
        (`PEFTHelper._match_pattern` in vLLM, `get_pattern_key` in PEFT)."""
        return next((rank for pattern, rank in self.rank_patterns if pattern.match(module)), self.rank)


def parse_config(text: bytes) -> AdapterConfig:
    """The config in `text`, the bytes of `adapter_config.json`.

    Raises `ConfigInvalid` where it is not JSON or not a LoRA's, `OptionUnsupported` for what vLLM does not serve.
    """
    options = _load(text)
    peft_type = options.get("peft_type")
    if peft_type != "LORA":
        raise ConfigInvalid(f"{CONFIG_FILE} has peft_type {_value(peft_type)}; only LORA adapters can be served.")
    missing = [key for key in ("r", "lora_alpha", "target_modules") if options.get(key) is None]
    if missing:
        raise ConfigInvalid(f"{CONFIG_FILE} lacks {', '.join(missing)}; save the adapter again with PEFT.")
    config = AdapterConfig(
        rank=_rank("r", options["r"]),
        alpha=_alpha("lora_alpha", options["lora_alpha"]),
        target_modules=_targets(options["target_modules"]),
        base_model=_base_model(options.get("base_model_name_or_path")),
        rank_patterns=tuple(
            (pattern, _rank("a rank in rank_pattern", rank)) for pattern, rank in _patterns("rank_pattern", options)
        ),
    )
    for _, alpha in _patterns("alpha_pattern", options):
        _alpha("an alpha in alpha_pattern", alpha)
    _check_served(options)
    return config


def _load(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigInvalid(f"{CONFIG_FILE} has more than {MAX_CONFIG_BYTES} bytes.")
    try:
        options = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
        # What can be decoded can still hold halves of characters, which no database and no answer can carry.
        json.dumps(options, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(f"{CONFIG_FILE} is not valid JSON.") from error
    if not isinstance(options, dict):
        raise ConfigInvalid(f"{CONFIG_FILE} is not a JSON object.")
    return options


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _rank(key: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ConfigInvalid(f"{CONFIG_FILE} has {key} = {_value(value)}; it must be a whole number above 0.")
    return value


def _alpha(key: str, value: Any) -> float:
    if type(value) not in (int, float) or not -_MAX_ALPHA <= value <= _MAX_ALPHA or not math.isfinite(value):
        raise ConfigInvalid(f"{CONFIG_FILE} has {key} = {_value(value)}; it must be a number of a plausible size.")
    return float(value)


def _targets(value: Any) -> tuple[str, ...] | str:
    if isinstance(value, str) and _SAFE_NAME.fullmatch(value):
        return value
    if isinstance(value, list) and 0 < len(value) <= _MAX_ENTRIES:
        names = tuple(item for item in value if isinstance(item, str) and _SAFE_NAME.fullmatch(item))
        if len(names) == len(value):
            return names
    raise ConfigInvalid(
        f"{CONFIG_FILE} has target_modules that are neither 1 to {_MAX_ENTRIES} names nor one expression."
    )


def _base_model(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ConfigInvalid(f"{CONFIG_FILE} has a base_model_name_or_path that is not text.")


def _patterns(key: str, options: Mapping[str, Any]) -> list[tuple[re.Pattern[str], Any]]:
    """`rank_pattern` or `alpha_pattern`: regular expressions that the engine will evaluate on every module's name, so
    only such as can not run away are let through."""
    value = options.get(key)
    if value is None:
        return []
    if not isinstance(value, dict) or len(value) > _MAX_ENTRIES:
        raise ConfigInvalid(f"{CONFIG_FILE} has a {key} that is not an object of at most {_MAX_ENTRIES} entries.")
    if sum(bool(re.search("[*+]", pattern)) for pattern in value) > _MAX_REPEATING:
        raise ConfigInvalid(f"{CONFIG_FILE} has a {key} of more than {_MAX_REPEATING} expressions that repeat.")
    return [(_pattern(key, pattern), item) for pattern, item in value.items()]


def _pattern(key: str, pattern: str) -> re.Pattern[str]:
    """At most two repetitions and none of a group: matching then takes at most cubic time in a module's name."""
    simple = _PLAIN_PATTERN.fullmatch(pattern) and not re.search(r"\)[*+?]", pattern)
    if simple and len(re.findall(r"(?<!\()[*+?]", pattern)) <= 2:
        with suppress(re.error):
            return re.compile(rf"(.*\.)?({pattern})$")
    raise ConfigInvalid(
        f"{CONFIG_FILE} has the pattern {shown(pattern)} in {key}; use module names or simple expressions."
    )


def _check_served(options: Mapping[str, Any]) -> None:
    for key, feature in _UNSERVED.items():
        if options.get(key):
            raise OptionUnsupported(f"{CONFIG_FILE} sets {key}: the engine does not serve {feature}.")
    bias = options.get("bias")
    if bias not in (None, "none"):
        raise OptionUnsupported(
            f"{CONFIG_FILE} sets bias to {_value(bias)}: the engine serves adapters without biases."
        )
    init = options.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in _SERVED_INITS:
        raise OptionUnsupported(
            f"{CONFIG_FILE} sets init_lora_weights to {_value(init)}, which changes the base's own weights: convert "
            "the adapter with PEFT's path_initial_model_for_weight_conversion."
        )
    if init is not None and not isinstance(init, str | bool):
        raise ConfigInvalid(f"{CONFIG_FILE} has init_lora_weights = {_value(init)}; it must be true, false or a name.")


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return shown(value)
    return shown(json.dumps(value)).strip("'")
