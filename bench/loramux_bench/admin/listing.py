"""What an endpoint lists, and which of it a load asks for."""

from collections.abc import Iterable

from loramux_bench.admin.answers import Model
from loramux_bench.admin.client import AdminClient, CallFailed
from loramux_bench.admin.endpoint import Endpoint
from loramux_bench.admin.patience import Patience
from loramux_bench.errors import EndpointError, ScenarioError
from loramux_bench.scenario import Scenario

Listing = tuple[Model, ...] | None
"""None: not asked, or the interface has none."""

_PROBES = {"tgi": "/health", "sagemaker": "/ping"}


def reach(endpoint: Endpoint, client: AdminClient, patience: Patience) -> None:
    """Wait until it answers. Raises `EndpointError`: also where the key is refused or the answers are of no such
    interface."""
    api = endpoint.target.api
    if api in ("openai-chat", "openai-completions") and not endpoint.target.model:
        patience.ask(client.models)
    elif probe := _PROBES.get(api, "/v1/models" if api != "litellm" else ""):
        try:
            patience.ask(lambda: client.touch(probe))
        except CallFailed as failure:
            # Any other answer is one: an endpoint of one model need not have this path.
            if not failure.status or failure.status in (401, 403):
                raise


def listing_of(scenario: Scenario, endpoint: Endpoint, client: AdminClient | None, patience: Patience) -> Listing:
    """OpenAI's interfaces list; of the others it is asked where nothing else says the names. Raises `EndpointError`."""
    target = endpoint.target
    if client is None or target.model or target.api == "litellm":
        return None
    openai = target.api in ("openai-chat", "openai-completions")
    if not openai and scenario.adapters.names:
        return None
    try:
        return patience.ask(client.models)
    except CallFailed as failure:
        if not openai and failure.status in (404, 405):
            return None
        raise


def choose_names(
    scenario: Scenario, endpoint: Endpoint, listing: Listing, provisioned: tuple[str, ...]
) -> tuple[tuple[str, ...], str]:
    """The adapters that the load asks for, and the base's name (empty: not known). Raises `ScenarioError` where the
    scenario leaves open what the endpoint does not say."""
    wanted, model = scenario.adapters, endpoint.target.model
    listed = [each for each in listing or () if not each.is_alias]
    bases = [each.id for each in listed if not each.parent] or [each.parent for each in listed if each.parent]
    base = wanted.base or (bases[0] if bases else model)
    if wanted.base_share and not base:
        raise ScenarioError(
            f"The scenario asks for the base, and {endpoint.url or endpoint.target.name} does not say its name: set "
            f"adapters.base."
        )
    adapters = provisioned or wanted.names or tuple(each.id for each in listed if each.parent and each.id != base)
    if not adapters:
        adapters = (model,) if model else (base,) if base else ()
    if not adapters:
        raise ScenarioError(
            f"{endpoint.url or endpoint.target.name} lists nothing that can be asked for: set adapters.names or the "
            f"target's model."
        )
    return adapters, base


def require_listed(scenario: Scenario, endpoint: Endpoint, listing: Listing, asked: Iterable[str]) -> None:
    """Raises `EndpointError` with the names that the load would ask this target for and that it does not list."""
    if listing is None:
        return
    named = {*asked, *scenario.adapters.weights, *(name for tenant in scenario.tenants for name in tenant.adapters)}
    known = {each.id for each in listing} | {each.parent for each in listing}
    missing = sorted(name for name in named if name and name.partition("@")[0] not in known and name not in known)
    if missing:
        raise EndpointError(
            f"{endpoint.url} does not list {', '.join(missing)}: add them there, or correct the scenario's names."
        )
