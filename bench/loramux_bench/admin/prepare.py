"""What is done at the endpoints before a load, and what the load gets to know from it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loramux_bench.admin.calibration import SAMPLES, observe
from loramux_bench.admin.client import AdminClient, CallFailed
from loramux_bench.admin.endpoint import Endpoint
from loramux_bench.admin.listing import Listing, choose_names, listing_of, reach, require_listed
from loramux_bench.admin.patience import Patience, Tell
from loramux_bench.admin.provision import provide
from loramux_bench.admin.restoration import Restoration
from loramux_bench.admin.tenants import keys_of
from loramux_bench.errors import EndpointError
from loramux_bench.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Prepared:
    adapters: tuple[str, ...]
    """That the load may ask for; the base alone where the endpoint has none."""
    base: str
    """Empty where it is not known."""
    tenants: Mapping[str, str] = field(repr=False)
    """Keys by name."""
    observations: tuple[tuple[int, int], ...] | None
    """Words of a text and the first target's count of its prompt tokens, by which lengths are set; None where the
    scenario has a tokenizer or the endpoint does not count."""
    ready_wait_s: float
    control: AdminClient | None
    """Of the first target, with the admin key if there is one: open as long as the restoration's block. None for
    `litellm` without a url."""
    admin: bool
    """Whether `control` may use loramux' admin interface."""
    provisioned: tuple[str, ...]
    """Adapters that are deleted after the run."""
    facts: Mapping[str, Any]
    """Of the first target, for `RunInfo.environment`."""

    @property
    def updatable(self) -> tuple[str, ...]:
        """For churn: neither the base nor a version can be updated."""
        return tuple(name for name in self.adapters if name != self.base and "@" not in name)


def prepare(
    scenario: Scenario,
    endpoints: Sequence[Endpoint],
    restoration: Restoration,
    *,
    tell: Tell,
    sleep: Callable[[float], object],
    now: Callable[[], float],
    samples: Sequence[str] = SAMPLES,
    environment: Mapping[str, str] = os.environ,
) -> Prepared:
    """Wait for the endpoints, find what can be asked for, provision, and make keys. Admin calls go to the first target
    only. What is changed is owed to `restoration` before it is changed, so an interrupt at any place leaves nothing.

    Raises `EndpointError` and `ScenarioError`. An endpoint that says "not ready" is waited for as the scenario wants;
    every other failure ends it at once, a refused connection among them.
    """
    patience = Patience(scenario.not_ready, sleep=sleep, now=now, tell=tell)
    first = endpoints[0]
    clients = {
        endpoint.target.name: restoration.resources.enter_context(endpoint.client())
        for endpoint in endpoints
        if endpoint.url
    }
    for endpoint in endpoints:
        if endpoint.url:
            reach(endpoint, clients[endpoint.target.name], patience)

    control = restoration.resources.enter_context(first.admin_client()) if first.url else None
    admin = _has_admin(scenario, first, control)
    provisioned: tuple[str, ...] = ()
    if scenario.adapters.provision is not None and control is not None:
        provisioned = provide(control, scenario.adapters.provision, restoration, tell=tell, sleep=sleep)

    listings = {
        endpoint.target.name: listing_of(scenario, endpoint, clients.get(endpoint.target.name), patience)
        for endpoint in endpoints
    }
    listing = listings[first.target.name]
    adapters, base = choose_names(scenario, first, listing, provisioned)
    if adapters == (base,) and base not in scenario.adapters.names and not first.target.model:
        tell(f"{first.url} lists no adapters: the load asks for its base, {base}, alone.")
    for endpoint in endpoints:
        require_listed(scenario, endpoint, listings[endpoint.target.name], adapters)

    keyed_base = base if scenario.adapters.base_share else ""
    tenants = keys_of(
        scenario.tenants, control if admin else None, restoration, base=keyed_base, environment=environment
    )
    observations = None
    if first.target.api in ("openai-chat", "openai-completions"):
        model = first.target.model or base or adapters[0]
        observations = observe(
            first.target, clients[first.target.name], model, patience, samples, counting=not scenario.prompts.tokenizer
        )
    return Prepared(
        adapters=adapters,
        base=base,
        tenants=tenants,
        observations=observations,
        ready_wait_s=patience.waited_s,
        control=control,
        admin=admin,
        provisioned=() if scenario.adapters.provision and scenario.adapters.provision.keep else provisioned,
        facts=_facts(control, admin=admin, listing=listing),
    )


def _has_admin(scenario: Scenario, first: Endpoint, control: AdminClient | None) -> bool:
    """Raises `EndpointError` where the scenario needs it and it is not there."""
    needs = [
        what
        for what, needed in (
            ("adapters.provision", scenario.adapters.provision is not None),
            ("churn", scenario.churn.any),
            ("tenants without key_env", any(not tenant.key_env for tenant in scenario.tenants)),
        )
        if needed
    ]
    wanted = bool(needs) or first.target.admin is True
    if control is not None and first.target.admin is not False and (wanted or first.target.api != "litellm"):
        try:
            control.replicas()
        except CallFailed as failure:
            if wanted and failure.status not in (404, 405):
                raise
        else:
            return True
    if wanted:
        asked = f"The scenario has {' and '.join(needs)}, for which" if needs else "The target says admin = true, but"
        tail = "it needs loramux' admin interface" if needs else "loramux' admin interface is not there"
        raise EndpointError(f"{asked} {tail}: {first.url or first.target.name} has none that may be used.")
    return False


def _facts(control: AdminClient | None, *, admin: bool, listing: Listing) -> dict[str, Any]:
    """As far as the endpoint says it: never a reason to fail."""
    facts: dict[str, Any] = {}
    if listing is not None:
        facts["models"] = len(listing)
    if control is None:
        return facts
    facts["url"] = control.url
    try:
        if admin:
            replicas = control.replicas()
            facts["replicas"] = {replica.id: replica.state for replica in replicas}
            facts["engines"] = {replica.id: dict(replica.capabilities or {}) for replica in replicas}
        else:
            facts["engine_version"] = control.version()
    except CallFailed:
        pass
    return facts
