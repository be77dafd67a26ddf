"""What was found of held connections: whom they harmed, what they cost, whether they were served. Pure."""

from collections.abc import Mapping, Sequence

import msgspec
from rich.table import Table

from loramux_bench.overhead.paced_load import Latency
from loramux_bench.overhead.part import Goal
from loramux_bench.overhead.raw_client import End
from loramux_bench.overhead.side import LORAMUX
from loramux_bench.studies.study import ms, table

GOAL_ADDED_S = 0.005
"""Most that others' p99 may grow."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of connections, on one side."""

    side: str
    what: str
    held: int
    quiet: Latency
    """Short requests beside nothing, before and after."""
    beside: Latency
    others: dict[str, int]
    """How those beside them ended."""
    kib_each: float
    """Resident memory of the gateway for each."""
    served: int
    """Idle: answered another request at the end. Slow: got their whole answer once they read on."""
    ends: dict[str, int]
    held_back: int | None
    """Slow readers: connections to the engine that the gateway did not read from meanwhile."""
    after: dict[str, int]
    """How requests ended that came, many at a time, once these were gone: what they leave behind must serve others."""

    @property
    def added_p50_s(self) -> float | None:
        return _added(self.beside.p50_s, self.quiet.p50_s)

    @property
    def added_p99_s(self) -> float | None:
        return _added(self.beside.p99_s, self.quiet.p99_s)


def goals(rows: Sequence[Held]) -> list[Goal]:
    found: list[Goal] = []
    for row in rows:
        if row.side != LORAMUX:
            continue
        added = row.added_p99_s
        found.append(
            Goal(
                f"{row.held} {row.what}: others' p99 grows by at most {ms(GOAL_ADDED_S)} ms, none of them fails",
                "not measured" if added is None else f"{ms(added)} ms, {_failed(row.others)} failed",
                None if added is None else added <= GOAL_ADDED_S and not _failed(row.others),
            )
        )
        found.append(
            Goal(f"{row.held} {row.what}: all served at the end", f"{row.served} of {row.held}", row.served == row.held)
        )
        found.append(
            Goal(
                f"{row.held} {row.what}: once they are gone, others are served",
                f"{_failed(row.after)} of {sum(row.after.values())} failed",
                not _failed(row.after),
            )
        )
        if row.held_back is not None:
            found.append(
                Goal(
                    f"{row.held} {row.what}: the engine is read as slowly",
                    f"{row.held_back} connections to it were held back",
                    row.held_back >= row.held,
                )
            )
    return found


def _failed(others: Mapping[str, int]) -> int:
    return sum(count for end, count in others.items() if end != End.WHOLE)


def _added(beside_s: float | None, quiet_s: float | None) -> float | None:
    return None if beside_s is None or quiet_s is None else beside_s - quiet_s


def held_table(rows: Sequence[Held]) -> Table:
    return table(
        "Connections held beside a load of short requests",
        [
            *("side", "held", "count", "p50, ms", "p99, ms", "added p50, ms", "added p99, ms", "others failed"),
            *("KiB each", "held back", "served", "failed after"),
        ],
        [
            [
                row.side,
                row.what,
                str(row.held),
                ms(row.beside.p50_s),
                ms(row.beside.p99_s),
                ms(row.added_p50_s),
                ms(row.added_p99_s),
                str(_failed(row.others)),
                f"{row.kib_each:.1f}",
                "" if row.held_back is None else str(row.held_back),
                str(row.served),
                str(_failed(row.after)),
            ]
            for row in rows
        ],
        left=2,
    )
