"""float32 copies of slots' adapters, in which the adapters of adjacent slots can be multiplied in one product.

A copy is among those of about its rank: the next power of two is the rows' width there, so that one large adapter does
not make the small ones slow. So copies of one width take `slots * width` ranks of memory, from the first one of it to
the last.
"""

from collections.abc import Iterable

import torch

Rows = tuple[torch.Tensor, torch.Tensor]
"""[in, rows] and [rows, out]."""


class Copies:
    """All rows are finite; rows of a slot that has no copy in a width are 0 there."""

    def __init__(self, slots: int, inputs: int, outputs: int) -> None:
        self.rank_bytes = 4 * (inputs + outputs)
        self._slots = slots
        self._inputs = inputs
        self._outputs = outputs
        self._widths = [0] * slots
        """Of each slot that has a copy; 0 of others."""
        self._stores: dict[int, Rows] = {}
        """By width; [slots * width, in] and [slots * width, out]."""
        self._views: dict[tuple[int, int, int], Rows] = {}

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self._stores)

    def width(self, slot: int) -> int:
        return self._widths[slot]

    def spans(self, slots: Iterable[int]) -> list[tuple[int, int, int]]:
        """(width, first slot, last slot) of each width that these slots, given ascending, have copies in."""
        found: dict[int, tuple[int, int, int]] = {}
        for slot in slots:
            width = self._widths[slot]
            if width:
                found[width] = (width, found[width][1] if width in found else slot, slot)
        return list(found.values())

    def rows(self, first: int, span: int, width: int) -> Rows:
        """Views of `span` slots' rows in a width."""
        views = self._views.get((first, span, width))
        if views is None:
            a, b = self._stores[width]
            rows = slice(first * width, (first + span) * width)
            views = self._views[first, span, width] = (a[rows].t(), b[rows])
        return views

    def put(self, slot: int, a: torch.Tensor, b: torch.Tensor) -> float:
        """Copy [rank, in] and [rank, out], in place of what the slot has. Returns the sum of all values: where it is
        not finite, the caller must drop the slot at once."""
        rank = a.shape[0]
        width = 1 << (rank - 1).bit_length()
        if self._widths[slot] != width:
            self.drop(slot)
        if width not in self._stores:
            rows = self._slots * width
            self._stores[width] = torch.zeros(rows, self._inputs), torch.zeros(rows, self._outputs)
        self._widths[slot] = width
        total = 0.0
        for store, values in zip(self._stores[width], (a, b), strict=True):
            copy = store[slot * width : (slot + 1) * width]
            copy[:rank].copy_(values)
            copy[rank:].zero_()
            total += float(copy.sum())
        return total

    def drop(self, slot: int) -> None:
        """The slot's rows are 0 again; nothing if it has none."""
        width = self._widths[slot]
        if not width:
            return
        self._widths[slot] = 0
        if width in self._widths:
            for store in self._stores[width]:
                store[slot * width : (slot + 1) * width].zero_()
        else:
            del self._stores[width]
            self._views = {key: views for key, views in self._views.items() if key[2] != width}
