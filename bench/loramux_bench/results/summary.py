"""A run in figures: what `summary.json` holds."""

from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np

from loramux_bench.record import RequestRecord
from loramux_bench.results.cost import Cost, cost
from loramux_bench.results.distributions import Distribution, distribution
from loramux_bench.results.generator import Verdict, judge
from loramux_bench.results.groups import Columns, Failure, Group, group, read, span, whole
from loramux_bench.results.residency import tiers_at_sending
from loramux_bench.results.slo import parse as parse_slo
from loramux_bench.run_dir import ChurnRecord, RunInfo, Sample
from loramux_bench.scenario import Scenario, Target, endpoint_url, on_this_machine
from loramux_bench.scenario import parse as parse_scenario

NOT_READY = "not_ready"
"""The code of a request that gave up waiting."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Time in which the endpoint said "not ready". It is in no latency."""

    before_load_s: float
    """Before the load began."""
    requests: int
    """Measured ones that met it."""
    attempts: int
    """Tries that were answered so."""
    total_s: float
    """Summed over those requests: several may wait at a time."""
    spread_s: Distribution | None
    """Over those requests; None where none met it."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Two counts of the same tokens, over the answered requests where both are known."""

    requests: int
    mean_difference: float
    """Tokens a request, the first less the second."""
    equal_share: float
    largest_difference: int
    """The one farthest from 0, with its sign."""


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Counts held against each other; each None where no request has both."""

    output: Agreement | None
    """The endpoint's usage less the model's tokenizer on the text that came."""
    prompt: Agreement | None
    """The endpoint's usage less the tokenizer on the prompt: a chat template makes it positive."""
    prompt_wanted: Agreement | None
    """The prompt as counted (by the endpoint, else the tokenizer) less the length that was drawn for it."""
    output_wanted: Agreement | None
    """The answer as counted less the length that was asked for."""
    prompt_overhead: float
    """Tokens that the endpoint counts for an empty prompt: of its chat template. 0 where not known."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Of one action of churn."""

    count: int
    errors: int
    failures: dict[str, Failure]
    """By code; the message is the adapter's name."""
    took_s: Distribution | None
    """Of those without an error, from the call to its acknowledgement."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All of it is of measured requests: those sent after the warm-up. Latencies are of answered ones only; errors and
    requests that were cut are counted apart."""

    name: str
    outcome: str
    """As in `RunInfo`."""
    started_at: float
    """Unix seconds of offset 0."""
    from_s: float
    """First origin and last end of the measured requests, seconds since the run's start."""
    to_s: float
    warmup: int
    """Requests that were sent and not counted."""

    total: Group
    """With several targets it mixes them: read `by_target`."""
    by_target: dict[str, Group]
    by_adapter: dict[str, Group]
    by_tenant: dict[str, Group]
    """Empty without tenants."""
    by_tier: dict[str, Group]
    """By the tier that the adapter had when the request was sent: `gpu`, `cpu`, `disk`, `remote`, `base`, `unknown`.
    Empty where the endpoint did not say."""
    by_version: dict[str, Group]
    """By `adapter@version`, where the endpoint says it."""

    slos: list[str]
    """Of the scenario. Those of requests make goodput."""
    lag: Distribution | None
    """How late requests were sent against their schedule, seconds; None in a closed loop. It is part of their TTFT and
    E2E."""
    not_ready: Waiting
    tokens: Tokens
    churn: dict[str, Changes]
    """By action: `add`, `update`, `delete`."""
    generator: Verdict
    cost: Cost | None
    """None without a price or a number of replicas, and with several targets: whose replicas they are is not known."""


