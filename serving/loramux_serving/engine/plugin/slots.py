"""The slots of one worker: filled a few modules at a time, so that no step waits for a whole adapter.

vLLM fills a slot at one go, inside the step of the first request that needs it. `Slots` takes that over: a fill is
begun between steps, goes on for a small share of a step's time between others, and is finished on the spot where a step
needs it sooner. Everything here happens in the worker's own thread, the only one that touches vLLM's books, and on its
stream, so that a copy comes after what was queued before it and still reads the slot.

A slot that is being filled carries the negative id of its adapter in vLLM's `lora_index_to_id`: it is not free, and no
request maps to it.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

_IN_USE_S = 1.0
"""For how long what the last step used counts as in use. There is a step every few milliseconds while anything runs."""
_FILL_SHARE = 0.1
"""Of a step's time, what may be put between two steps for slots that are being filled."""
_LEAST_FILL_S = 0.001

Note = Callable[[Any, int, Sequence[int]], None]
"""Is told (module, slot, ranks) of what a slot of a module holds from now on: the rank of each slice, 0 where the
adapter has no LoRA there."""


class Slots:
    """Around vLLM's `LRUCacheLoRAModelManager`, in whose place it activates."""

    def __init__(self, manager: Any, note: Note | None = None) -> None:
        self._manager = manager
        self._note = note
        self._fills: dict[int, _Fill] = {}
        self._held: list[dict[str, list[tuple[int, int]]]] = [{} for _ in manager.lora_index_to_id]
        """By slot and module, the ranks of `a` and `b` that may be other than 0, of each slice."""
        self._needed: frozenset[int] = frozenset()
        self._stepped_at = -math.inf
        self._step_s = 0.0
        self._spent_s = 0.0
        """On fills, since the last step."""

    # --- by vLLM, within a step ---

    def stepping(self, ids: Collection[int]) -> None:
        """A step is about to run on these adapters."""
        now = time.monotonic()
        if now - self._stepped_at < _IN_USE_S:
            self._step_s += (now - self._stepped_at - self._step_s) / 8
        self._needed = frozenset(ids)
        self._stepped_at = now
        self._spent_s = 0.0

    def activate(self, lora_id: int) -> bool:
        """`LRUCacheLoRAModelManager.activate_adapter`: in a slot on return. False where it was in one already."""
        manager = self._manager
        active = manager._active_adapters
        if lora_id in active:
            active.touch(lora_id)
            return False
        fill = self._fill_of(lora_id)
        if fill is None:
            fill = self._begin(lora_id, self._take_index())
        self._run(lora_id, fill, None)
        return True

    # --- by the plugin, between steps ---

    def fill(self, lora_id: int, keep: Collection[int]) -> str:
        """Go on filling a slot with a registered adapter: `active` when it is done, `filling` while it is not, `spent`
        where nothing more may be done before the next step, `no slot` where none may be taken: see
        `ports.LoraEngine.activate`. While nothing runs, it is done at once."""
        active = self._manager._active_adapters
        if lora_id in active:
            active.touch(lora_id)
            return "active"
        fill = self._fill_of(lora_id)
        if fill is None:
            index = self._free_index()
            if index is None:
                index = self._vacate(keep)
            if index is None:
                return "no slot"
            fill = self._begin(lora_id, index)
        budget_s = self._budget_s()
        if budget_s is not None and budget_s <= self._spent_s > 0:
            return "spent"
        began = time.perf_counter()
        done = self._run(lora_id, fill, None if budget_s is None else budget_s - self._spent_s)
        self._spent_s += time.perf_counter() - began
        return "active" if done else "filling"

    def in_use(self) -> frozenset[int]:
        """What the last step ran on, if that was lately."""
        return self._needed if time.monotonic() - self._stepped_at < _IN_USE_S else frozenset()

    def spare(self, cache: Any, keep: Collection[int]) -> int | None:
        """Of what vLLM's LRU `cache` holds, the least recently used that may leave: not in `keep`, in use, or pinned
        in that cache."""
        needed = {*keep, *self.in_use(), *cache.pinned_items}
        return next((lora_id for lora_id in cache.order if lora_id not in needed), None)

    def _budget_s(self) -> float | None:
        """For all fills between two steps. None while nothing runs: the next step was due long ago."""
        if time.monotonic() - self._stepped_at > max(4 * self._step_s, 0.05):
            return None
        return max(_FILL_SHARE * self._step_s, _LEAST_FILL_S)

    def filling(self) -> list[int]:
        self._sweep()
        return list(self._fills)

    def slot_bytes(self) -> int:
        """What one slot takes, over all modules of this worker."""
        return sum(
            tensor[0].numel() * tensor.element_size()
            for module in self._manager.modules.values()
            for stacked in (getattr(module, "lora_a_stacked", ()), getattr(module, "lora_b_stacked", ()))
            for tensor in (stacked if isinstance(stacked, tuple | list) else (stacked,))
        )

    # --- slots ---

    def _begin(self, lora_id: int, index: int) -> "_Fill":
        self._manager.lora_index_to_id[index] = -lora_id
        lora = self._manager._registered_adapters[lora_id]
        fill = self._fills[lora_id] = _Fill(self._manager, lora, index, self._held[index], self._note)
        return fill

    def _run(self, lora_id: int, fill: "_Fill", budget_s: float | None) -> bool:
        """True when the adapter is in its slot. A fill that raises is given up, and its slot is free."""
        indices, active = self._manager.lora_index_to_id, self._manager._active_adapters
        try:
            done = fill.run(budget_s)
        except BaseException:
            del self._fills[lora_id]
            indices[fill.index] = None
            raise
        if done:
            del self._fills[lora_id]
            indices[fill.index] = lora_id
            active[lora_id] = None
            active.touch(lora_id)
        return done

    def _fill_of(self, lora_id: int) -> "_Fill | None":
        self._sweep()
        return self._fills.get(lora_id)

    def _sweep(self) -> None:
        """Forget fills whose adapter or slot was taken away meanwhile, by `remove_adapter` or `remove_all_adapters`."""
        indices = self._manager.lora_index_to_id
        for lora_id, fill in list(self._fills.items()):
            reserved = indices[fill.index] == -lora_id
            if reserved and self._manager._registered_adapters.get(lora_id) is fill.lora:
                continue
            del self._fills[lora_id]
            if reserved:
                indices[fill.index] = None

    def _free_index(self) -> int | None:
        self._sweep()
        return next((index for index, held in enumerate(self._manager.lora_index_to_id) if held is None), None)

    def _take_index(self) -> int:
        """For a step, which can not wait: a free slot, an idle one, one that is being filled, or as vLLM does it.
        Raises what vLLM raises where all are pinned."""
        index = self._free_index()
        if index is None:
            index = self._vacate(())
        if index is None and self._fills:
            lora_id, fill = self._fills.popitem()
            assert self._manager.lora_index_to_id[fill.index] == -lora_id
            return fill.index
        if index is None:
            self._manager._active_adapters.remove_oldest()
            index = self._free_index()
        assert index is not None
        return index

    def _vacate(self, keep: Collection[int]) -> int | None:
        """The slot of an adapter that nobody needs."""
        active = self._manager._active_adapters
        victim = self.spare(active, keep)
        if victim is None:
            return None
        active.pop(victim)
        return self._free_index()


