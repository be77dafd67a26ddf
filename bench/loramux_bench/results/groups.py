"""The figures of a group of requests: all of them, one target's, one adapter's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from loramux_bench.record import RequestRecord
from loramux_bench.results.distributions import Distribution, distribution
from loramux_bench.results.measures import MEASURES, Values
from loramux_bench.results.slo import Slo, meets_all

_Kind = TypeVar("_Kind", bound=np.generic)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of one code."""

    count: int
    message: str
    """Of the first of them that has one."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Of the measured requests of a group. Latencies and tokens are of answered requests only: an error is often
    quick, and a request that was cut has no end, so that either would make the figures look better or worse than what
    a caller gets."""

    sent: int
    """Answered, errors, and cut."""
    answered: int
    errors: int
    cut: int
    """Under way when the run ended."""
    error_rate: float
    """Errors of those that ended (answered or not); 0 where none did."""
    failures: dict[str, Failure]
    """By code, the most frequent first."""

    duration_s: float
    """What rates are over. Of a target: from its first request's origin to its last one's end, as targets of a closed
    loop may end one before the other. Of all other groups: the whole run's, so that their rates add up."""
    rps: float
    """Answered requests a second."""
    requests_per_min: float
    throughput: float
    """Output tokens of answered requests a second."""
    goodput: float | None
    """Answered requests a second that kept every objective of requests; None where there is no such objective."""
    goodput_share: float | None
    """Those, of the requests that ended."""

    measures: dict[str, Distribution]
    """By the names of `MEASURES`: `ttft`, `itl` (all gaps pooled), `tpot`, `e2e` in seconds, `speed` in tokens a second
    of one request. A measure without a value is absent."""
    input_tokens: Distribution | None
    """A request; as the endpoint counted, else the tokenizer; None where neither did."""
    output_tokens: Distribution | None
    input_tokens_total: int
    output_tokens_total: int


@dataclass(frozen=True, slots=True)
class _Column:
    """Values of the answered requests, and to which request (by place) each belongs; both of shape (values,)."""

    values: Values
    owners: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Columns:
    """Requests, read once so that they can be grouped often."""

    records: Sequence[RequestRecord]
    measures: Mapping[str, _Column]
    input_tokens: _Column
    output_tokens: _Column
    good: NDArray[np.bool_] | None
    """Which kept every objective of requests, shape (requests,); None where there is none."""


def read(records: Sequence[RequestRecord], slos: Iterable[Slo] = ()) -> Columns:
    """Of measured requests: without those of the warm-up."""
    objectives = tuple(slo for slo in slos if slo.of_requests)
    good = np.array([meets_all(objectives, record) for record in records], dtype=np.bool_) if objectives else None
    return Columns(
        records=records,
        measures={
            name: _column([measure.read(record) if record.ok else () for record in records])
            for name, measure in MEASURES.items()
        },
        input_tokens=_column([_input_tokens(record) if record.ok else () for record in records]),
        output_tokens=_column([(record.tokens,) if record.ok else () for record in records]),
        good=good,
    )


def whole(columns: Columns) -> Group:
    """All requests as one group."""
    found = group(columns, [""] * len(columns.records), duration_s=None)
    return found[""] if found else _figures((), {}, {}, good=None if columns.good is None else 0, duration_s=0.0)


def group(columns: Columns, labels: Sequence[str], *, duration_s: float | None) -> dict[str, Group]:
    """By label, one for each request, in the labels' order. Rates are over the given time; None: over each group's."""
    if not labels:
        return {}
    names, codes = np.unique(np.array(labels), return_inverse=True)
    count = len(names)
    members = _split(np.arange(len(labels)), codes, count)
    measures = {name: _split_column(column, codes, count) for name, column in columns.measures.items()}
    tokens = {
        "input": _split_column(columns.input_tokens, codes, count),
        "output": _split_column(columns.output_tokens, codes, count),
    }
    groups = {}
    for place, name in enumerate(names):
        records = [columns.records[member] for member in members[place]]
        groups[str(name)] = _figures(
            records,
            {measure: parts[place] for measure, parts in measures.items()},
            {which: parts[place] for which, parts in tokens.items()},
            good=None if columns.good is None else int(columns.good[members[place]].sum()),
            duration_s=_length(span(records)) if duration_s is None else duration_s,
        )
    return groups


def span(records: Sequence[RequestRecord]) -> tuple[float, float]:
    """First origin and last end of all that was sent, answered or not; (0, 0) for none."""
    if not records:
        return 0.0, 0.0
    from_s = min(record.origin_s for record in records)
    return from_s, max(from_s, max(record.end_s for record in records))


def _length(between: tuple[float, float]) -> float:
    return between[1] - between[0]


def _figures(
    records: Sequence[RequestRecord],
    measures: Mapping[str, Values],
    tokens: Mapping[str, Values],
    *,
    good: int | None,
    duration_s: float,
) -> Group:
    answered = sum(record.ok for record in records)
    cut = sum(record.cut for record in records)
    errors = len(records) - answered - cut
    ended = answered + errors
    spread = {name: distribution(values) for name, values in measures.items()}
    none = np.zeros(0)
    output_tokens = int(tokens.get("output", none).sum())

    def a_second(count: float) -> float:
        return count / duration_s if duration_s > 0 else 0.0

    return Group(
        sent=len(records),
        answered=answered,
        errors=errors,
        cut=cut,
        error_rate=errors / ended if ended else 0.0,
        failures=_failures(records),
        duration_s=duration_s,
        rps=a_second(answered),
        requests_per_min=60 * a_second(answered),
        throughput=a_second(output_tokens),
        goodput=None if good is None else a_second(good),
        goodput_share=None if good is None else (good / ended if ended else 0.0),
        measures={name: found for name, found in spread.items() if found is not None},
        input_tokens=distribution(tokens.get("input", none)),
        output_tokens=distribution(tokens.get("output", none)),
        input_tokens_total=int(tokens.get("input", none).sum()),
        output_tokens_total=output_tokens,
    )


def _failures(records: Iterable[RequestRecord]) -> dict[str, Failure]:
    counts: dict[str, int] = {}
    messages: dict[str, str] = {}
    for record in records:
        if record.error and not record.cut:
            counts[record.error] = counts.get(record.error, 0) + 1
            messages[record.error] = messages.get(record.error) or record.message
    return {
        code: Failure(count=counts[code], message=messages[code])
        for code in sorted(counts, key=lambda code: (-counts[code], code))
    }


def _input_tokens(record: RequestRecord) -> tuple[int, ...]:
    counted = record.prompt_tokens_local if record.prompt_tokens is None else record.prompt_tokens
    return () if counted is None else (counted,)


def _column(rows: Sequence[Sequence[float]]) -> _Column:
    counts = np.fromiter((len(row) for row in rows), dtype=np.intp, count=len(rows))
    values = np.fromiter(chain.from_iterable(rows), dtype=np.float64, count=int(counts.sum()))
    return _Column(values, np.repeat(np.arange(len(rows)), counts))


def _split_column(column: _Column, codes: NDArray[np.intp], count: int) -> list[Values]:
    return [column.values] if count == 1 else _split(column.values, codes[column.owners], count)


def _split(values: NDArray[_Kind], codes: NDArray[np.intp], count: int) -> list[NDArray[_Kind]]:
    """By code from 0 to count - 1, each part in the order that it had."""
    order = np.argsort(codes.astype(np.min_scalar_type(count)), kind="stable")
    return np.split(values[order], np.cumsum(np.bincount(codes, minlength=count))[:-1])
