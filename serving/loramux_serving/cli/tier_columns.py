"""Tiers by replica as columns. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

View = Mapping[str, Any]

MAX_COLUMNS = 6
"""Replicas beyond which one column counts them."""

_ORDER = ("gpu", "cpu", "disk", "remote")


@dataclass(frozen=True, slots=True)
class TierColumns:
    """`names` are the columns' headings, `replicas` what stands in them; `counts`: all of them in one column."""

    names: tuple[str, ...]
    replicas: tuple[str, ...]
    counts: bool

    @classmethod
    def of(cls, tiers: Iterable[Mapping[str, str]], at_most: int = MAX_COLUMNS) -> "TierColumns":
        """A column for each replica that is named; one in all where that is one, or more than `at_most`."""
        found = sorted({replica for each in tiers for replica in each}, key=_natural)
        counts = len(found) > max(1, at_most)
        return cls(("TIER",) if counts or len(found) <= 1 else tuple(found), tuple(found), counts)

    def cells(self, tiers: Mapping[str, str], residency: Mapping[str, View]) -> Sequence[str]:
        """One for each column; `-` where a replica says nothing. `*`: the engine itself keeps it there."""
        if self.counts:
            return [counted(tiers.values())]
        return [_cell(tiers.get(replica), residency.get(replica)) for replica in self.replicas] or ["-"]


def counted(tiers: Iterable[str]) -> str:
    """`3 gpu, 2 disk`; `-` for none."""
    held = list(tiers)
    known = [tier for tier in _ORDER if tier in held]
    return ", ".join(f"{held.count(tier)} {tier}" for tier in known) or "-"


def _cell(tier: str | None, found: View | None) -> str:
    if tier is None:
        return "-"
    return f"{tier}*" if found is not None and found["pin"] is not None else tier


def _natural(replica: str) -> list[tuple[bool, int, str]]:
    """`engine-2` before `engine-10`."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"([0-9]+)", replica)]
