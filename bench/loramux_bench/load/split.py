"""A scenario of several targets as one scenario for each, so that every target gets the same requests."""

from loramux_bench.scenario import Arrivals, Load, Scenario, Target


def split(scenario: Scenario) -> tuple[Scenario, ...]:
    """One scenario a target, in their order. Users, requests, warm-up, requests in flight and arrival rates are shared
    by weight; each target keeps one user and one request at least. Seeds stay, so that all are asked the same."""
    total = sum(target.weight for target in scenario.targets)
    return tuple(_part(scenario, target, target.weight / total) for target in scenario.targets)


def _part(scenario: Scenario, target: Target, share: float) -> Scenario:
    if share == 1.0:
        return scenario
    return scenario.model_copy(update={"targets": (target,), "load": _load(scenario.load, share)})


def _load(load: Load, share: float) -> Load:
    return load.model_copy(
        update={
            "users": _some(load.users, share),
            "requests": None if load.requests is None else _some(load.requests, share),
            "warmup_requests": round(load.warmup_requests * share),
            "arrivals": _arrivals(load.arrivals, share),
        }
    )


def _arrivals(arrivals: Arrivals, share: float) -> Arrivals:
    stages = tuple(
        stage.model_copy(
            update={
                "rate_per_s": stage.rate_per_s * share,
                "to_rate_per_s": None if stage.to_rate_per_s is None else stage.to_rate_per_s * share,
            }
        )
        for stage in arrivals.stages
    )
    return arrivals.model_copy(
        update={
            "rate_per_s": arrivals.rate_per_s * share,
            "stages": stages,
            "max_in_flight": _some(arrivals.max_in_flight, share),
        }
    )


def _some(count: int, share: float) -> int:
    return max(1, round(count * share))
