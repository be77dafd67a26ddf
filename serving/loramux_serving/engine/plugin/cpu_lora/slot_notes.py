"""Who fills a slot of a module says here what is in it now. What nobody said counts as the largest rank, not as known.

vLLM's own `set_lora` and `reset_lora` say it once `watch` was called. Whoever writes into `lora_a_stacked` and
`lora_b_stacked` in another way must call `note_slot` after it, before the next step: else tokens of that slot may be
computed with what was there before.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from loramux_serving.engine.plugin.cpu_lora.slice_weights import slice_weights

_WATCHED = "_loramux_watched"


def note_slot(module: Any, slot: int, ranks: Sequence[int]) -> None:
    """Slot `slot` of the wrapped module holds, in each slice, an adapter of this rank: all of `lora_a_stacked[i][slot]`
    and `lora_b_stacked[i][slot]` beyond it is 0. A rank of 0 is a slice that the adapter does not target."""
    pairs = _pairs(module)
    if len(ranks) != len(pairs):
        raise ValueError(f"{type(module).__name__} has {len(pairs)} slices, not {len(ranks)}.")
    for (a, b), rank in zip(pairs, ranks, strict=True):
        slice_weights(a, b).note(slot, rank if _fits(a, b, rank) else None)


def note_reset(module: Any, slot: int) -> None:
    """Slot `slot` of the wrapped module is all 0: nothing is computed for its tokens."""
    note_slot(module, slot, [0] * len(_pairs(module)))


def forget_slot(module: Any, slot: int) -> None:
    """It is not known what slot `slot` of the wrapped module holds: always right, and slower."""
    for a, b in _pairs(module):
        slice_weights(a, b).note(slot, None)


def watch(layers: Iterable[type]) -> None:
    """Makes `set_lora` and `reset_lora` of these classes, and of all classes made of them, note what they do. May be
    called again."""
    for layer in layers:
        own = vars(layer)
        if "set_lora" in own:
            _replace(layer, "set_lora", _noting_set)
        if "reset_lora" in own:
            _replace(layer, "reset_lora", _noting_reset)
        watch(layer.__subclasses__())


def _replace(layer: type, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    method = vars(layer)[name]
    if not hasattr(method, _WATCHED):
        wrapped = wrap(method)
        setattr(wrapped, _WATCHED, True)
        setattr(layer, name, wrapped)


def _noting_set(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def set_lora(self: Any, index: int, lora_a: Any, lora_b: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = method(self, index, lora_a, lora_b, *args, **kwargs)
        except BaseException:
            forget_slot(self, index)
            raise
        ranks = _ranks(lora_a, len(_pairs(self)))
        if ranks is None or not _is_watched(self):
            forget_slot(self, index)
        else:
            note_slot(self, index, ranks)
        return result

    return set_lora


def _noting_reset(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def reset_lora(self: Any, index: int, *args: Any, **kwargs: Any) -> Any:
        result = method(self, index, *args, **kwargs)
        if _is_watched(self):
            note_reset(self, index)
        else:
            forget_slot(self, index)
        return result

    return reset_lora


def _is_watched(module: Any) -> bool:
    """A class that came later may have methods of its own, which write after they called those that note."""
    return hasattr(type(module).set_lora, _WATCHED) and hasattr(type(module).reset_lora, _WATCHED)


def _ranks(lora_a: Any, slices: int) -> list[int] | None:
    """Of what vLLM gives to `set_lora`: one matrix, [rank, in], which then is every slice's, or one or None for each
    slice. None where it is laid out in another way."""
    matrices = [lora_a] * slices if isinstance(lora_a, torch.Tensor) else lora_a
    if len(matrices) != slices:
        return None
    return [0 if matrix is None else matrix.shape[0] for matrix in matrices]


def _pairs(module: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    a, b = module.lora_a_stacked, module.lora_b_stacked
    return [(a, b)] if isinstance(a, torch.Tensor) else list(zip(a, b, strict=True))


def _fits(a: torch.Tensor, b: torch.Tensor, rank: int) -> bool:
    """Where adapters are fully sharded, `a` has a part of the ranks, so that a rank means nothing here. `a` is [slots,
    1, rank, in], but [slots, vocabulary, rank] of an embedding."""
    room = b.shape[-1]
    return rank <= room == (a.shape[-2] if a.dim() == 4 else a.shape[-1])
