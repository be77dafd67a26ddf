"""Which rows of a step have which slot's adapter: made once a step, read by every module. Needs nothing of vLLM."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch

SHORT_ROWS = 16
"""A segment of more rows is computed alone, on views. Measured with AMX: above this, bfloat16 on views is as fast as
float32 at rank 64, and with fewer rows two to six times slower."""

RUN_ROWS = 32
"""The most rows of a run of short segments."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive rows with one adapter: `start` to `end`, without it."""

    start: int
    end: int
    slot: int


@dataclass(frozen=True)
class Run:
    """Rows that are computed together: one long segment, or short ones, with rows of the base between them."""

    segments: tuple[Segment, ...]
    """Never empty, in the order of rows."""

    @cached_property
    def start(self) -> int:
        return self.segments[0].start

    @cached_property
    def end(self) -> int:
        return self.segments[-1].end

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Each once, ascending."""
        return tuple(sorted({segment.slot for segment in self.segments}))

    @cached_property
    def short(self) -> bool:
        return all(segment.end - segment.start <= SHORT_ROWS for segment in self.segments)

    @cached_property
    def _foreign(self) -> dict[tuple[int, int, int], torch.Tensor]:
        return {}

    def foreign(self, first: int, span: int, width: int) -> torch.Tensor:
        """bool [rows, span * width]: True where a column is not of the row's slot. `width` columns are of each of the
        `span` slots from `first`."""
        key = (first, span, width)
        if key not in self._foreign:
            owner = torch.full((self.end - self.start, 1), -1)
            for segment in self.segments:
                owner[segment.start - self.start : segment.end - self.start] = segment.slot
            self._foreign[key] = owner != first + torch.arange(span * width) // width
        return self._foreign[key]


def runs(slots: Sequence[int]) -> tuple[Run, ...]:
    """Of the slot of each row, -1 for the base. Every row with a slot is in exactly one run; runs are in order, and do
    not overlap."""
    done: list[Run] = []
    short: list[Segment] = []
    end = 0
    for slot, rows in groupby(slots):
        start, end = end, end + sum(1 for _ in rows)
        if slot < 0:
            continue
        long = end - start > SHORT_ROWS
        if short and (long or end - short[0].start > RUN_ROWS):
            done.append(Run(tuple(short)))
            short = []
        if long:
            done.append(Run((Segment(start, end, slot),)))
        else:
            short.append(Segment(start, end, slot))
    if short:
        done.append(Run(tuple(short)))
    return tuple(done)
