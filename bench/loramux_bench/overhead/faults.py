"""Faults under load: callers that leave, an engine that dies or stands still, a gateway that is told to stop."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import uvloop
from rich.table import Table

from loramux_bench.mock.process import MockProcess
from loramux_bench.overhead import departures, outages, shutdown
from loramux_bench.overhead.cores import started_on
from loramux_bench.overhead.fault_rows import Found, Row, rows
from loramux_bench.overhead.paced_load import Shape
from loramux_bench.overhead.paced_mocks import before, compared, engines_ready, paced_mocks, sparing
from loramux_bench.overhead.part import Goal, Options, Outcome
from loramux_bench.overhead.side import LORAMUX, Side
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.studies.study import table

_ENGINES = 2


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    leave: departures.Plan = departures.Plan()
    outage: outages.Plan = outages.Plan()
    stop: shutdown.Plan = shutdown.Plan()
    stop_at_limit: shutdown.Plan = shutdown.Plan(load=Shape(tokens=250), limit_s=2.0)
    """Streams that do not end within the limit; loramux alone."""


def faults(place: Workplace, options: Options) -> Outcome:
    """The part."""
    plan = Plan()
    found: list[Found] = []
    for name in compared(place, options):
        with sparing(place, name):
            found += suffer(place, name, plan)
    told = rows(found)
    return Outcome({"plan": plan, "found": found, "rows": told}, [_table(told)], goals(told))


def suffer(place: Workplace, name: str, plan: Plan) -> list[Found]:
    """All of the faults, each on servers that are well."""
    found: list[Found] = []
    with _under_test(place, name, "leave", plan.leave.ttft_s, plan.leave.itl_s) as (side, mocks):
        place.tell(f"{name}: callers leave")
        found += uvloop.run(departures.leave(side, mocks, plan.leave))
    with _under_test(place, name, "outage", plan.outage.ttft_s, plan.outage.itl_s) as (side, mocks):
        place.tell(f"{name}: an engine stands still, then dies")
        found.append(uvloop.run(outages.stall(side, mocks, plan.outage)))
        served = engines_ready(place, side, "loramux-outage") if name == LORAMUX else None
        found.append(uvloop.run(outages.kill(side, mocks, plan.outage, served)))
    for log, stop in (("stop", plan.stop), ("limit", plan.stop_at_limit)):
        limited = name == LORAMUX
        if log == "limit" and not limited:
            continue
        with _under_test(place, name, log, stop.ttft_s, stop.itl_s, limit_s=stop.limit_s) as (side, _):
            place.tell(f"{name}: it is told to stop")
            found.append(uvloop.run(shutdown.stop(side, stop, limited=limited)))
    return found


@contextmanager
def _under_test(
    place: Workplace, name: str, log: str, ttft_s: float, itl_s: float, *, limit_s: float = 30.0
) -> Iterator[tuple[Side, list[MockProcess]]]:
    """Two engines and the side before them; this thread on the load's core."""
    settings = {"SHUTDOWN_TIMEOUT_S": f"{limit_s:g}"}
    with (
        paced_mocks(place, _ENGINES, ttft_s=ttft_s, itl_s=itl_s) as mocks,
        before(place, name, mocks, name=f"{name}-{log}", settings=settings) as side,
        started_on(place.cores.load),
    ):
        yield side, mocks


def goals(told: list[Row]) -> list[Goal]:
    return [
        Goal(f"{row.fault}: {row.what} ({row.count}): {row.goal}", row.figure, row.kept)
        for row in told
        if row.side == LORAMUX and row.goal
    ]


def _table(told: list[Row]) -> Table:
    verdicts = {True: "kept", False: "missed", None: ""}
    return table(
        "Faults under load",
        ["side", "fault", "what", "count", "found", "goal", ""],
        [[row.side, row.fault, row.what, str(row.count), row.figure, row.goal, verdicts[row.kept]] for row in told],
        left=7,
    )
