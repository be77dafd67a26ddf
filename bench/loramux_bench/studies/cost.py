"""What an adapter costs against the base: the same prompts in the same batch, one after the other in one server.

A round asks the base, one adapter (`adapter`) and, of batches of two or more, as many adapters as there are requests
(`mixed`), each batch begun all at once. Rounds rotate the order, and each has prompts of its own, so that no prefix
cache helps; those of one round are the same for all three. A ratio is taken within a round: what the machine does for a
minute is in both.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from loramux_bench.apis.port import Ask
from loramux_bench.record import RequestRecord
from loramux_bench.studies.draw import asks, names_of, prompts
from loramux_bench.studies.ratio import Ratio, over, over_rounds
from loramux_bench.studies.traffic import Clients, require_answers

Kind = Literal["base", "adapter", "mixed"]

GOAL_GPU = 1.05
GOAL_CPU = 1.25
"""Highest ratio of E2E that we want to see."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of every side."""

    streams: tuple[int, ...] = (1, 4)
    """Requests in a batch."""
    rounds: int = 5
    prompt_tokens: int = 64
    max_tokens: int = 64
    seed: int = 1

    @property
    def adapters(self) -> tuple[str, ...]:
        """All that are needed: one that is asked alone, and those of the largest mixed batch. None is in both, as a
        prompt would find the other's prefix."""
        return names_of(1 + max(self.streams))


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that are sent at once. `round` -1 is the warm-up, which is left out of every figure."""

    round: int
    streams: int
    kind: Kind
    asks: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """A batch's answers."""

    batch: Batch
    records: tuple[RequestRecord, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of batch of one side, against the base of the same side."""

    side: str
    streams: int
    kind: Kind
    base_ms_a_token: float
    """Mean of the requests' TPOT."""
    ms_a_token: float
    e2e: Ratio
    ttft: Ratio
    errors: int
    """Of both."""


def plan(load: Load, base: str) -> tuple[Batch, ...]:
    """All batches in their order, the warm-up's first: it puts every adapter into its slot."""
    found: list[Batch] = []
    for number in range(-1, load.rounds):
        for streams in load.streams:
            texts = prompts(streams, load.prompt_tokens, seed=f"{load.seed} {number} {streams}")
            tokens = load.max_tokens if number >= 0 else min(8, load.max_tokens)
            batches = [
                Batch(number, streams, kind, asks(models, texts, max_tokens=tokens))
                for kind, models in _models(load, streams, base).items()
            ]
            turn = number % len(batches)
            found += batches[turn:] + batches[:turn]
    return tuple(found)


def _models(load: Load, streams: int, base: str) -> Mapping[Kind, Sequence[str]]:
    alone, *others = load.adapters
    wanted: dict[Kind, Sequence[str]] = {"base": [base] * streams, "adapter": [alone] * streams}
    if streams > 1:
        wanted["mixed"] = others[:streams]
    return wanted


async def measure(clients: Clients, batches: Sequence[Batch]) -> list[Answered]:
    """One batch after the other. Raises `NothingMeasured` where a batch of the warm-up is not answered at all."""
    found = []
    for batch in batches:
        records = await clients.together(batch.asks)
        if batch.round < 0:
            require_answers(records, f"The {batch.kind}")
        else:
            found.append(Answered(batch, records))
    return found


def rows(side: str, answered: Iterable[Answered]) -> list[Row]:
    """By streams and kind, as they were first asked; without those that have no round in which both the base and they
    were answered."""
    by_kind: dict[tuple[int, Kind], dict[int, tuple[RequestRecord, ...]]] = {}
    for one in answered:
        by_kind.setdefault((one.batch.streams, one.batch.kind), {})[one.batch.round] = one.records
    found = []
    for streams, kind in sorted(by_kind):
        if kind != "base" and (row := _row(side, streams, kind, by_kind[streams, "base"], by_kind[streams, kind])):
            found.append(row)
    return found


def _row(
    side: str,
    streams: int,
    kind: Kind,
    base: Mapping[int, Sequence[RequestRecord]],
    adapter: Mapping[int, Sequence[RequestRecord]],
) -> Row | None:
    both = [(base[number], adapter[number]) for number in sorted(set(base) & set(adapter))]
    e2e = over_rounds([over(_means(adapters, "e2e_s"), _means(own, "e2e_s")) for own, adapters in both])
    ttft = over_rounds([over(_means(adapters, "ttft_s"), _means(own, "ttft_s")) for own, adapters in both])
    base_tpot = _mean(value for records, _ in both for value in _values(records, "tpot_s"))
    tpot = _mean(value for _, records in both for value in _values(records, "tpot_s"))
    if e2e is None or ttft is None or base_tpot is None or tpot is None:
        return None
    return Row(
        side=side,
        streams=streams,
        kind=kind,
        base_ms_a_token=1000 * base_tpot,
        ms_a_token=1000 * tpot,
        e2e=e2e,
        ttft=ttft,
        errors=sum(not record.ok for pair in both for records in pair for record in records),
    )


def _means(records: Sequence[RequestRecord], field: Literal["e2e_s", "ttft_s"]) -> float | None:
    """None unless all were answered: the batch was another one then."""
    return _mean(_values(records, field)) if all(record.ok for record in records) else None


def _values(records: Iterable[RequestRecord], field: str) -> list[float]:
    return [value for record in records if record.ok and (value := getattr(record, field)) is not None]


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None
