"""The weights of one slice of one module, by slot: vLLM's stacked tensors, what is known of them, and float32 copies.

Copies are made of slots whose rank is known, in the first steps that use them, and never of more than `COPY_BYTES` a
slot and slice: beyond that the product is long against oneDNN's overhead. So they take at most twice the memory of
vLLM's slots in 16 bits, and as much as the true ranks of the adapters in them ask for.
"""

import itertools
import math
from typing import Final

import torch

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


class SliceWeights:
    """Lives as long as the stacked tensors, as an attribute of theirs."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """`a` is [slots, 1, rank, in], `b` [slots, 1, out, rank]. With fully sharded adapters, `a` has a part of the
        ranks; of an embedding, `a` is [slots, vocabulary, rank]. Then only the views that fit are asked for."""
        slots = b.shape[0]
        self.a = a
        self.b = b
        self._values = a.shape[-1] + b.shape[-2]
        """Of one rank."""
        self.ranks: list[int | None] = [None] * slots
        """Of each slot; 0: computes nothing. None: not known, so as many as there is room for."""
        self._turn = next(_turns) % SPREAD_STEPS
        self._state = [_NEVER] * slots
        """Of each slot: copied, never to be copied, or so many uses until it is."""
        self._shrinks: dict[int, torch.Tensor] = {}
        self._expands: dict[int, torch.Tensor] = {}
        self.width = 0
        """Rows of each slot in the copies."""
        self._copy_a = self._copy_b = torch.empty(0)
        """[slots * width, in] and [slots * width, out]; all values are finite."""
        self._copies: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def note(self, slot: int, rank: int | None) -> None:
        """The slot's values have changed, and all that is not 0 is in the first `rank` ranks."""
        self.ranks[slot] = rank
        self._shrinks.pop(slot, None)
        self._expands.pop(slot, None)
        too_large = rank is not None and 4 * rank * self._values > COPY_BYTES
        self._state[slot] = _NEVER if rank is None or too_large else self._turn

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

    def together(self, run: Run) -> tuple[torch.Tensor, torch.Tensor] | None:
        """float32 [in, span * width] and [span * width, out], of all slots of the run's span. None where there are no
        copies of the run's slots yet, or where so much is of other slots that segments one by one are faster."""
        if not run.short:
            return None
        for slot in run.slots:
            if self._state[slot] != _COPIED and not self._approach(run.slots):
                return None
        if len(run.segments) > 1:
            read = 4 * run.span * self.width * self._values
            if read > len(run.segments) * SEGMENT_BYTES:
                return None
        return self._copies_of(run.slots[0], run.span)

    def alone(self, slot: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """float32 [in, width] and [width, out]. None where there is no copy."""
        return self._copies_of(slot, 1) if self._state[slot] == _COPIED else None

    def _copies_of(self, slot: int, span: int) -> tuple[torch.Tensor, torch.Tensor]:
        views = self._copies.get((slot, span))
        if views is None:
            rows = slice(slot * self.width, (slot + span) * self.width)
            views = self._copies[slot, span] = (self._copy_a[rows].t(), self._copy_b[rows])
        return views

    def _approach(self, slots: tuple[int, ...]) -> bool:
        """Makes the copies whose turn has come; whether all are there now. One may need so much room that all are to be
        made anew."""
        for slot in slots:
            if self._state[slot] > 0 and self.ranks[slot]:
                self._state[slot] -= 1
            elif self._state[slot] >= 0:
                self._copy(slot)
        return all(self._state[slot] == _COPIED for slot in slots)

    def _copy(self, slot: int) -> None:
        rank = self.ranks[slot]
        assert rank is not None
        self._widen()
        rows = slice(slot * self.width, (slot + 1) * self.width)
        total = 0.0
        for copy, stacked in ((self._copy_a[rows], self.a[slot, 0, :rank]), (self._copy_b[rows], self.expand(slot))):
            copy[:rank].copy_(stacked)
            copy[rank:].zero_()
            total += float(copy.sum())
        if math.isfinite(total):
            self._state[slot] = _COPIED
        else:
            # The copies of all slots are multiplied together: 0 times infinity would reach everybody's tokens.
            self._copy_a[rows].zero_()
            self._copy_b[rows].zero_()
            self._state[slot] = _NEVER

    def _widen(self) -> None:
        """Room in each slot for the largest rank that is to be copied: powers of two, so that it happens seldom."""
        ranks = [rank for rank, state in zip(self.ranks, self._state, strict=True) if rank and state != _NEVER]
        largest = max(ranks, default=1)
        if largest <= self.width:
            return
        slots, room = self.b.shape[0], self.b.shape[-1]
        self.width = min(room, 1 << (largest - 1).bit_length())
        self._copy_a = torch.zeros(slots * self.width, self.a.shape[-1])
        self._copy_b = torch.zeros(slots * self.width, self.b.shape[-2])
        self._copies.clear()
        self._state = [self._turn if state == _COPIED else state for state in self._state]


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
