"""The cliff: what happens when more adapters are asked for than the engine has slots.

So many clients, each with one request at a time, ask for as many adapters as there are slots, for one more, for twice
and for eight times as many; all of them in the engine's host memory, so that slots alone are scarce. Rounds visit the
counts in turn, with requests of their own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from loramux_bench.apis.port import Ask
from loramux_bench.record import RequestRecord
from loramux_bench.studies.draw import Choice, asks, choices, names_of, prompts
from loramux_bench.studies.figures import Figures, Worst, evenness, figures, worst
from loramux_bench.studies.ratio import Ratio, over, over_rounds
from loramux_bench.studies.traffic import Clients, require_answers


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of every side."""

    slots: int = 4
    """Adapters that the engine computes with at a time (`max_loras`)."""
    clients: int = 16
    requests: int = 96
    """Of each count of adapters, in each round."""
    rounds: int = 3
    choice: tuple[Choice, ...] = ("uniform", "zipf")
    alpha: float = 1.0
    prompt_tokens: int = 32
    max_tokens: int = 24
    seed: int = 1

    @property
    def counts(self) -> tuple[int, ...]:
        """Of adapters: the slots', one more, twice and eight times as many; ascending, none twice."""
        return tuple(sorted({self.slots, self.slots + 1, 2 * self.slots, 8 * self.slots}))

    @property
    def adapters(self) -> tuple[str, ...]:
        """All that are needed."""
        return names_of(self.counts[-1])


@dataclass(frozen=True, slots=True)
class Cell:
    """A closed loop of its own. `round` -1 is the warm-up, which is left out of every figure."""

    round: int
    choice: Choice
    adapters: int
    asks: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """A cell's answers."""

    cell: Cell
    records: tuple[RequestRecord, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A count of adapters on one side, over all rounds."""

    side: str
    choice: Choice
    adapters: int
    figures: Figures
    throughput: Ratio | None
    """Output tokens a second, over those of the same side and choice with as many adapters as slots."""
    worst: Worst | None
    evenness: float | None
    """Of the adapters' speeds, 1 at best: see `figures.evenness`."""


def plan(load: Load) -> tuple[Cell, ...]:
    """All cells in their order, the warm-up first: it asks every adapter once. Rounds go through the counts forwards
    and backwards in turn."""
    found = [_cell(load, -1, "uniform", load.adapters, load.adapters)]
    for number in range(load.rounds):
        counts = load.counts[:: -1 if number % 2 else 1]
        for count in counts:
            for choice in load.choice:
                names = names_of(count)
                seed = f"{load.seed} {number} {choice} {count}"
                wanted = choices(names, load.requests, choice, alpha=load.alpha, seed=seed)
                found.append(_cell(load, number, choice, names, wanted))
    return tuple(found)


def _cell(load: Load, number: int, choice: Choice, names: Sequence[str], wanted: Sequence[str]) -> Cell:
    texts = prompts(len(wanted), load.prompt_tokens, seed=f"{load.seed} {number} {choice} {len(names)}")
    return Cell(number, choice, len(names), asks(wanted, texts, max_tokens=load.max_tokens))


async def measure(clients: Clients, load: Load, cells: Sequence[Cell]) -> list[Answered]:
    """One closed loop after the other. Raises `NothingMeasured` where the warm-up is not answered at all."""
    found = []
    for cell in cells:
        records = await clients.loop(cell.asks, load.clients)
        if cell.round < 0:
            require_answers(records, "The warm-up")
        else:
            found.append(Answered(cell, records))
    return found


def rows(side: str, answered: Iterable[Answered]) -> list[Row]:
    """By choice and count of adapters, ascending; the smallest count is what ratios are to."""
    cells: dict[Choice, dict[int, dict[int, tuple[RequestRecord, ...]]]] = {}
    for one in answered:
        by_count = cells.setdefault(one.cell.choice, {})
        by_count.setdefault(one.cell.adapters, {})[one.cell.round] = one.records
    found = []
    for choice, by_count in sorted(cells.items()):
        first = by_count[min(by_count)]
        for count, by_round in sorted(by_count.items()):
            both = sorted(set(first) & set(by_round))
            records = [record for one in by_round.values() for record in one]
            found.append(
                Row(
                    side=side,
                    choice=choice,
                    adapters=count,
                    figures=figures(list(by_round.values())),
                    throughput=over_rounds(over(_speed(by_round[number]), _speed(first[number])) for number in both),
                    worst=worst(records),
                    evenness=evenness(records),
                )
            )
    return found


def _speed(records: Sequence[RequestRecord]) -> float:
    return figures([records]).tokens_a_second
