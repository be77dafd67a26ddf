"""The weights of one slice of one module, by slot: vLLM's stacked tensors, what is known of them, and float32 copies.

Copies are made of slots whose rank is known, in the first steps that use them, and never of more than `COPY_BYTES` a
slot and slice: beyond that the product is long against oneDNN's overhead.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Final

import torch

from loramux_serving.engine.plugin.cpu_lora.copies import Copies
from loramux_serving.engine.plugin.cpu_lora.runs import Run

COPY_BYTES = 1 << 20

SPREAD_STEPS = 8
"""Copies of a newly filled slot are made over so many steps: all at once they would hold up everybody's next token."""

SEGMENT_BYTES = 128 << 10
"""What can be read in the time that one more segment costs in calls: two products and an addition, 10 µs. Measured."""

_ATTRIBUTE = "_loramux_slice"
_NEVER: Final = -2
_COPIED: Final = -1
_turns = itertools.count()


@dataclass(frozen=True, slots=True)
class Together:
    """Copies of adjacent slots, for all rows of a run at once."""

    a: torch.Tensor
    """float32 [in, slots * width]."""
    b: torch.Tensor
    """float32 [slots * width, out]."""
    foreign: torch.Tensor | None
    """bool [rows, slots * width]: what is not of the row's slot. None: all is."""


class SliceWeights:
    """Lives as long as the stacked tensors, as an attribute of theirs."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """`a` is [slots, 1, rank, in], `b` [slots, 1, out, rank]. With fully sharded adapters, `a` has a part of the
        ranks; of an embedding, `a` is [slots, vocabulary, rank]. Then only the views that fit are asked for."""
        slots = b.shape[0]
        self.a = a
        self.b = b
        self.ranks: list[int | None] = [None] * slots
        """Of each slot; 0: computes nothing. None: not known, so as many as there is room for."""
        self._turn = next(_turns) % SPREAD_STEPS
        self._state = [_NEVER] * slots
        """Of each slot: copied, never to be copied, or so many uses until it is."""
        self._copies = Copies(slots, a.shape[-1], b.shape[-2])
        self._shrinks: dict[int, torch.Tensor] = {}
        self._expands: dict[int, torch.Tensor] = {}

    def note(self, slot: int, rank: int | None) -> None:
        """The slot's values have changed, and all that is not 0 is in the first `rank` ranks."""
        self.ranks[slot] = rank
        self._shrinks.pop(slot, None)
        self._expands.pop(slot, None)
        never = rank is None or self._copies.rank_bytes * rank > COPY_BYTES
        self._state[slot] = _NEVER if never else self._turn

    @property
    def widths(self) -> tuple[int, ...]:
        """In which there is memory for copies."""
        return self._copies.widths

    def computes(self, run: Run) -> bool:
        """Whether any adapter of the run has something here."""
        ranks = self.ranks
        # Asked for each slice in each step; a generator costs more than the rest.
        for slot in run.slots:  # noqa: SIM110
            if ranks[slot] != 0:
                return True
        return False

    def shrink(self, slot: int) -> torch.Tensor:
        """View, [in, rank]."""
        view = self._shrinks.get(slot)
        if view is None:
            view = self._shrinks[slot] = self.a[slot, 0, : self.ranks[slot]].t()
        return view

    def expand(self, slot: int) -> torch.Tensor:
        """View, [rank, out]."""
        view = self._expands.get(slot)
        if view is None:
            view = self._expands[slot] = self.b[slot, 0, :, : self.ranks[slot]].t()
        return view

    def together(self, run: Run) -> list[Together] | None:
        """Whose sum is the run's. None where there are no copies of the run's slots yet, or where so much of them is of
        other slots that segments one by one are faster."""
        if not run.short:
            return None
        for slot in run.slots:
            if self._state[slot] != _COPIED and not self._approach(run.slots):
                return None
        copies = self._copies
        if len(run.segments) == 1:
            return [Together(*copies.rows(run.slots[0], 1, copies.width(run.slots[0])), None)]
        parts = [(width, first, last - first + 1) for width, first, last in copies.spans(run.slots)]
        if sum(width * span for width, _, span in parts) * copies.rank_bytes > len(run.segments) * SEGMENT_BYTES:
            return None
        return [
            Together(*copies.rows(first, span, width), run.foreign(first, span, width)) for width, first, span in parts
        ]

    def alone(self, slot: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """float32 [in, width] and [width, out] of a slot that computes something. None where there is no copy."""
        return self._copies.rows(slot, 1, self._copies.width(slot)) if self._state[slot] == _COPIED else None

    def _approach(self, slots: tuple[int, ...]) -> bool:
        """Makes the copies whose turn has come; whether all are there now."""
        for slot in slots:
            if self._state[slot] > 0 and self.ranks[slot]:
                self._state[slot] -= 1
            elif self._state[slot] >= 0:
                self._copy(slot)
        return all(self._state[slot] == _COPIED for slot in slots)

    def _copy(self, slot: int) -> None:
        rank = self.ranks[slot]
        assert rank is not None
        self._state[slot] = _COPIED
        if not rank:
            self._copies.drop(slot)
        elif not math.isfinite(self._copies.put(slot, self.a[slot, 0, :rank], self.expand(slot))):
            # The copies of many slots are multiplied together: 0 times infinity would reach everybody's tokens.
            self._copies.drop(slot)
            self._state[slot] = _NEVER


def slice_weights(a: torch.Tensor, b: torch.Tensor) -> SliceWeights:
    """Of a pair of stacked tensors; made when first asked for."""
    known: SliceWeights | None = getattr(b, _ATTRIBUTE, None)
    if known is None or known.a is not a:
        known = SliceWeights(a, b)
        setattr(a, _ATTRIBUTE, known)
        setattr(b, _ATTRIBUTE, known)
    return known


def known_weights(stacked: torch.Tensor) -> SliceWeights | None:
    """Of either tensor of a pair."""
    known: SliceWeights | None = getattr(stacked, _ATTRIBUTE, None)
    return known
