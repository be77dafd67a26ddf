"""What was found of the faults, in rows: what was done to how many, the figure, the goal. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from loramux_bench.overhead.departures import GOAL_S, Departures
from loramux_bench.overhead.outages import Killed, Stalled
from loramux_bench.overhead.paced_load import Latency
from loramux_bench.overhead.raw_client import End
from loramux_bench.overhead.shutdown import Shutdown
from loramux_bench.studies.study import ms

OTHERS_GOAL_S = 0.02
"""Most that p99 of requests on the engine that is well may grow while the other stands still."""
EXIT_GOAL_S = 2.0
"""Most between the end of the last request, or the limit, and that of the process; and most that a stream may outlast
the limit."""

Found = Departures | Killed | Stalled | Shutdown


class Row(msgspec.Struct, frozen=True, kw_only=True):
    side: str
    fault: str
    what: str
    count: int
    figure: str
    goal: str = ""
    """Empty where nothing is promised."""
    kept: bool | None = None
    """None where nothing is promised, or nothing was seen."""


def rows(found: Iterable[Found]) -> list[Row]:
    """In their order."""
    return [row for one in found for row in _rows(one)]


def _rows(one: Found) -> list[Row]:
    match one:
        case Departures():
            return _departures(one)
        case Killed():
            return _killed(one)
        case Stalled():
            return _stalled(one)
        case Shutdown():
            return _shutdown(one)


def _departures(one: Departures) -> list[Row]:
    seen = one.told.count + one.not_told
    figure = f"engine told after {_latency(one.told)}"
    if one.not_told:
        figure += f"; {one.not_told} never"
    longest = one.told.max_s
    return [
        Row(
            side=one.side,
            fault="caller leaves",
            what=one.when,
            count=seen,
            figure=figure,
            goal=f"each within {ms(GOAL_S)} ms",
            kept=None if longest is None and not one.not_told else not one.not_told and (longest or 0.0) <= GOAL_S,
        )
    ]


def _killed(one: Killed) -> list[Row]:
    fault = "engine killed"
    cut = _count(one.streaming, End.CUT, End.CLOSED, End.HUNG)
    found = [
        Row(
            side=one.side,
            fault=fault,
            what="requests that had got nothing, or came later",
            count=_sum(one.waiting) + _sum(one.later),
            figure=f"{one.failed} failed{_of(one.waiting, one.later)}",
            goal="0 failed",
            kept=one.failed == 0,
        ),
        Row(
            side=one.side,
            fault=fault,
            what="streams under way, on both engines",
            count=_sum(one.streaming),
            figure=_ends(one.streaming),
            goal="whole, or an error frame",
            kept=cut == 0,
        ),
        Row(
            side=one.side,
            fault=fault,
            what="short requests, before and after",
            count=one.short_after.count,
            figure=f"p99 {ms(one.short_before.p99_s)} ms before, {ms(one.short_after.p99_s)} ms after",
        ),
        Row(
            side=one.side,
            fault=fault,
            what="hung",
            count=_sum(one.streaming) + _sum(one.waiting) + _sum(one.later),
            figure=str(one.hung),
            goal="0",
            kept=one.hung == 0,
        ),
    ]
    if one.out_of_service_s is not None:
        found.append(
            Row(
                side=one.side,
                fault=fault,
                what="until no request goes there",
                count=1,
                figure=f"{ms(one.out_of_service_s)} ms",
            )
        )
    return found


def _stalled(one: Stalled) -> list[Row]:
    fault = f"engine stands still for {one.stall_s:.0f} s"
    added = one.added_p99_s
    return [
        Row(
            side=one.side,
            fault=fault,
            what="short requests on the other engine",
            count=one.short_meanwhile.count,
            figure=f"p99 {ms(one.short_meanwhile.p99_s)} ms, {ms(one.short_before.p99_s)} ms before",
            goal=f"p99 grows by at most {ms(OTHERS_GOAL_S)} ms",
            kept=None if added is None else added <= OTHERS_GOAL_S,
        ),
        Row(
            side=one.side,
            fault=fault,
            what="gaps in streams of the other engine",
            count=one.gaps_meanwhile.count,
            figure=f"p99 {ms(one.gaps_meanwhile.p99_s)} ms, {ms(one.gaps_before.p99_s)} ms before",
        ),
        Row(
            side=one.side,
            fault=fault,
            what="requests begun meanwhile",
            count=one.begun,
            figure=f"{one.held} were given to the engine that stood still",
        ),
        Row(
            side=one.side,
            fault=fault,
            what="requests on the engine that stood still",
            count=_sum(one.held_ends),
            figure=_ends(one.held_ends),
            goal="all whole, late",
            kept=_sum(one.held_ends) == _count(one.held_ends, End.WHOLE),
        ),
    ]


def _shutdown(one: Shutdown) -> list[Row]:
    limit = "" if one.limit_s is None else f", limit {one.limit_s:g} s"
    fault = f"gateway told to stop{limit}"
    figure = _ends(one.under_way)
    if one.first_cut_s is not None:
        figure += f"; the first broke off after {one.first_cut_s:.2f} s"
    lost = _count(one.later, End.CUT, End.ERROR_FRAME, End.HUNG)
    cut_at_limit = one.first_cut_s is not None and one.cut_early == 0
    return [
        Row(
            side=one.side,
            fault=fault,
            what="requests under way",
            count=_sum(one.under_way),
            figure=figure,
            goal="none cut before the limit" if cut_at_limit else "all whole",
            kept=one.cut_early == 0,
        ),
        Row(
            side=one.side,
            fault=fault,
            what="requests begun after it",
            count=_sum(one.later),
            figure=_ends(one.later),
            goal="refused or answered, none broken off",
            kept=lost == 0,
        ),
        _exit(one, fault),
    ]


def _exit(one: Shutdown, fault: str) -> Row:
    last_s = one.last_end_s if one.limit_s is None else min(one.last_end_s, one.limit_s)
    after_s = None if one.exit_s is None else one.exit_s - last_s
    return Row(
        side=one.side,
        fault=fault,
        what="process ended",
        count=1,
        figure="not at all"
        if one.exit_s is None or after_s is None
        else f"after {one.exit_s:.2f} s, {after_s:.2f} s after the last request or the limit",
        goal=f"within {EXIT_GOAL_S:g} s of these",
        kept=after_s is not None and after_s <= EXIT_GOAL_S,
    )


def _latency(found: Latency) -> str:
    return f"p50 {ms(found.p50_s)}, p99 {ms(found.p99_s)}, at most {ms(found.max_s)} ms"


def _ends(group: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {end}" for end, count in group.items()) or "none"


def _of(*groups: Mapping[str, int]) -> str:
    """How they failed."""
    bad: dict[str, int] = {}
    for group in groups:
        for end, count in group.items():
            if end != End.WHOLE:
                bad[end] = bad.get(end, 0) + count
    return f": {_ends(bad)}" if bad else ""


def _count(group: Mapping[str, int], *wanted: End) -> int:
    return sum(group.get(str(end), 0) for end in wanted)


def _sum(group: Mapping[str, int]) -> int:
    return sum(group.values())
