"""What many registered adapters cost: the time to register them, the gateway's memory, listing, a restart, and traffic
that follows Zipf's law over all of them, of which an engine holds a few.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from loramux_bench.apis.port import Ask
from loramux_bench.record import RequestRecord
from loramux_bench.studies.draw import asks, choices, names_of, prompts
from loramux_bench.studies.figures import Figures, figures

GOAL_RESTART_S = 5.0
"""Most time that a restart may take beyond one without adapters."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of every side."""

    counts: tuple[int, ...] = (1, 10, 100, 1000)
    """Registered adapters, ascending."""
    clients: int = 8
    requests: int = 128
    alpha: float = 1.0
    prompt_tokens: int = 32
    max_tokens: int = 16
    restarts: int = 3
    seed: int = 1

    def names(self, count: int) -> tuple[str, ...]:
        return names_of(count)


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """How it went to bring the adapters from one count to the next."""

    adapters: int
    """That were added."""
    length_s: float
    """From the first call to the last answer that its adapter can be asked for."""


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway itself needs for what is registered. Of each the median of several."""

    memory_bytes: int
    """Resident set of the gateway's process, after its restart and before any traffic."""
    first_page_s: float
    """To list the first page, of 100."""
    list_s: float
    """To list all, in pages of 1,000."""
    ready_s: float
    """From the gateway's start, with an engine that is up already, to its word that it is ready."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A count of registered adapters on one side."""

    side: str
    adapters: int
    registered: Registered | None
    """None of the count without adapters."""
    books: Books | None
    """None of a side that keeps none."""
    figures: Figures | None
    """Of the traffic; None of the count without adapters."""


class Slopes(msgspec.Struct, frozen=True, kw_only=True):
    """What one more adapter costs the gateway: the slope of a line through all counts, by least squares."""

    memory_bytes: float
    list_s: float
    ready_s: float


def traffic(load: Load, count: int) -> tuple[Ask, ...]:
    """The requests for so many adapters, the same for every side."""
    seed = f"{load.seed} {count}"
    wanted = choices(load.names(count), load.requests, "zipf", alpha=load.alpha, seed=seed)
    return asks(wanted, prompts(load.requests, load.prompt_tokens, seed=seed), max_tokens=load.max_tokens)


def row(
    side: str,
    count: int,
    *,
    registered: Registered | None = None,
    books: Books | None = None,
    records: Sequence[RequestRecord] = (),
) -> Row:
    """Of what was measured with `count` adapters."""
    return Row(
        side=side,
        adapters=count,
        registered=registered,
        books=books,
        figures=figures([records]) if records else None,
    )


def restart_cost_s(rows: Sequence[Row]) -> dict[int, float]:
    """By count, how much longer a restart takes than one without adapters. Empty where that was not measured."""
    ready = {one.adapters: one.books.ready_s for one in rows if one.books is not None}
    if 0 not in ready:
        return {}
    return {count: ready_s - ready[0] for count, ready_s in sorted(ready.items()) if count}


def slopes(rows: Sequence[Row]) -> Slopes | None:
    """None where fewer than two counts have been measured."""
    found = {one.adapters: one.books for one in rows if one.books is not None}
    if len(found) < 2:
        return None
    counts = [float(count) for count in found]

    def slope(values: Sequence[float]) -> float:
        return statistics.linear_regression(counts, values).slope

    return Slopes(
        memory_bytes=slope([books.memory_bytes for books in found.values()]),
        list_s=slope([books.list_s for books in found.values()]),
        ready_s=slope([books.ready_s for books in found.values()]),
    )
