"""How many streams at a time go through without a late frame."""

from collections.abc import Sequence

import msgspec
from rich.table import Table

from loramux_bench.errors import EndpointError
from loramux_bench.overhead import rounds
from loramux_bench.overhead.limits import NEAR_DIRECT, THE_LIMIT
from loramux_bench.overhead.lineup import lineup
from loramux_bench.overhead.part import Goal, Options, Outcome, at_least
from loramux_bench.overhead.rounds import Rounds
from loramux_bench.overhead.search import largest
from loramux_bench.overhead.side import DIRECT, Side
from loramux_bench.overhead.streaming import ITL_S, LATE_S, TOKENS, paced
from loramux_bench.overhead.turns import take_turns
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.studies.study import table

LEAST = 16
TRIES = 2
"""A number holds where one of so many tries had no late frame: a machine that stands still for a moment, as virtual
ones do, is nobody's fault."""


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """So many streams once."""

    streams: int
    late: int
    worst_s: float
    errors: int
    failure: str
    frames_per_s: float

    @property
    def held(self) -> bool:
        return not self.late and not self.errors


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """The largest number that held; 0 where `LEAST` did not."""

    streams: int
    tries: tuple[Try, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over rounds."""

    side: str
    streams: float | None
    limits: tuple[str, ...]


def capacity(place: Workplace, options: Options) -> Outcome:
    sides = lineup(place, options.sides)
    engine = sides[0]

    def look(side: Side) -> Held:
        tries: list[Try] = []

        def held(streams: int) -> bool:
            for _ in range(TRIES):
                tries.append(_tried(side, engine, place, streams, options.seconds))
                if tries[-1].held:
                    return True
            return False

        return Held(streams=largest(held, least=LEAST, most=options.most_streams), tries=tuple(tries))

    # A search takes many measurements, and so is long for one round already.
    found = take_turns(place, engine, sides, 1, look, lambda seen: f"{seen.streams} streams")
    rows = summarise(found)
    result = {"tokens": TOKENS, "itl_s": ITL_S, "late_s": LATE_S, "rounds": found, "rows": rows}
    return Outcome(result, [_table(rows)], goals(found), remarks(rows))


def _tried(side: Side, engine: Side, place: Workplace, streams: int, seconds: float) -> Try:
    try:
        report = paced(side, engine, place.cores.load, streams=streams, seconds=seconds)
    except EndpointError as error:
        return Try(streams=streams, late=0, worst_s=0.0, errors=streams, failure=str(error), frames_per_s=0.0)
    return Try(
        streams=streams,
        late=report.late,
        worst_s=report.worst_s,
        errors=report.errors,
        failure=report.failure,
        frames_per_s=report.frames_per_s,
    )


def summarise(found: Rounds[Held]) -> list[Row]:
    """Pure."""
    direct = rounds.middle(found, DIRECT, _streams)
    rows = []
    for side in rounds.sides(found):
        held = rounds.middle(found, side, _streams)
        near = side != DIRECT and held and direct and held > NEAR_DIRECT * direct
        why = f"{THE_LIMIT}: it holds {direct:.0f} streams by itself"
        rows.append(Row(side=side, streams=held, limits=(why,) if near else ()))
    return rows


def goals(found: Rounds[Held]) -> list[Goal]:
    """Pure."""
    return [at_least("streams at a time without a late frame", found, _streams, 1.0)]


def remarks(rows: Sequence[Row]) -> list[str]:
    return [f"{row.side}: {why}." for row in rows for why in row.limits]


def _streams(held: Held) -> float:
    return float(held.streams)


def _table(rows: Sequence[Row]) -> Table:
    return table(
        "Most streams at a time without a late frame",
        ["side", "streams", "limit"],
        [[row.side, f"{row.streams:.0f}", "see below" if row.limits else ""] for row in rows],
    )
