"""Streams without pace: how many frames a second go through one core."""

import statistics
from collections.abc import Sequence

import msgspec
from rich.table import Table

from loramux_bench.overhead import rounds
from loramux_bench.overhead.generator.job import Report
from loramux_bench.overhead.limits import limited
from loramux_bench.overhead.lineup import lineup
from loramux_bench.overhead.part import AGAINST, Goal, Options, Outcome, at_least
from loramux_bench.overhead.rounds import Rounds
from loramux_bench.overhead.side import DIRECT, Side
from loramux_bench.overhead.streaming import unpaced
from loramux_bench.overhead.turns import take_turns
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.studies.ratio import Ratio
from loramux_bench.studies.study import table

STREAMS = 16
"""At a time."""
TOKENS = 256


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One side: medians over rounds."""

    side: str
    frames_per_s: float | None
    to_direct: Ratio | None
    to_peer: Ratio | None
    busy: float
    """Share of the tested core, in the busiest round."""
    frames_per_core_s: float | None
    """For each second of a core that it used: also where the mock was the limit."""
    errors: int
    failure: str
    limits: tuple[str, ...]


def frames(place: Workplace, options: Options) -> Outcome:
    sides = lineup(place, options.sides)
    engine = sides[0]

    def look(side: Side) -> Report:
        return unpaced(side, engine, place.cores.load, streams=STREAMS, tokens=TOKENS, seconds=options.seconds)

    def told(seen: Report) -> str:
        return f"{seen.frames_per_s:.0f} frames a second"

    found = take_turns(place, engine, sides, options.rounds, look, told)
    rows = summarise(found)
    result = {"streams": STREAMS, "tokens": TOKENS, "rounds": found, "rows": rows}
    return Outcome(result, [_table(rows)], goals(found), remarks(rows))


def summarise(found: Rounds[Report]) -> list[Row]:
    """Pure."""
    return [_row(side, found) for side in rounds.sides(found)]


def _row(side: str, found: Rounds[Report]) -> Row:
    own = list(rounds.of(found, side).values())
    return Row(
        side=side,
        frames_per_s=rounds.middle(found, side, _rate),
        to_direct=rounds.ratio(found, side, DIRECT, _rate),
        to_peer=rounds.ratio(found, side, AGAINST, _rate),
        busy=max(one.used.side for one in own),
        frames_per_core_s=_median([one.seen.frames_per_s / one.used.side for one in own if one.used.side]),
        errors=sum(one.seen.errors for one in own),
        failure=next((one.seen.failure for one in own if one.seen.failure), ""),
        limits=limited(found, side, _rate),
    )


def goals(found: Rounds[Report]) -> list[Goal]:
    """Pure."""
    return [at_least("frames a second without pace", found, _rate, 1.0)]


def remarks(rows: Sequence[Row]) -> list[str]:
    said = [f"{row.side}: {row.errors} streams failed, the first: {row.failure}." for row in rows if row.errors]
    return said + [f"{row.side}: {why}." for row in rows for why in row.limits]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _rate(seen: Report) -> float:
    return seen.frames_per_s


def _table(rows: Sequence[Row]) -> Table:
    return table(
        "Frames without pace, on one core; medians over rounds",
        ["side", "frames/s", f"to {AGAINST}", "to direct", "core busy", "frames per core second", "errors", "limit"],
        [
            [
                row.side,
                f"{row.frames_per_s:.0f}",
                "" if row.to_peer is None else str(row.to_peer),
                "" if row.to_direct is None else f"{row.to_direct.value:.2f}",
                "" if row.side == DIRECT else f"{row.busy:.0%}",
                "" if row.frames_per_core_s is None else f"{row.frames_per_core_s:.0f}",
                str(row.errors),
                "see below" if row.limits else "",
            ]
            for row in rows
        ],
    )
