"""A frame of `loramux top` as text, as wide as the terminal and as high. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from loramux_serving.cli.frame import AdapterRow, Frame
from loramux_serving.cli.gateway import printable
from loramux_serving.cli.tables import cell, occupancy
from loramux_serving.cli.tier_columns import TierColumns
from loramux_serving.cli.units import ago, duration, optional, rate, size

View = Mapping[str, Any]

_GAP = 2
_MIN_NAME = 12
_TIERS = 7
"""`keep` of the columns with tiers."""


@dataclass(frozen=True, slots=True)
class _Column:
    """`keep`: in a narrow terminal, columns of a lower number go first."""

    name: str
    cells: Sequence[str]
    keep: int
    left: bool = False

    @property
    def width(self) -> int:
        return max(cell_len(text) for text in (self.name, *self.cells)) + _GAP


def render(frame: Frame, title: Text, now_s: float, width: int, height: int | None) -> Group:
    """`title` comes first, `now_s` is the time in Unix seconds, `height` None shows every adapter."""
    parts: list[RenderableType] = [_cut(title, width)]
    replicas = _table(_replica_columns(frame.replicas), width)
    parts += [replicas, _line(moves(frame), width), Text()]
    shown = frame.adapters
    if height is not None:
        room = max(1, height - len(frame.replicas) - 6)
        shown = shown[:room]
    parts.append(_table(_fitting(shown, now_s, width), width))
    if len(shown) < len(frame.adapters):
        parts.append(_line(f"and {len(frame.adapters) - len(shown)} more", width, "dim"))
    return Group(*parts)


def moves(frame: Frame) -> str:
    """Moves between tiers in one line."""
    if frame.span_s is None:
        return "moves: -"
    ups = [f"{move.transition} {rate(move.per_s)}/s ({duration(move.mean_s)})" for move in frame.moves if move.per_s]
    failed = sum(move.failed_per_s for move in frame.moves)
    downs = [f"{tier} {rate(per_s)}/s" for tier, per_s in sorted(frame.evictions.items()) if per_s]
    lost = f"   failed: {rate(failed)}/s" if failed else ""
    return f"loads: {', '.join(ups) or '0/s'}   evictions: {', '.join(downs) or '0/s'}{lost}"


def _replica_columns(views: Sequence[View]) -> list[_Column]:
    return [
        _Column("REPLICA", [view["id"] for view in views], 9, left=True),
        _Column("STATE", [view["state"] for view in views], 8, left=True),
        _Column("REQUESTS", [str(view["outstanding"]) for view in views], 5),
        _Column("SLOTS", [occupancy(view["slots"]) for view in views], 7),
        _Column("HOST", [occupancy(view["host"]) for view in views], 6),
        _Column("BYTES", [_bytes(view["host"]) for view in views], 4),
        _Column("STAGING", [_yes(view["staging"]) for view in views], 1, left=True),
        _Column("REPORTED", [duration(view["report_age_s"]) for view in views], 3),
        _Column("DETAIL", [optional(view["detail"]) for view in views], 2, left=True),
    ]


def _fitting(rows: Sequence[AdapterRow], now_s: float, width: int) -> list[_Column]:
    """Tiers are counted where a column for each replica does not fit."""
    whole = _adapter_columns(rows, now_s, TierColumns.of(row.tiers for row in rows))
    if sum(column.width for column in whole if column.keep >= _TIERS) <= width:
        return whole
    return _adapter_columns(rows, now_s, TierColumns.of((row.tiers for row in rows), at_most=1))


def _adapter_columns(rows: Sequence[AdapterRow], now_s: float, tiers: TierColumns) -> list[_Column]:
    cells = [tiers.cells(row.tiers, row.residency) for row in rows]
    return [
        _Column("ADAPTER", [row.name for row in rows], 9, left=True),
        _Column("STATE", [row.state for row in rows], 1, left=True),
        _Column("REQ/S", [rate(row.per_s) for row in rows], 8),
        _Column("RUN", [str(row.running) for row in rows], 6),
        _Column("QUEUED", [str(row.queued) for row in rows], 5),
        *(
            _Column(name, [each[number] for each in cells], _TIERS, left=True)
            for number, name in enumerate(tiers.names)
        ),
        _Column("TTFT P50", [duration(row.ttft_p50_s) for row in rows], 4),
        _Column("TOKENS/S", [rate(row.tokens_per_s) for row in rows], 3),
        _Column("LAST USED", [ago(row.last_used_at, now_s) for row in rows], 2),
    ]


def _table(columns: Sequence[_Column], width: int) -> Table:
    """One line a row; what does not fit is left out, the last column is cut."""
    kept = list(columns)
    while len(kept) > 1 and _needed(kept) > width:
        least = min(column.keep for column in kept)
        kept.remove(next(column for column in reversed(kept) if column.keep == least))
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in kept:
        justify: JustifyMethod = "left" if column.left else "right"
        table.add_column(cell(column.name), justify=justify, no_wrap=True, overflow="ellipsis")
    for number in range(len(kept[0].cells)):
        table.add_row(*(cell(column.cells[number]) for column in kept))
    return table


def _needed(columns: Sequence[_Column]) -> int:
    """The first column, which has the names, may be cut."""
    first, *rest = columns
    return min(first.width, _MIN_NAME + _GAP) + sum(column.width for column in rest)


def _line(text: str, width: int, style: str = "") -> Text:
    return _cut(Text(printable(text), style=style), width)


def _cut(text: Text, width: int) -> Text:
    line = text.copy()
    line.truncate(width, overflow="ellipsis")
    return line


def _bytes(host: View | None) -> str:
    return "-" if host is None else size(host["bytes"] or None)


def _yes(staging: bool | None) -> str:
    return "-" if staging is None else "yes" if staging else "no"
