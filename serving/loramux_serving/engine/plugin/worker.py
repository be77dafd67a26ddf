"""What vLLM's workers do for loramux: methods for `collective_rpc`, each of which runs between two steps and is short.

`register` is the entry point `loramux` of `vllm.general_plugins`, which vLLM calls in each of its processes where
`VLLM_PLUGINS` names it. It gives the class of all workers the methods below, and puts `Slots` in the place of vLLM's
own activation. What it relies on is in `reliance`; where something is missing, `loramux_describe` says what, nothing of
vLLM is changed, and the gateway loads the plain way.
"""

import base64
import gc
import pickle
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from loramux_serving.engine.plugin import reliance
from loramux_serving.engine.plugin.cpu_lora import install as cpu_lora
from loramux_serving.engine.plugin.cpu_lora.slot_notes import note_slot
from loramux_serving.engine.plugin.slab import Slab
from loramux_serving.engine.plugin.slots import Slots
from loramux_serving.engine.plugin.stager import Recipe


def register() -> None:
    """May be called again."""
    from vllm.v1.worker.worker_base import WorkerBase

    for method in (describe, take, pinned, commit, fill, deactivate, drop, pin, unpin, holdings):
        setattr(WorkerBase, rpc(method.__name__), method)
    if not reliance.missing_in_vllm():
        _take_over_activation()
    cpu_lora.install()


def rpc(name: str) -> str:
    """The name of a method of this file on the worker."""
    return f"loramux_{name}"


def _take_over_activation() -> None:
    from vllm.lora.model_manager import LRUCacheLoRAModelManager
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

    if hasattr(LRUCacheLoRAModelManager, "loramux_slots"):
        return
    apply = LRUCacheWorkerLoRAManager._apply_adapters

    def activate_adapter(manager: Any, lora_id: int) -> bool:
        return _slots(manager).activate(lora_id)

    def _apply_adapters(worker_manager: Any, lora_requests: Any) -> None:
        ids = [request.lora_int_id for request in lora_requests if request]
        _slots(worker_manager._adapter_manager).stepping(ids)
        apply(worker_manager, lora_requests)

    LRUCacheLoRAModelManager.loramux_slots = None
    LRUCacheLoRAModelManager.activate_adapter = activate_adapter
    LRUCacheWorkerLoRAManager._apply_adapters = _apply_adapters


def _slots(manager: Any) -> Slots:
    if manager.loramux_slots is None:
        manager.loramux_slots = Slots(manager, note_slot if cpu_lora.installed() else None)
    slots: Slots = manager.loramux_slots
    return slots


def _manager(worker: Any) -> Any:
    return worker.model_runner.lora_manager._adapter_manager


# --- methods of the worker ---


def _set_heap_aside() -> None:
    """What there is now stays: it need not be looked at by each full collection of Python's, which takes 0.3 s here, of
    all streams. vLLM does so in its GPU worker, and not in the one for CPUs."""
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


def describe(worker: Any) -> dict[str, Any]:
    """`missing`: what staging needs and this vLLM, or this model, does not have. Where it is empty, `recipe` is a
    pickled `Recipe`, base64, of this worker's modules, and `slot_bytes` what one of its slots takes."""
    _set_heap_aside()
    missing = reliance.missing_in_vllm() or reliance.missing_in_worker(worker)
    if missing:
        return {"missing": missing}
    manager, lora_manager = _manager(worker), worker.model_runner.lora_manager
    recipe = Recipe(
        supported_lora_modules=list(manager.supported_lora_modules),
        packed_modules_mapping={name: list(parts) for name, parts in manager.packed_modules_mapping.items()},
        packed_modules={name: list(parts) for name, parts in manager.packed_modules.items()},
        hf_to_vllm_mapper=getattr(manager.model, "hf_to_vllm_mapper", None),
        lora_skip_prefixes=getattr(manager.model, "lora_skip_prefixes", None),
        lora_config=lora_manager.lora_config,
        max_position_embeddings=lora_manager.max_position_embeddings,
        vocab_size=lora_manager.vocab_size,
    )
    try:
        pickled = pickle.dumps(recipe)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        return {"missing": [f"a model that can be described ({error})"]}
    return {
        "missing": [],
        "recipe": base64.b64encode(pickled).decode(),
        "slot_bytes": _slots(manager).slot_bytes(),
    }


