"""Whether a gateway's memory grows with the requests that it has served."""

import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Literal

import msgspec
import numpy as np
from rich.table import Table

from loramux_bench.decide.student import quantile
from loramux_bench.errors import EndpointError
from loramux_bench.overhead.lineup import lineup
from loramux_bench.overhead.part import AGAINST, Goal, Options, Outcome
from loramux_bench.overhead.side import DIRECT, LORAMUX, Side
from loramux_bench.overhead.usage import memory_bytes
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.overhead.wrk import MAX_TOKENS, PROMPT, Shot, Wrk, body
from loramux_bench.studies.study import table

GOAL_KIB = 10.0
"""Most growth for a thousand requests: 10 bytes for each. The smallest object that a request could leave is larger."""

_CONNECTIONS = 16
_CONFIDENCE = 0.95
_FEWEST = 6
"""Samples of the second half, below which nothing is said."""

Verdict = Literal["flat", "grows", "not known"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    requests: int = 200_000
    slice_s: int = 25
    """Of one run of wrk, on connections that it keeps."""
    sample_s: float = 1.0
    """Memory is read so often."""
    longest_s: float = 150.0
    """The load ends then, whether all requests were sent or not."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    requests: float
    """Answered until then: wrk tells at the end of a slice, and within it they count as even."""
    memory_bytes: int


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """Of resident memory over the second half of the requests, KiB for a thousand: the slope of a line through the
    samples, with Student's interval of 95 %."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        if self.high <= GOAL_KIB:
            return "flat"
        return "grows" if self.low > GOAL_KIB else "not known"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    side: str
    requests: int
    errors: int
    rps: float
    samples: tuple[Sample, ...]
    growth: Growth | None
    """None where there are too few samples."""

    @property
    def verdict(self) -> Verdict:
        return "not known" if self.growth is None else self.growth.verdict


def memory(place: Workplace, options: Options) -> Outcome:
    """The part."""
    plan = Plan()
    wanted = [name for name in (LORAMUX, AGAINST) if name in options.sides]
    rows = [endure(place, side, plan) for side in lineup(place, wanted) if side.name != DIRECT]
    return Outcome({"plan": plan, "rows": rows}, [_table(rows)], goals(rows, plan), remarks(rows, plan))


def endure(place: Workplace, side: Side, plan: Plan) -> Row:
    """Slices of load until there were enough requests: three of four not streamed, the fourth streamed."""
    wrk = Wrk(place.study.scratch, place.cores.load)
    bodies = [*([body(side.model)] * 3), streamed(side.model)]
    served = errors = 0
    busy_s = 0.0
    began = time.perf_counter()
    samples = [Sample(requests=0, memory_bytes=_resident(side))]
    with ThreadPoolExecutor(1) as runs:
        while served < plan.requests and time.perf_counter() - began < plan.longest_s:
            run = runs.submit(wrk, side, connections=_CONNECTIONS, seconds=plan.slice_s, bodies=bodies)
            readings = _readings(side, run, plan.sample_s)
            try:
                shot = run.result()
            except EndpointError as error:
                place.tell(f"{side.name}: {error}")
                break
            # The last may have come after the load: a share of 1 at most.
            samples += [
                Sample(requests=served + shot.requests * min(1.0, at_s / shot.seconds), memory_bytes=found)
                for at_s, found in readings
            ]
            served += shot.requests
            errors += shot.errors
            busy_s += shot.seconds
    place.tell(f"{side.name}: {served} requests, {samples[-1].memory_bytes / 2**20:.1f} MiB")
    return Row(
        side=side.name,
        requests=served,
        errors=errors,
        rps=served / busy_s if busy_s else 0.0,
        samples=tuple(samples),
        growth=growth(samples),
    )


def _readings(side: Side, run: "Future[Shot]", every_s: float) -> list[tuple[float, int]]:
    """Seconds since the run's begin, and memory, until it is over."""
    found: list[tuple[float, int]] = []
    began = time.perf_counter()
    while not wait([run], every_s).done:
        found.append((time.perf_counter() - began, _resident(side)))
    return found


def growth(samples: Sequence[Sample]) -> Growth | None:
    """Over the second half of the requests. Pure."""
    half = samples[-1].requests / 2
    found = [sample for sample in samples if sample.requests >= half]
    if len(found) < _FEWEST:
        return None
    thousands = np.array([sample.requests for sample in found]) / 1000
    kib = np.array([sample.memory_bytes for sample in found]) / 1024
    across = thousands - thousands.mean()
    squares = float((across**2).sum())
    slope = float((across * kib).sum()) / squares
    rest = kib - kib.mean() - slope * across
    degrees = len(found) - 2
    error = math.sqrt(float((rest**2).sum()) / degrees / squares)
    width = quantile(_CONFIDENCE, degrees) * error
    return Growth(value=slope, low=slope - width, high=slope + width)


def streamed(model: str) -> str:
    """As `wrk.body`."""
    said = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": MAX_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(said)


def goals(rows: Sequence[Row], plan: Plan) -> list[Goal]:
    return [
        Goal(
            f"memory grows by at most {GOAL_KIB:g} KiB for a thousand requests, over the second half of "
            f"{plan.requests:,}",
            "too few samples" if row.growth is None else f"{_told(row.growth)} KiB",
            None if row.verdict == "not known" or row.requests < plan.requests else row.verdict == "flat",
        )
        for row in rows
        if row.side == LORAMUX
    ]


def remarks(rows: Sequence[Row], plan: Plan) -> list[str]:
    said = [
        f"{row.side}: {row.requests:,} requests of {plan.requests:,} were sent in {plan.longest_s:g} s."
        for row in rows
        if row.requests < plan.requests
    ]
    return said + [f"{row.side}: {row.errors} errors." for row in rows if row.errors]


def _resident(side: Side) -> int:
    return sum(memory_bytes(pid) for pid in side.pids)


def _told(found: Growth) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _table(rows: Sequence[Row]) -> Table:
    return table(
        f"Resident memory under load, {_CONNECTIONS} connections, a quarter of the requests streamed",
        [
            "side",
            "requests",
            "at the start, MiB",
            "at half, MiB",
            "at the end, MiB",
            "KiB per 1,000 requests",
            "verdict",
        ],
        [
            [
                row.side,
                f"{row.requests:,}",
                f"{row.samples[0].memory_bytes / 2**20:.1f}",
                f"{_at_half(row.samples) / 2**20:.1f}",
                f"{row.samples[-1].memory_bytes / 2**20:.1f}",
                "" if row.growth is None else _told(row.growth),
                row.verdict,
            ]
            for row in rows
        ],
    )


def _at_half(samples: Sequence[Sample]) -> int:
    return next(sample.memory_bytes for sample in samples if sample.requests >= samples[-1].requests / 2)