def summarise(
    info: RunInfo, requests: Sequence[RequestRecord], samples: Sequence[Sample], churn: Sequence[ChurnRecord]
) -> Summary:
    """Raises `ScenarioError` for a scenario in `run.json` that this version does not read."""
    scenario = parse_scenario(info.scenario, f"of the run {info.name}")
    measured = [record for record in requests if not record.warmup]
    from_s, to_s = span(measured)
    columns = read(measured, [parse_slo(text) for text in scenario.slos])
    total = whole(columns)
    open_loop = scenario.load.shape == "open"
    lags_s = np.array([record.lag_s for record in measured if record.scheduled_s is not None], dtype=np.float64)
    return Summary(
        name=info.name,
        outcome=info.outcome,
        started_at=info.started_at,
        from_s=from_s,
        to_s=to_s,
        warmup=len(requests) - len(measured),
        total=total,
        by_target=group(columns, [record.target for record in measured], duration_s=None),
        by_adapter=_by(columns, lambda record: record.adapter, to_s - from_s),
        by_tenant=_by(columns, lambda record: record.tenant, to_s - from_s) if scenario.tenants else {},
        by_tier=_by_tier(columns, info, scenario, samples, to_s - from_s),
        by_version=_by_version(columns, to_s - from_s),
        slos=list(scenario.slos),
        lag=distribution(lags_s),
        not_ready=_waiting(info, measured),
        tokens=_tokens(info, [record for record in measured if record.ok]),
        churn={
            action: _changes([change for change in churn if change.action == action])
            for action in sorted({change.action for change in churn})
        },
        generator=judge(
            measured,
            samples,
            max_in_flight=scenario.load.arrivals.max_in_flight if open_loop else None,
            loopback=any(_on_this_machine(info, target) for target in scenario.targets),
        ),
        cost=cost(
            scenario.cost,
            samples,
            from_s=from_s,
            to_s=to_s,
            answered=total.answered,
            output_tokens=total.output_tokens_total,
        )
        if len(scenario.targets) == 1
        else None,
    )


def _by(columns: Columns, label: Callable[[RequestRecord], str], duration_s: float) -> dict[str, Group]:
    return group(columns, [label(record) for record in columns.records], duration_s=duration_s)


def _by_tier(
    columns: Columns, info: RunInfo, scenario: Scenario, samples: Sequence[Sample], duration_s: float
) -> dict[str, Group]:
    if not any(sample.tiers for sample in samples):
        return {}
    tiers = tiers_at_sending(
        columns.records,
        samples,
        base=info.base or scenario.adapters.base,
        untold={target.name for target in scenario.targets if target.admin is False},
    )
    return group(columns, tiers, duration_s=duration_s)


def _by_version(columns: Columns, duration_s: float) -> dict[str, Group]:
    groups = _by(columns, lambda record: f"{record.adapter}@{record.version}" if record.version else "", duration_s)
    return {name: found for name, found in groups.items() if name}


def _waiting(info: RunInfo, measured: Iterable[RequestRecord]) -> Waiting:
    waited = [record for record in measured if record.attempts > 1 or record.error == NOT_READY]
    times_s = np.array([record.not_ready_s for record in waited], dtype=np.float64)
    return Waiting(
        before_load_s=info.ready_wait_s,
        requests=len(waited),
        attempts=sum(record.attempts - (record.error != NOT_READY) for record in waited),
        total_s=float(times_s.sum()),
        spread_s=distribution(times_s),
    )


def _tokens(info: RunInfo, answered: Sequence[RequestRecord]) -> Tokens:
    prompts = [r.prompt_tokens_local if r.prompt_tokens is None else r.prompt_tokens for r in answered]
    outputs = [r.output_tokens_local if r.output_tokens is None else r.output_tokens for r in answered]
    return Tokens(
        output=_agreement((r.output_tokens, r.output_tokens_local) for r in answered),
        prompt=_agreement((r.prompt_tokens, r.prompt_tokens_local) for r in answered),
        prompt_wanted=_agreement(zip(prompts, (r.prompt_tokens_wanted for r in answered), strict=True)),
        output_wanted=_agreement(zip(outputs, (r.output_tokens_wanted for r in answered), strict=True)),
        prompt_overhead=info.prompt_overhead_tokens,
    )


def _agreement(pairs: Iterable[tuple[int | None, int | None]]) -> Agreement | None:
    differences = [first - second for first, second in pairs if first is not None and second is not None]
    if not differences:
        return None
    return Agreement(
        requests=len(differences),
        mean_difference=sum(differences) / len(differences),
        equal_share=differences.count(0) / len(differences),
        largest_difference=max(differences, key=abs),
    )


def _changes(changes: Sequence[ChurnRecord]) -> Changes:
    failed = [change for change in changes if change.error]
    codes = sorted({change.error for change in failed})
    return Changes(
        count=len(changes),
        errors=len(failed),
        failures={
            code: Failure(
                count=sum(change.error == code for change in failed),
                message=next(change.adapter for change in failed if change.error == code),
            )
            for code in codes
        },
        took_s=distribution(np.array([change.took_s for change in changes if not change.error], dtype=np.float64)),
    )


def _on_this_machine(info: RunInfo, target: Target) -> bool:
    """By the URL that was used, where the run noted it; else the scenario's, and without one the default."""
    noted = info.environment.get("endpoint") or {}
    return on_this_machine(target.url or noted.get("url") or endpoint_url(target, {}))
