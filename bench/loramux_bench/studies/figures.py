"""What the answers to a closed loop say: rates, the wait for the first token, and how evenly adapters were served.
Pure."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from loramux_bench.record import RequestRecord
from loramux_bench.results.groups import span
from loramux_bench.results.measures import MEASURES

Records = Sequence[RequestRecord]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of the same load in one round or several. Times are of answered requests; None where none was."""

    requests: int
    errors: int
    rps: float
    """Answered requests a second, while the load ran."""
    tokens_a_second: float
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    ttft_max_s: float | None


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """The adapter with the highest median TTFT."""

    name: str
    ttft_p50_s: float
    share: float
    """Of the requests that were answered."""


def figures(rounds: Sequence[Records]) -> Figures:
    """Rates are over the sum of the rounds' lengths, each from its first request to its last answer's end."""
    records = [record for one in rounds for record in one]
    answered = [record for record in records if record.ok]
    length_s = sum(to_s - from_s for from_s, to_s in map(span, rounds))
    ttft = MEASURES["ttft"].pooled(records)
    p50, p99, longest = (
        (float(value) for value in np.quantile(ttft, (0.5, 0.99, 1.0))) if ttft.size else (None, None, None)
    )
    return Figures(
        requests=len(records),
        errors=len(records) - len(answered),
        rps=len(answered) / length_s if length_s else 0.0,
        tokens_a_second=sum(record.tokens for record in answered) / length_s if length_s else 0.0,
        ttft_p50_s=p50,
        ttft_p99_s=p99,
        ttft_max_s=longest,
    )


def worst(records: Records) -> Worst | None:
    """None where no request got a token."""
    by_adapter = _by_adapter(records)
    if not by_adapter:
        return None
    answered = sum(map(len, by_adapter.values()))
    medians = {
        name: float(np.median(MEASURES["ttft"].pooled(own)))
        for name, own in by_adapter.items()
        if MEASURES["ttft"].pooled(own).size
    }
    if not medians:
        return None
    name = max(medians, key=lambda one: medians[one])
    return Worst(name=name, ttft_p50_s=medians[name], share=len(by_adapter[name]) / answered)


def evenness(records: Records) -> float | None:
    """Jain's index over adapters, of the mean speed (tokens a second of one request) that each one's requests had: 1
    where all had the same, 1/n where one of n had all. None where nothing was answered.

    Source: Jain, Chiu & Hawe 1984, DEC-TR-301.
    """
    speeds = [MEASURES["speed"].pooled(own) for own in _by_adapter(records).values()]
    means = np.array([speed.mean() for speed in speeds if speed.size])
    if not means.size:
        return None
    return float(means.sum() ** 2 / (means.size * (means**2).sum()))


def _by_adapter(records: Records) -> Mapping[str, list[RequestRecord]]:
    """Answered ones."""
    found: dict[str, list[RequestRecord]] = {}
    for record in records:
        if record.ok:
            found.setdefault(record.adapter, []).append(record)
    return found