def take(worker: Any, lora_id: int, path: str, slot: bool, keep: list[int]) -> str:
    """Map the slab at `path` for `lora_id`, and without a GPU put it into the host cache at once: what `commit` says.
    With one, `pinning`: pages are being locked for it, and `commit` is due as soon as `pinned` says so. Raises
    `OSError`, and `RuntimeError` where the cache has no room."""
    slab = Slab(path)
    lora = _model(lora_id, slab)
    if torch.device(_manager(worker).device).type == "cuda":
        _taken(worker)[lora_id] = _Pinning(lora, slab.memory)
        return "pinning"
    return _register(worker, lora, slot, keep)


def commit(worker: Any, lora_id: int, slot: bool, keep: list[int]) -> str:
    """Put what was taken, and is `pinned` on every worker, into the host cache, and begin to fill a slot where `slot`:
    `held`, or what `Slots.fill` says. Raises `RuntimeError` where there is no room."""
    return _register(worker, _taken(worker).pop(lora_id).lora, slot, keep)


def pinned(worker: Any, lora_id: int) -> bool:
    """Whether `commit` is due. Raises `RuntimeError` where memory could not be pinned."""
    return _taken(worker)[lora_id].done()


def fill(worker: Any, lora_id: int, keep: list[int]) -> str:
    """See `Slots.fill`; `gone` where the host cache does not hold it."""
    manager = _manager(worker)
    if lora_id not in manager._registered_adapters:
        return "gone"
    manager._registered_adapters.touch(lora_id)
    return _slots(manager).fill(lora_id, keep)


def deactivate(worker: Any, lora_id: int) -> bool:
    """Give the slot back, unless a step used it just now or it is pinned there. True where it is in no slot."""
    manager = _manager(worker)
    active = manager._active_adapters
    if lora_id not in active:
        return True
    if lora_id in _slots(manager).in_use() or lora_id in active.pinned_items:
        return False
    manager.deactivate_adapter(lora_id)
    return True


def drop(worker: Any, lora_id: int) -> None:
    """Forget what was taken and not committed."""
    _taken(worker).pop(lora_id, None)


def pin(worker: Any, lora_id: int, tier: str) -> str:
    """Keep it in the host cache, or for `gpu` in its slot too, whatever else comes: empty, or why not."""
    manager = _manager(worker)
    if lora_id not in manager._registered_adapters:
        return "the engine does not hold it"
    active = manager._active_adapters
    if tier == "gpu":
        others = active.pinned_items - {lora_id}
        if len(others) >= manager.lora_slots - 1:
            return f"{len(others)} of {manager.lora_slots} slots are pinned, and one must stay free"
        if lora_id not in active:
            return "it is in no slot"
        active.pin(lora_id)
    elif lora_id in active.pinned_items:
        active._unpin(lora_id)
    manager._registered_adapters.pin(lora_id)
    return ""


def unpin(worker: Any, lora_id: int) -> None:
    manager = _manager(worker)
    for cache in (manager._active_adapters, manager._registered_adapters):
        if lora_id in cache.pinned_items:
            cache._unpin(lora_id)


def holdings(worker: Any) -> dict[str, Any]:
    """What this worker holds, least recently used first: `host`, [[id, bytes, pinned]], and `slots`, [[id, index,
    pinned]], whose adapters are in `host` too."""
    manager = _manager(worker)
    registered, active = manager._registered_adapters, manager._active_adapters
    indices = {held: index for index, held in enumerate(manager.lora_index_to_id) if held is not None}
    return {
        "host": [[one, _size(registered.cache[one]), one in registered.pinned_items] for one in registered.order],
        "slots": [[one, indices.get(one, -1), one in active.pinned_items] for one in active.order],
        "filling": _slots(manager).filling(),
    }


# --- weights ---


