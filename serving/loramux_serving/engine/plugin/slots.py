"""Makes vLLM's workers tell which adapters are in their accelerator's slots: the `gpu` tier.

`register` is the entry point `loramux` of `vllm.general_plugins`, which vLLM calls in each of its processes where
`VLLM_PLUGINS` names it. It adds a method for `collective_rpc` to the class of all workers; nothing else changes.
"""

import logging
from typing import Any

from vllm.v1.worker.worker_base import WorkerBase

METHOD = "loramux_slots"

_logger = logging.getLogger("vllm.plugins.loramux")


def register() -> None:
    """May be called again."""
    setattr(WorkerBase, METHOD, slots)


def registered() -> bool:
    """Whether workers of this vLLM answer. General plugins load in the API server too, so it can be seen there."""
    return hasattr(WorkerBase, METHOD)


def slots(worker: Any) -> list[int] | None:
    """Ids in the worker's slots; None where this vLLM keeps them elsewhere than
    `LoRAModelManager.lora_index_to_id` (seen in 0.26 to 0.32)."""
    try:
        ids = worker.model_runner.lora_manager._adapter_manager.lora_index_to_id
    except AttributeError as error:
        _logger.warning("loramux: slots are not known, since %s", error)
        return None
    return [number for number in ids if number is not None]
