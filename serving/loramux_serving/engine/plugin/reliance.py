"""What staging relies on in vLLM, looked at when it starts. Seen in 0.26 to 0.32.

Each name is a path of attributes. `missing_in_vllm` looks at modules, `missing_in_worker` at the engine that runs, and
both answer with what is missing, in words; an empty list means that staging works.
"""

import importlib
import inspect
import os
from typing import Any

SWITCH = "LORAMUX_STAGING"
"""0 in the environment leaves loading to vLLM."""

_MODULES = {
    "vllm.lora.model_manager": (
        "LoRAModelManager._create_merged_loras_inplace",
        "LoRAModelManager._get_lora_layer_weights",
        "LRUCacheLoRAModelManager.activate_adapter",
        "LRUCacheLoRAModelManager.deactivate_adapter",
    ),
    "vllm.lora.worker_manager": (
        "WorkerLoRAManager._load_adapter",
        "LRUCacheWorkerLoRAManager._apply_adapters",
    ),
    "vllm.lora.lora_model": ("LoRAModel",),
    "vllm.lora.lora_weights": ("LoRALayerWeights", "PackedLoRALayerWeights"),
    "vllm.lora.request": ("LoRARequest",),
    "vllm.lora.layers.base_linear": ("BaseLinearLayerWithLoRA.set_lora", "BaseLinearLayerWithLoRA.reset_lora"),
    "vllm.lora.layers.column_parallel_linear": ("MergedColumnParallelLinearWithLoRA.set_lora",),
    "vllm.v1.worker.worker_base": ("WorkerBase",),
    "vllm.utils.cache": (
        "LRUCache.order",
        "LRUCache.cache",
        "LRUCache.touch",
        "LRUCache.pin",
        "LRUCache._unpin",
        "LRUCache.pop",
        "LRUCache.remove_oldest",
    ),
}
_WORKER = (
    "model_runner.lora_manager.lora_config",
    "model_runner.lora_manager.max_position_embeddings",
    "model_runner.lora_manager.vocab_size",
)
MANAGER_NEEDS = (
    "lora_index_to_id",
    "_active_adapters.pinned_items",
    "_registered_adapters.pinned_items",
    "modules",
    "packed_modules",
    "packed_modules_mapping",
    "supported_lora_modules",
    "model",
    "device",
    "capacity",
    "lora_slots",
)


def missing_in_vllm() -> list[str]:
    if os.environ.get(SWITCH, "1") == "0":
        return [f"{SWITCH}, which is 0"]
    missing = []
    for module_name, paths in _MODULES.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            missing.append(module_name)
            continue
        missing += [f"{module_name}.{path}" for path in paths if not _has(module, path)]
    if not missing:
        activate = importlib.import_module("vllm.lora.model_manager").LRUCacheLoRAModelManager.activate_adapter
        if len(inspect.signature(activate).parameters) != 2:
            missing.append("LRUCacheLoRAModelManager.activate_adapter(lora_id)")
    return missing


def missing_in_worker(worker: Any) -> list[str]:
    """Of an engine with LoRA. Mixtures of experts and pooling models pack their weights in ways that are not staged."""
    missing = [f"worker.{path}" for path in _WORKER if not _has(worker, path)]
    manager = getattr(getattr(getattr(worker, "model_runner", None), "lora_manager", None), "_adapter_manager", None)
    if manager is None:
        return [*missing, "worker.model_runner.lora_manager._adapter_manager"]
    missing += [f"the adapter manager's {path}" for path in MANAGER_NEEDS if not _has(manager, path)]
    if type(manager).__name__ != "LRUCacheLoRAModelManager":
        missing.append(f"LRUCacheLoRAModelManager (it is a {type(manager).__name__})")
    if getattr(manager, "is_pooling_model", False):
        missing.append("a model that generates")
    if getattr(manager, "_is_moe", False) or any(name.endswith(".experts") for name in getattr(manager, "modules", ())):
        missing.append("a model without experts")
    return missing


def _has(owner: Any, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True
