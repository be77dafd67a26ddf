"""Streams at an engine's pace: what the first frame takes longer, and how even the frames still come."""

from collections.abc import Sequence

import msgspec
from rich.table import Table

from loramux_bench.overhead import rounds
from loramux_bench.overhead.generator.job import Report
from loramux_bench.overhead.lineup import lineup
from loramux_bench.overhead.part import Goal, Options, Outcome, at_most
from loramux_bench.overhead.rounds import Rounds
from loramux_bench.overhead.side import DIRECT, Side
from loramux_bench.overhead.streaming import ITL_S, TOKENS, paced
from loramux_bench.overhead.turns import take_turns
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.studies.study import ms, table

STREAMS = 32
"""At a time."""
ENGINE_LATE_S = 0.005
"""From which on the mock's own lateness (p99) is told of."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One side: medians over rounds; `added_*` to `direct`."""

    side: str
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    gap_p99_s: float | None
    delay_p50_s: float | None
    """From the engine's write of a frame to its coming."""
    delay_p99_s: float | None
    added_ttft_p50_s: float | None
    added_ttft_p99_s: float | None
    added_gap_p99_s: float | None
    late: int
    """Frames in all rounds."""
    errors: int
    failure: str
    engine_late_p99_s: float
    """In the worst round."""


def streams(place: Workplace, options: Options) -> Outcome:
    sides = lineup(place, options.sides)
    engine = sides[0]

    def look(side: Side) -> Report:
        return paced(side, engine, place.cores.load, streams=STREAMS, seconds=options.seconds)

    found = take_turns(place, engine, sides, options.rounds, look, _told)
    rows = summarise(found)
    return Outcome({"streams": STREAMS, "rounds": found, "rows": rows}, [_table(rows)], goals(found), remarks(rows))


def _told(seen: Report) -> str:
    return f"TTFT p50 {ms(_ttft_p50(seen))} ms, gap p99 {ms(_gap_p99(seen))} ms, {seen.late} late frames"


def summarise(found: Rounds[Report]) -> list[Row]:
    """Pure."""
    return [_row(side, found) for side in rounds.sides(found)]


def _row(side: str, found: Rounds[Report]) -> Row:
    own = [one.seen for one in rounds.of(found, side).values()]
    return Row(
        side=side,
        ttft_p50_s=rounds.middle(found, side, _ttft_p50),
        ttft_p99_s=rounds.middle(found, side, _ttft_p99),
        gap_p99_s=rounds.middle(found, side, _gap_p99),
        delay_p50_s=rounds.middle(found, side, lambda seen: seen.delay.p50_s if seen.delay else None),
        delay_p99_s=rounds.middle(found, side, lambda seen: seen.delay.p99_s if seen.delay else None),
        added_ttft_p50_s=rounds.added(found, side, DIRECT, _ttft_p50),
        added_ttft_p99_s=rounds.added(found, side, DIRECT, _ttft_p99),
        added_gap_p99_s=rounds.added(found, side, DIRECT, _gap_p99),
        late=sum(seen.late for seen in own),
        errors=sum(seen.errors for seen in own),
        failure=next((seen.failure for seen in own if seen.failure), ""),
        engine_late_p99_s=max((seen.engine_late.p99_s for seen in own if seen.engine_late), default=0.0),
    )


def goals(found: Rounds[Report]) -> list[Goal]:
    """Pure."""
    return [
        at_most("added TTFT p50", found, _ttft_p50),
        at_most("added TTFT p99", found, _ttft_p99),
        at_most("added inter-frame p99", found, _gap_p99),
    ]


def remarks(rows: Sequence[Row]) -> list[str]:
    said = [f"{row.side}: {row.errors} streams failed, the first: {row.failure}." for row in rows if row.errors]
    said += [
        f"{row.side}: the mock itself wrote up to {ms(row.engine_late_p99_s)} ms late (p99 of a round)."
        for row in rows
        if row.engine_late_p99_s > ENGINE_LATE_S
    ]
    return said


def _ttft_p50(seen: Report) -> float | None:
    return seen.ttft.p50_s if seen.ttft else None


def _ttft_p99(seen: Report) -> float | None:
    return seen.ttft.p99_s if seen.ttft else None


def _gap_p99(seen: Report) -> float | None:
    return seen.gap.p99_s if seen.gap else None


def _table(rows: Sequence[Row]) -> Table:
    return table(
        f"{STREAMS} streams at a time of {TOKENS} deltas, {ITL_S * 1000:g} ms apart; ms, medians over rounds",
        [
            *("side", "TTFT p50", "TTFT p99", "gap p99", "frame's way p50", "p99"),
            *("added TTFT p50", "added TTFT p99", "added gap p99", "late frames", "errors"),
        ],
        [
            [
                row.side,
                *(
                    ms(value)
                    for value in (
                        row.ttft_p50_s,
                        row.ttft_p99_s,
                        row.gap_p99_s,
                        row.delay_p50_s,
                        row.delay_p99_s,
                        row.added_ttft_p50_s,
                        row.added_ttft_p99_s,
                        row.added_gap_p99_s,
                    )
                ),
                str(row.late),
                str(row.errors),
            ]
            for row in rows
        ],
    )