class _Fill:
    """The copy of one adapter into one slot."""

    def __init__(
        self, manager: Any, lora: Any, index: int, held: dict[str, list[tuple[int, int]]], note: Note | None
    ) -> None:
        self.lora = lora
        self.index = index
        self._manager = manager
        self._held = held
        self._note = note
        self._modules: Iterator[tuple[str, Any]] = iter(manager.modules.items())

    def run(self, budget_s: float | None) -> bool:
        """True when all is copied. Without a budget, at one go."""
        until = None if budget_s is None else time.perf_counter() + budget_s
        for name, module in self._modules:
            self._copy(name, module)
            if until is not None and time.perf_counter() >= until:
                return False
        return True

    def _copy(self, name: str, module: Any) -> None:
        weights = self._manager._get_lora_layer_weights(self.lora, name)
        if not _plain(module):
            self._held.pop(name, None)
            if weights is None:
                module.reset_lora(self.index)
            else:
                module.set_lora(self.index, weights.lora_a, weights.lora_b)
            return
        a, b = _slices(module, weights)
        before = self._held.get(name)
        ranks = []
        for part in range(module.n_slices):
            full = module.lora_a_stacked[part].shape[2], module.lora_b_stacked[part].shape[3]
            stale = full if before is None else before[part]
            into_a, into_b = module.lora_a_stacked[part][self.index, 0], module.lora_b_stacked[part][self.index, 0]
            ranks.append((_rows(into_a, a[part], stale[0]), _columns(into_b, b[part], stale[1])))
        self._held[name] = ranks
        if self._note is not None:
            self._note(module, self.index, [max(rank) for rank in ranks])


def _plain(module: Any) -> bool:
    """Whether the module keeps LoRA as vLLM's linear layers do, so that only what changes needs to be written. Others
    are left to their own `set_lora`."""
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
    from vllm.lora.layers.column_parallel_linear import MergedColumnParallelLinearWithLoRA

    owner = next((kind for kind in type(module).__mro__ if "set_lora" in vars(kind)), None)
    return owner in (BaseLinearLayerWithLoRA, MergedColumnParallelLinearWithLoRA)


def _slices(module: Any, weights: Any) -> tuple[list[torch.Tensor | None], list[torch.Tensor | None]]:
    """What `set_lora` of vLLM's linear layers makes of an adapter's weights: one entry for each slice of the module,
    of this worker's share."""
    if weights is None:
        return [None] * module.n_slices, [None] * module.n_slices
    a, b = weights.lora_a, weights.lora_b
    if isinstance(b, list) and len(b) != module.n_slices:
        a, b = module.expand_packed_lora(a, b)
    if module.tp_size > 1:
        a, b = module.slice_lora_a(a), module.slice_lora_b(b)
    return (a if isinstance(a, list) else [a]), (b if isinstance(b, list) else [b])


def _rows(into: torch.Tensor, weights: torch.Tensor | None, stale: int) -> int:
    """Write the first rows, and zeros over those below that may hold another adapter's. Rows that are not zero now."""
    rank = 0
    if weights is not None:
        rank, width = weights.shape
        into[:rank, :width].copy_(weights, non_blocking=True)
        if width < into.shape[1]:
            into[:rank, width:].zero_()
    if stale > rank:
        into[rank:stale].zero_()
    return rank


def _columns(into: torch.Tensor, weights: torch.Tensor | None, stale: int) -> int:
    rank = 0
    if weights is not None:
        height, rank = weights.shape
        into[:height, :rank].copy_(weights, non_blocking=True)
        if height < into.shape[0]:
            into[height:, :rank].zero_()
    if stale > rank:
        into[:, rank:stale].zero_()
    return rank