class _Weights(Mapping[str, Any]):
    """vLLM's weights by module, made from the slab when they are asked for: a slab has hundreds of tensors, and they
    are needed once each time that a slot is filled."""

    def __init__(self, slab: Slab) -> None:
        self._slab = slab

    def __getitem__(self, name: str) -> Any:
        from vllm.lora.lora_weights import LoRALayerWeights, PackedLoRALayerWeights

        weights = self._slab.weights(name)
        if isinstance(weights.a, list):
            scaling = [1 if part is not None else None for part in weights.a]
            return PackedLoRALayerWeights(name, weights.rank, weights.alpha, weights.a, weights.b, scaling=scaling)
        return LoRALayerWeights(name, weights.rank, weights.alpha, weights.a, weights.b, scaling=1)

    def __contains__(self, name: object) -> bool:
        return name in self._slab

    def __iter__(self) -> Iterator[str]:
        return iter(self._slab)

    def __len__(self) -> int:
        return len(self._slab)


def _model(lora_id: int, slab: Slab) -> Any:
    from vllm.lora.lora_model import LoRAModel

    lora = LoRAModel(lora_id, slab.rank, _Weights(slab))
    lora.loramux_bytes = slab.size_bytes
    return lora


def _register(worker: Any, lora: Any, slot: bool, keep: list[int]) -> str:
    """`LRUCacheWorkerLoRAManager.add_adapter` without what was done already."""
    manager = _manager(worker)
    registered = manager._registered_adapters
    while len(registered) >= manager.capacity:
        victim = _slots(manager).spare(registered, keep)
        if victim is None:
            raise RuntimeError("every place in the host cache is taken by adapters that are in use or pinned")
        registered.pop(victim)
    registered[lora.id] = lora
    return _slots(manager).fill(lora.id, keep) if slot else "held"


def _size(lora: Any) -> int:
    """Bytes of an adapter's weights. Kept on it, as counting takes a while."""
    size = getattr(lora, "loramux_bytes", None)
    if size is None:
        tensors = [
            tensor
            for layer in lora.loras.values()
            for part in (layer.lora_a, layer.lora_b)
            for tensor in (part if isinstance(part, list) else [part])
            if tensor is not None
        ]
        size = lora.loramux_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return int(size)


# --- pinned memory ---


def _taken(worker: Any) -> dict[int, "_Pinning"]:
    if not hasattr(worker, "loramux_taken"):
        worker.loramux_taken = {}
    taken: dict[int, _Pinning] = worker.loramux_taken
    return taken


class _Pinning:
    """Locks an adapter's pages for the device, in a thread: it takes some milliseconds for each 10 MiB, and touches
    nothing of vLLM. They are unlocked when the adapter is gone and no copy from it is under way."""

    def __init__(self, lora: Any, memory: torch.Tensor) -> None:
        self.lora = lora
        self._fault: Exception | None = None
        device = torch.cuda.current_device()
        self._thread = threading.Thread(target=self._pin, args=(memory, device), name="loramux pin", daemon=True)
        self._thread.start()

    def done(self) -> bool:
        """Raises `RuntimeError` where the pages could not be locked."""
        if self._thread.is_alive():
            return False
        if self._fault is not None:
            raise RuntimeError(f"memory could not be pinned: {self._fault}")
        return True

    def _pin(self, memory: torch.Tensor, device: int) -> None:
        try:
            torch.cuda.set_device(device)
            torch.cuda.check_error(_cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), 0))
        except Exception as error:  # told by `done`, in the worker's own thread
            self._fault = error
        else:
            weakref.finalize(self.lora, _unlock_later, memory, device).atexit = False


def _unlock_later(memory: torch.Tensor, device: int) -> None:
    """Not by whoever let go of the adapter, which is the step loop: it waits for copies that are under way."""
    threading.Thread(target=_unlock, args=(memory, device), name="loramux unpin", daemon=True).start()


def _unlock(memory: torch.Tensor, device: int) -> None:
    torch.cuda.set_device(device)
    torch.cuda.synchronize()
    torch.cuda.check_error(_cudart().cudaHostUnregister(memory.data_ptr()))


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
