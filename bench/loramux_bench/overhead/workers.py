"""What a second worker of the gateway brings."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import msgspec
from rich.table import Table

from loramux_bench.errors import EndpointError
from loramux_bench.overhead import rounds
from loramux_bench.overhead.lineup import UNBOUNDED
from loramux_bench.overhead.part import Goal, Options, Outcome
from loramux_bench.overhead.places import gateway, mock
from loramux_bench.overhead.rounds import Rounds, Taken
from loramux_bench.overhead.side import Side
from loramux_bench.overhead.turns import take_turns
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.overhead.wrk import Shot, Wrk, rps_of
from loramux_bench.studies.ratio import Ratio
from loramux_bench.studies.study import ms, table

WORKERS = (1, 2)
CONNECTIONS = (16, 64)

_WARM_S = 1.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over rounds."""

    workers: str
    connections: int
    rps: float | None
    p50_s: float | None
    p99_s: float | None
    to_one: Ratio | None
    busy: float
    """Cores that the gateway used, in the busiest round."""
    load_busy: float
    """Cores that the mock and the generator used in the same round."""
    memory_bytes: int
    errors: int


def workers(place: Workplace, options: Options) -> Outcome:
    wrk = Wrk(place.study.scratch, place.cores.both)
    said = [
        f"Workers: nothing is bound to a core, and the mock and the generator compete with the workers for "
        f"{len(place.cores.both)} cores: on a machine with more the ratio is higher."
    ]
    with ExitStack() as running:
        engine = running.enter_context(mock(place, name="mock-workers", cpus=place.cores.both))
        sides: list[Side] = []
        for count in WORKERS:
            name = f"loramux-workers-{count}"
            try:
                side = running.enter_context(
                    gateway(place, engine.url, workers=count, name=name, env=UNBOUNDED, cpus=place.cores.both)
                )
            except EndpointError as error:
                if count == 1:
                    raise
                place.tell(str(error))
                said.append(f"{count} workers were not measured: {error}")
                continue
            sides.append(replace(side, name=str(count)))
            wrk(side, connections=max(CONNECTIONS), seconds=_WARM_S)

        def at(connections: int) -> list[Taken[Shot]]:
            place.tell(f"{connections} connections:")
            return take_turns(
                place,
                engine,
                sides,
                options.rounds,
                lambda side: wrk(side, connections=connections, seconds=options.seconds),
                lambda shot: f"{shot.rps:.0f} a second",
                bound=False,
            )

        found = {connections: at(connections) for connections in CONNECTIONS}
    rows = summarise(found)
    said += [
        f"{row.workers} workers, {row.connections} connections: {row.errors} errors." for row in rows if row.errors
    ]
    return Outcome({"rounds": found, "rows": rows}, [_table(rows)], goals(found), said)


def summarise(found: Mapping[int, Rounds[Shot]]) -> list[Row]:
    """Pure."""
    return [_row(side, connections, taken) for connections, taken in found.items() for side in rounds.sides(taken)]


def _row(side: str, connections: int, found: Rounds[Shot]) -> Row:
    own = rounds.of(found, side).values()
    busiest = max(own, key=lambda one: one.used.side).used
    return Row(
        workers=side,
        connections=connections,
        rps=rounds.middle(found, side, rps_of),
        p50_s=rounds.middle(found, side, lambda shot: shot.p50_s),
        p99_s=rounds.middle(found, side, lambda shot: shot.p99_s),
        to_one=rounds.ratio(found, side, str(WORKERS[0]), rps_of),
        busy=busiest.side,
        load_busy=busiest.engine + busiest.generator,
        memory_bytes=max(one.used.memory_bytes for one in own),
        errors=sum(one.seen.errors for one in own),
    )


def goals(found: Mapping[int, Rounds[Shot]]) -> list[Goal]:
    """Pure. There is none but that it is measured."""
    one, two = (str(count) for count in WORKERS)
    connections = CONNECTIONS[-1]
    ratio = rounds.ratio(found[connections], two, one, rps_of)
    text = f"scaling at 2 workers is measured ({connections} connections)"
    return [Goal(text, f"{ratio}×" if ratio else "not measured", True if ratio else None)]


def _table(rows: Sequence[Row]) -> Table:
    return table(
        "Workers of the gateway, not bound to cores; medians over rounds",
        [
            *("workers", "connections", "requests/s", "to one", "p50, ms", "p99, ms"),
            *("cores: gateway", "mock and generator", "memory, MiB"),
        ],
        [
            [
                row.workers,
                str(row.connections),
                f"{row.rps:.0f}",
                "" if row.to_one is None else str(row.to_one),
                ms(row.p50_s),
                ms(row.p99_s),
                f"{row.busy:.2f}",
                f"{row.load_busy:.2f}",
                f"{row.memory_bytes / 2**20:.0f}",
            ]
            for row in rows
        ],
    )
