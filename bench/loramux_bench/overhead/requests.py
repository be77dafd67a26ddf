"""Small chat requests that are not streamed: how many a second, and what one takes longer."""

from collections.abc import Mapping, Sequence

import msgspec
from rich.table import Table

from loramux_bench.overhead import rounds
from loramux_bench.overhead.limits import limited
from loramux_bench.overhead.lineup import lineup
from loramux_bench.overhead.part import AGAINST, Goal, Options, Outcome, at_least, at_most
from loramux_bench.overhead.rounds import Rounds, Taken
from loramux_bench.overhead.side import DIRECT
from loramux_bench.overhead.turns import take_turns
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.overhead.wrk import Shot, Wrk, rps_of
from loramux_bench.studies.ratio import Ratio
from loramux_bench.studies.study import ms, table

ONE, MANY = 1, 16
"""Connections."""
GOAL_RATE = 1.5
"""Least ratio of loramux's requests a second to those of `AGAINST`."""

AS_IT_COMES = "vllm-router-default"

_WARM_S = 1.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One side at one number of connections: medians over rounds."""

    side: str
    connections: int
    rps: float | None
    p50_s: float | None
    p99_s: float | None
    errors: int
    added_p50_s: float | None
    """To `direct`."""
    added_p99_s: float | None
    to_direct: Ratio | None
    to_peer: Ratio | None
    busy: float
    """Share of the tested core, in the busiest round."""
    memory_bytes: int
    limits: tuple[str, ...]


def requests(place: Workplace, options: Options) -> Outcome:
    wrk = Wrk(place.study.scratch, place.cores.load)
    sides = lineup(place, options.sides)
    for side in sides:
        wrk(side, connections=MANY, seconds=_WARM_S)

    def at(connections: int) -> list[Taken[Shot]]:
        place.tell(f"{connections} connections:")
        return take_turns(
            place,
            sides[0],
            sides,
            options.rounds,
            lambda side: wrk(side, connections=connections, seconds=options.seconds),
            lambda shot: f"{shot.rps:.0f} a second, p50 {ms(shot.p50_s)} ms",
        )

    found = {connections: at(connections) for connections in (ONE, MANY)}
    rows = summarise(found)
    return Outcome({"rounds": found, "rows": rows}, [_table(rows)], goals(found), remarks(rows))


def summarise(found: Mapping[int, Rounds[Shot]]) -> list[Row]:
    """By connections; pure."""
    return [_row(side, connections, taken) for connections, taken in found.items() for side in rounds.sides(taken)]


def _row(side: str, connections: int, found: Rounds[Shot]) -> Row:
    own = rounds.of(found, side).values()
    return Row(
        side=side,
        connections=connections,
        rps=rounds.middle(found, side, rps_of),
        p50_s=rounds.middle(found, side, _p50),
        p99_s=rounds.middle(found, side, _p99),
        errors=sum(one.seen.errors for one in own),
        added_p50_s=rounds.added(found, side, DIRECT, _p50),
        added_p99_s=rounds.added(found, side, DIRECT, _p99),
        to_direct=rounds.ratio(found, side, DIRECT, rps_of),
        to_peer=rounds.ratio(found, side, AGAINST, rps_of),
        busy=max(one.used.side for one in own),
        memory_bytes=max(one.used.memory_bytes for one in own),
        # One connection waits for itself: there a rate near the engine's own is what is wanted.
        limits=limited(found, side, rps_of) if connections > 1 else (),
    )


def goals(found: Mapping[int, Rounds[Shot]]) -> list[Goal]:
    """Pure."""
    return [
        at_least(f"requests a second at {MANY} connections", found[MANY], rps_of, GOAL_RATE),
        at_least(f"requests a second at {MANY} connections", found[MANY], rps_of, GOAL_RATE, AS_IT_COMES),
        at_most("added p50 at one connection", found[ONE], _p50),
    ]


def remarks(rows: Sequence[Row]) -> list[str]:
    said = [f"{row.side} at {row.connections} connections: {why}." for row in rows for why in row.limits]
    said += [f"{row.side} at {row.connections} connections: {row.errors} errors." for row in rows if row.errors]
    return said


def _p50(shot: Shot) -> float:
    return shot.p50_s


def _p99(shot: Shot) -> float:
    return shot.p99_s


def _table(rows: Sequence[Row]) -> Table:
    return table(
        "Not streamed, on one core; medians over rounds, ratios with intervals of 95 %",
        [
            *("side", "connections", "requests/s", f"to {AGAINST}", "to direct", "p50, ms", "p99, ms"),
            *("added p50, ms", "added p99, ms", "core busy", "memory, MiB", "limit"),
        ],
        [
            [
                row.side,
                str(row.connections),
                f"{row.rps:.0f}",
                "" if row.to_peer is None else str(row.to_peer),
                "" if row.to_direct is None else f"{row.to_direct.value:.2f}",
                ms(row.p50_s),
                ms(row.p99_s),
                ms(row.added_p50_s),
                ms(row.added_p99_s),
                "" if row.side == DIRECT else f"{row.busy:.0%}",
                "" if row.side == DIRECT else f"{row.memory_bytes / 2**20:.0f}",
                "see below" if row.limits else "",
            ]
            for row in rows
        ],
    )
