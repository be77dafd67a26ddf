"""The wait for the first token, by where the adapter was when it was asked for.

A sample is one request to a server that does nothing else. Places take turns, in a drawn order; adapters are drawn from
those that are at the wanted place, and what was not there when it was asked is left out and counted.
"""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import msgspec
import numpy as np

from loramux_bench.results.distributions import Distribution, distribution
from loramux_bench.studies.ratio import Ratio, over_rounds

Side = Literal["stock", "loramux"]
Place = Literal["base", "gpu", "cpu", "disk", "disk-dropped", "disk-load", "s3"]
"""`disk`: the files' pages are in the page cache, `disk-dropped`: they are not. `disk-load` is of vLLM alone:
`load_lora_adapter`, then the request, where `disk` is a request for an adapter that the engine has lost."""

SIDES: tuple[Side, ...] = get_args(Side)
PLACES: tuple[Place, ...] = get_args(Place)

_TRIES = 5
"""Adapters that are tried for a sample, until one is where it should be."""


class Measured(Protocol):
    """A server whose adapters can be found and asked."""

    @property
    def places(self) -> tuple[Place, ...]:
        """Where its adapters can be."""

    async def bring(self, place: Place, rng: random.Random) -> str:
        """The name of an adapter that has been brought there, as far as is known; empty where none could be."""

    async def is_at(self, name: str, place: Place) -> bool:
        """Whether it is there now: asked last before the request."""

    async def ask(self, name: str, place: Place, number: int) -> float:
        """Seconds to the first token; what must be done before it can be asked for counts. Raises `EndpointError`."""


@dataclass(frozen=True, slots=True)
class Sample:
    side: Side
    round: int
    place: Place
    ttft_s: float | None
    """None where no adapter was at the place."""
    missed: int
    """Adapters that were not where they should be, before one was."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One place on one side. Times are in seconds."""

    side: str
    place: str
    samples: int
    missed: int
    ttft: Distribution | None
    to_base: Ratio | None
    """Median to the base's median, over rounds; None for the base."""


async def measure(
    server: Measured, side: Side, places: Sequence[Place], samples: int, *, round: int, seed: int
) -> AsyncIterator[Sample]:
    """So many of each place that the server has. Raises `EndpointError`."""
    rng = random.Random(f"tiers {seed} {side} {round}")
    mine = [place for place in places if place in server.places]
    for turn in range(samples):
        rng.shuffle(mine)
        for position, place in enumerate(mine):
            number = (round * samples + turn) * len(PLACES) + position
            yield await _sample(server, side, round, place, number, rng)


async def _sample(server: Measured, side: Side, round: int, place: Place, number: int, rng: random.Random) -> Sample:
    for missed in range(_TRIES):
        name = await server.bring(place, rng)
        if name and await server.is_at(name, place):
            return Sample(side, round, place, await server.ask(name, place, number), missed)
    return Sample(side, round, place, None, _TRIES)


def summarise(samples: Sequence[Sample]) -> tuple[Row, ...]:
    """A row for each side and place, in the order of `SIDES` and `PLACES`. Pure."""
    return tuple(
        _row([sample for sample in samples if (sample.side, sample.place) == (side, place)], samples)
        for side in SIDES
        for place in PLACES
        if any((sample.side, sample.place) == (side, place) for sample in samples)
    )


def _row(mine: Sequence[Sample], every: Sequence[Sample]) -> Row:
    side, place = mine[0].side, mine[0].place
    found = _times(mine)
    rounds = sorted({sample.round for sample in mine})
    return Row(
        side=side,
        place=place,
        samples=len(found),
        missed=sum(sample.missed for sample in mine),
        ttft=distribution(np.array(found, dtype=np.float64)),
        to_base=None if place == "base" else over_rounds(_over_base(every, side, place, round) for round in rounds),
    )


def _over_base(samples: Sequence[Sample], side: Side, place: Place, round: int) -> float | None:
    at = {
        kept: _times([one for one in samples if (one.side, one.round, one.place) == (side, round, kept)])
        for kept in ("base", place)
    }
    if not at["base"] or not at[place]:
        return None
    return float(np.median(at[place]) / np.median(at["base"]))


def _times(samples: Sequence[Sample]) -> list[float]:
    return [sample.ttft_s for sample in samples if sample.ttft_s is not None]
