"""Was the load generator, or the machine that it ran on, the limit? Then the figures are not the endpoint's."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from loramux_bench.record import RequestRecord
from loramux_bench.results.measures import MEASURES, Values
from loramux_bench.run_dir import Generator, Sample

CPU_BUSY = 0.9
"""Of a core. A load process has one thread: near 1 it has no time left, and chunks wait in sockets for their
timestamp."""
BUSY_SHARE = 0.1
"""In more than this share of the samples it is a state and no hiccup: one late timer in a run of half a minute says
nothing of the other 99 % of the values."""
LATE_S = 0.020
"""Lateness of timers that is always borne: twice the time slice that a scheduler gives another process (10 ms)."""
LATE_OF_TTFT = 0.05
"""... or this share of the median TTFT, where that is more: noise of the size that repeated runs have anyway."""
LAG_S = 0.010
"""Lateness of requests against their schedule that is always borne: Locust starts users in steps of about that."""
LAG_OF_TTFT = 0.01
"""... or this share of the median TTFT: what a lag adds to latencies counts in full, so it is held to less."""
LATE_OF_ITL = 0.5
"""Timers later than this share of the median ITL blur single gaps. Their sum, and so TPOT and E2E, stays right."""
MACHINE_BUSY = 0.95
"""Of all cores."""
MACHINE_SHARE = 0.5
"""Most of the time."""
FULL = 0.98
"""Of the requests that may be under way: load processes divide them and round down."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the figures can be taken for the endpoint's."""

    limited: bool
    """The generator, its machine or its own limit held the load back: the endpoint may be better than measured."""
    reasons: list[str]
    """Whole sentences; empty unless `limited`."""
    cautions: list[str]
    """What to know when reading the figures, though it does not make them wrong."""
    samples: int
    """How often a load process was looked at while requests were measured."""
    cpu_max: float | None
    """Share of a core, of the busiest load process; None without samples, likewise below."""
    machine_cpu_mean: float | None
    """Share of all cores."""
    loop_lag_p90_s: float | None
    """Of the worst load process."""
    loop_lag_max_s: float | None
    lag_p99_s: float | None
    """Of requests against their schedule; None in a closed loop."""
    in_flight_max: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the rules look at."""

    by_worker: Mapping[int, Sequence[Generator]]
    loop_lag_p90_s: float | None
    loop_lag_max_s: float | None
    machine: Values
    lag_p99_s: float | None
    ttft_s: float
    """Median, of answered requests; 0 without one."""
    itl_s: float
    in_flight_max: int


def judge(
    records: Sequence[RequestRecord], samples: Iterable[Sample], *, max_in_flight: int | None, loopback: bool
) -> Verdict:
    """Of measured requests, and the samples taken while they ran. `max_in_flight`: of an open loop, None in a closed
    one. `loopback`: the endpoint is on this machine, and so uses its cores as well."""
    watched = _watched(records, samples)
    seen = _look(records, watched)
    busy = _busy_machine(seen)
    reasons = [*_busy_processes(seen), *_late_timers(seen), *_behind_schedule(seen), *_full(seen, max_in_flight)]
    cautions = [*_blurred(seen)]
    if busy and loopback:
        cautions.append(
            "The machine was busy most of the time, and endpoint and generator share it: each slows the other, and the "
            "figures are those of the pair."
        )
    elif busy:
        reasons.append("The generator's machine was busy most of the time: measure from another, or a larger one.")
    if not watched:
        cautions.append("There are no samples of the load process: whether it was the limit is not known.")
    return Verdict(
        limited=bool(reasons),
        reasons=reasons,
        cautions=cautions,
        samples=len(watched),
        cpu_max=max((one.cpu for one in watched), default=None),
        machine_cpu_mean=float(seen.machine.mean()) if watched else None,
        loop_lag_p90_s=seen.loop_lag_p90_s,
        loop_lag_max_s=seen.loop_lag_max_s,
        lag_p99_s=seen.lag_p99_s,
        in_flight_max=seen.in_flight_max,
    )


def _look(records: Sequence[RequestRecord], watched: Iterable[Generator]) -> _Seen:
    by_worker: dict[int, list[Generator]] = {}
    for one in watched:
        by_worker.setdefault(one.worker, []).append(one)
    late_s = [_array(one.loop_lag_s for one in of_one) for of_one in by_worker.values()]
    lags_s = _array(record.lag_s for record in records if record.scheduled_s is not None)
    return _Seen(
        by_worker=by_worker,
        loop_lag_p90_s=max((float(np.percentile(values, 100 * (1 - BUSY_SHARE))) for values in late_s), default=None),
        loop_lag_max_s=max((float(values.max()) for values in late_s), default=None),
        machine=_array(one.machine_cpu for of_one in by_worker.values() for one in of_one),
        lag_p99_s=float(np.percentile(lags_s, 99)) if lags_s.size else None,
        ttft_s=_median(records, "ttft"),
        itl_s=_median(records, "itl"),
        in_flight_max=peak_in_flight(records),
    )


def _busy_processes(seen: _Seen) -> Iterator[str]:
    for worker, of_one in sorted(seen.by_worker.items()):
        share = float(np.mean(_array(one.cpu for one in of_one) >= CPU_BUSY))
        if share > BUSY_SHARE:
            yield (
                f"Load process {worker} used {CPU_BUSY:.0%} of its core or more in {share:.0%} of the samples: spread "
                "the load over more processes (--processes), or ask for less."
            )


def _borne_s(seen: _Seen) -> float:
    return max(LATE_S, LATE_OF_TTFT * seen.ttft_s)


def _late_timers(seen: _Seen) -> Iterator[str]:
    if seen.loop_lag_p90_s is not None and seen.loop_lag_p90_s > _borne_s(seen):
        yield (
            f"Timers of the load process were {_ms(seen.loop_lag_p90_s)} late or more in a tenth of the samples "
            f"(borne: {_ms(_borne_s(seen))}): times of chunks are that late too."
        )


def _behind_schedule(seen: _Seen) -> Iterator[str]:
    borne_s = max(LAG_S, LAG_OF_TTFT * seen.ttft_s)
    if seen.lag_p99_s is not None and seen.lag_p99_s > borne_s:
        yield (
            f"One request in a hundred was sent {_ms(seen.lag_p99_s)} after its time or later (borne: {_ms(borne_s)}): "
            "the load was not the one that the scenario asks for."
        )


def _full(seen: _Seen, max_in_flight: int | None) -> Iterator[str]:
    if max_in_flight is not None and seen.in_flight_max >= FULL * max_in_flight:
        yield (
            f"{seen.in_flight_max} requests were under way at once, and load.arrivals.max_in_flight is {max_in_flight}"
            ": what was due beyond it had to wait in the generator. Raise it, or ask for less."
        )


def _busy_machine(seen: _Seen) -> bool:
    return bool(seen.machine.size) and float(np.mean(seen.machine >= MACHINE_BUSY)) > MACHINE_SHARE


def _blurred(seen: _Seen) -> Iterator[str]:
    """Lateness that only the fine figures show."""
    often_s, worst_s = seen.loop_lag_p90_s, seen.loop_lag_max_s
    if often_s is None or worst_s is None or often_s > _borne_s(seen):
        return
    if worst_s > _borne_s(seen):
        yield f"Single timers of the load process were up to {_ms(worst_s)} late: highest percentiles may be theirs."
    if seen.itl_s and often_s > LATE_OF_ITL * seen.itl_s:
        yield (
            f"Timers of the load process were {_ms(often_s)} late or more in a tenth of the samples, and the median "
            f"gap between tokens is {_ms(seen.itl_s)}: high percentiles of ITL may be the generator's; TPOT and E2E "
            "are not touched."
        )


def peak_in_flight(records: Sequence[RequestRecord]) -> int:
    """Most requests under way at a time, tries that were not ready included. One that ends when another is sent is not
    under way with it."""
    sent = np.sort(_array(record.sent_s - record.not_ready_s for record in records))
    ended = np.sort(_array(record.end_s for record in records))
    under_way = np.arange(1, sent.size + 1) - np.searchsorted(ended, sent, side="right")
    return int(under_way.max(initial=0))


def _watched(records: Sequence[RequestRecord], samples: Iterable[Sample]) -> list[Generator]:
    """While requests were measured. All of them where that was shorter than a sample's interval."""
    seen = [(sample.at_s, sample.generator) for sample in samples if sample.generator is not None]
    if not records:
        return [one for _, one in seen]
    from_s, to_s = min(record.sent_s for record in records), max(record.end_s for record in records)
    return [one for at_s, one in seen if from_s <= at_s <= to_s] or [one for _, one in seen]


def _median(records: Sequence[RequestRecord], measure: str) -> float:
    """0 where there is no value."""
    values = MEASURES[measure].pooled(records)
    return float(np.median(values)) if values.size else 0.0


def _array(values: Iterable[float]) -> Values:
    return np.fromiter(values, dtype=np.float64)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
