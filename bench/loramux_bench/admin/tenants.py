"""The keys of a scenario's tenants."""

from collections.abc import Mapping
from functools import partial

from loramux_bench.admin.client import AdminClient
from loramux_bench.admin.restoration import Restoration
from loramux_bench.errors import ScenarioError
from loramux_bench.scenario import Tenant


def keys_of(
    tenants: tuple[Tenant, ...],
    client: AdminClient | None,
    restoration: Restoration,
    *,
    base: str,
    environment: Mapping[str, str],
) -> dict[str, str]:
    """By name. A key that is made is for the tenant's adapters and `base` (empty: none), without limits, and its
    revocation is owed. `client` may be None where every tenant brings a key.

    Raises `ScenarioError` for a variable that is not set, and `EndpointError`.
    """
    keys: dict[str, str] = {}
    for tenant in tenants:
        if tenant.key_env and not environment.get(tenant.key_env):
            raise ScenarioError(f"The tenant {tenant.name!r} wants its key in {tenant.key_env}, which is not set.")
    for tenant in tenants:
        if tenant.key_env:
            keys[tenant.name] = environment[tenant.key_env]
            continue
        assert client is not None
        allowed = (*tenant.adapters, base) if tenant.adapters and base else tenant.adapters
        made = client.create_key(f"bench {tenant.name}"[:128], allowed)
        restoration.owe(f"revoke the key {made.id} of the tenant {tenant.name!r}", partial(client.revoke_key, made.id))
        keys[tenant.name] = made.key
    return keys
