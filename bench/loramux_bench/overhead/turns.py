"""All sides in turn, with what each used."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from loramux_bench.errors import EndpointError, NothingMeasured
from loramux_bench.overhead.limits import FOREIGN
from loramux_bench.overhead.rounds import Taken
from loramux_bench.overhead.side import DIRECT, Side
from loramux_bench.overhead.usage import Watch
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.studies.study import in_turn

T = TypeVar("T")


def take_turns(
    place: Workplace,
    engine: Side,
    sides: Sequence[Side],
    rounds: int,
    look: Callable[[Side], T],
    tell: Callable[[T], str],
    *,
    bound: bool = True,
) -> list[Taken[T]]:
    """`look` at each side once a round; a look that raises `EndpointError` is told of and is not in what is returned.
    `engine` is what the sides are in front of; `bound` sides have the tested core for themselves. Raises
    `NothingMeasured` where all of them did."""
    found: list[Taken[T]] = []
    failure = ""
    for number, side in in_turn(sides, rounds):
        watching = _watch(place, engine, side, bound)
        try:
            with watching():
                seen = look(side)
        except EndpointError as error:
            failure = str(error)
            place.tell(f"{side.name} failed in round {number + 1}: {error}")
            continue
        found.append(Taken(side=side.name, round=number, seen=seen, used=watching.used))
        place.tell(f"{side.name}: {tell(seen)}")
        if watching.used.foreign > FOREIGN:
            place.tell(f"{side.name}: something else took {watching.used.foreign:.0%} of the tested core.")
    if not found:
        raise NothingMeasured(f"No side could be measured; the last said: {failure}")
    return found


def _watch(place: Workplace, engine: Side, side: Side, bound: bool) -> Watch:
    waiting = {pid for other in place.running.values() if other.name != DIRECT for pid in other.pids} - {*side.pids}
    tested = place.cores.tested if place.cores.apart and bound else ()
    return Watch(() if side is engine else side.pids, engine.pids, sorted(waiting), tested)
