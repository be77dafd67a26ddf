"""What it costs that a thousand adapters are registered, and that all of them are asked for."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
from rich.table import Table

from loramux_bench.overhead import rounds
from loramux_bench.overhead.limits import limited
from loramux_bench.overhead.lineup import UNBOUNDED, lineup
from loramux_bench.overhead.part import Goal, Options, Outcome
from loramux_bench.overhead.places import adapter_name, gateway
from loramux_bench.overhead.requests import MANY
from loramux_bench.overhead.rounds import Rounds
from loramux_bench.overhead.side import DIRECT, LORAMUX, Side
from loramux_bench.overhead.turns import take_turns
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.overhead.wrk import Shot, Wrk, rps_of
from loramux_bench.studies.ratio import Ratio
from loramux_bench.studies.study import ms, table

ONE, FEW, ALL = "one adapter", "one of many", "all of many"
WITHIN = 0.95
"""Least ratio of requests a second to those with one adapter."""

_WARM_S = 1.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over rounds."""

    side: str
    rps: float | None
    p50_s: float | None
    p99_s: float | None
    to_one: Ratio | None
    memory_bytes: int
    errors: int
    limits: tuple[str, ...]


def many_adapters(place: Workplace, options: Options) -> Outcome:
    wrk = Wrk(place.study.scratch, place.cores.load)
    engine, one = lineup(place, (LORAMUX,))
    place.tell(f"{options.adapters} adapters: registering")
    with gateway(place, engine.url, adapters=options.adapters, name="loramux-many", env=UNBOUNDED) as many:
        sides = [engine, replace(one, name=ONE), replace(many, name=FEW), replace(many, name=ALL)]
        names = [adapter_name(number) for number in range(options.adapters)]

        def look(side: Side) -> Shot:
            return wrk(side, connections=MANY, seconds=options.seconds, models=names if side.name == ALL else ())

        for side in sides:
            wrk(side, connections=MANY, seconds=_WARM_S, models=names if side.name == ALL else ())
        found = take_turns(place, engine, sides, options.rounds, look, lambda shot: f"{shot.rps:.0f} a second")
    rows = summarise(found)
    told = {"adapters": options.adapters, "connections": MANY, "rounds": found, "rows": rows}
    return Outcome(told, [_table(rows, options.adapters)], goals(found, options.adapters), remarks(rows))


def summarise(found: Rounds[Shot]) -> list[Row]:
    """Pure."""
    return [_row(side, found) for side in rounds.sides(found)]


def _row(side: str, found: Rounds[Shot]) -> Row:
    own = rounds.of(found, side).values()
    return Row(
        side=side,
        rps=rounds.middle(found, side, rps_of),
        p50_s=rounds.middle(found, side, lambda shot: shot.p50_s),
        p99_s=rounds.middle(found, side, lambda shot: shot.p99_s),
        to_one=None if side == DIRECT else rounds.ratio(found, side, ONE, rps_of),
        memory_bytes=max(one.used.memory_bytes for one in own),
        errors=sum(one.seen.errors for one in own),
        limits=limited(found, side, rps_of),
    )


def goals(found: Rounds[Shot], adapters: int) -> list[Goal]:
    """Pure. Each adapter in turn is the hardest that can be asked: no two requests of 16 have anything in common."""
    told = []
    for side, asked in ((FEW, "one asked for"), (ALL, "each in turn asked for")):
        ratio = rounds.ratio(found, side, ONE, rps_of)
        text = f"requests a second with {adapters} adapters registered, {asked}, ≥ {WITHIN:g}× those with one"
        told.append(
            Goal(text, "not measured", None) if ratio is None else Goal(text, f"{ratio}×", ratio.value >= WITHIN)
        )
    return told


def remarks(rows: Sequence[Row]) -> list[str]:
    said = [f"{row.side}: {row.errors} errors." for row in rows if row.errors]
    return said + [f"{row.side}: {why}." for row in rows for why in row.limits]


def _table(rows: Sequence[Row], adapters: int) -> Table:
    return table(
        f"One adapter and {adapters}, {MANY} connections, on one core; medians over rounds",
        ["loramux with", "requests/s", "to one adapter", "p50, ms", "p99, ms", "memory, MiB", "limit"],
        [
            [
                row.side,
                f"{row.rps:.0f}",
                "" if row.to_one is None else str(row.to_one),
                ms(row.p50_s),
                ms(row.p99_s),
                "" if row.side == DIRECT else f"{row.memory_bytes / 2**20:.0f}",
                "see below" if row.limits else "",
            ]
            for row in rows
        ],
    )
