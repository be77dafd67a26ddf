"""When requests of an open loop are due.

A stream of arrivals at rate 1 is made first; its k-th arrival lies at u_k. It becomes one of any rate by time change:
t_k = Λ⁻¹(u_k), where Λ(t) is the integral of the rate from 0 to t (Çinlar, Introduction to Stochastic Processes, 1975,
chapter 4.7: of a Poisson stream it makes the non-homogeneous Poisson process exactly).

Gaps at rate 1: constant 1 (the first arrival at 0), or drawn from Gamma(shape = b, scale = 1/b), so that their mean is
1 and their coefficient of variation 1/√b; b = 1 is Poisson. At a steady rate r that is Gamma(b, 1/(r·b)), as
`get_request` of vLLM's `vllm/benchmarks/serve.py` draws them. vLLM then stretches the whole schedule so that n requests
take n/r seconds exactly. Here it is left as drawn: a load may end by time, and stretching takes away some of the
variance that burstiness is asked for. Over n requests the rate is therefore off by about 1/√(b·n).
"""

import math
import random
from collections.abc import Iterator, Sequence

from loramux_bench.load.trace import Entry
from loramux_bench.scenario import Arrivals, Stage


def arrivals(settings: Arrivals, seed: int, trace: Sequence[Entry] = ()) -> Iterator[float]:
    """Seconds from the load's start, ≥ 0 and ascending; the same for the same arguments in every process.

    Endless, unless there are stages or a trace: then it ends with the last. `trace` is what `settings.trace` names.
    """
    if settings.kind == "trace":
        return (entry.at_s / settings.speed for entry in trace)
    units = _units(settings, random.Random(f"{seed}/arrivals"))
    if settings.stages:
        return _staged(units, settings.stages)
    return (unit / settings.rate_per_s for unit in units)


def _units(settings: Arrivals, rng: random.Random) -> Iterator[float]:
    """Arrivals at rate 1, endless."""
    if settings.kind == "constant":
        count = 0
        while True:
            yield float(count)
            count += 1
    shape = settings.burstiness if settings.kind == "gamma" else 1.0
    at = 0.0
    while True:
        at += rng.gammavariate(shape, 1.0 / shape)
        yield at


def _staged(units: Iterator[float], stages: Sequence[Stage]) -> Iterator[float]:
    begins_s = 0.0
    passed = 0.0
    unit = next(units)
    for stage in stages:
        area = (stage.rate_per_s + _end_rate(stage)) / 2 * stage.duration_s
        while unit < passed + area:
            yield begins_s + min(_time_of(unit - passed, stage), stage.duration_s)
            unit = next(units)
        begins_s += stage.duration_s
        passed += area


def _end_rate(stage: Stage) -> float:
    return stage.rate_per_s if stage.to_rate_per_s is None else stage.to_rate_per_s


def _time_of(area: float, stage: Stage) -> float:
    """The t with r₀·t + (r₁ - r₀)·t²/(2T) = area, in the form that neither cancels nor divides by a slope of 0."""
    if area <= 0:
        return 0.0
    slope = (_end_rate(stage) - stage.rate_per_s) / stage.duration_s
    # Below 0 only by rounding, at the end of a ramp down to 0.
    root = math.sqrt(max(0.0, stage.rate_per_s**2 + 2 * slope * area))
    return 2 * area / (stage.rate_per_s + root)
