"""A target as it is reached: address and keys found."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from loramux_bench.admin.client import AdminClient
from loramux_bench.scenario import Target, endpoint_key, endpoint_url


@dataclass(frozen=True, slots=True)
class Endpoint:
    target: Target
    url: str
    """Empty for `litellm` without one."""
    key: str = field(repr=False)
    admin_key: str = field(repr=False)

    @classmethod
    def of(cls, target: Target, environment: Mapping[str, str] = os.environ, *, first: bool = True) -> "Endpoint":
        """Raises `ScenarioError` for a variable that is not set. For the admin interface `LORAMUX_ADMIN_KEY` goes
        before the key of the load, unless the target names a variable of its own: another's endpoint must not see
        it."""
        key = endpoint_key(target, environment, first=first)
        others = target.key_env or target.api == "litellm" or not first
        own = "" if others else environment.get("LORAMUX_ADMIN_KEY", "")
        return cls(target, endpoint_url(target, environment), key, own or key)

    def client(self) -> AdminClient:
        """With the key of the load. Raises `EndpointError` where the url is no address."""
        return AdminClient(self.url, self.key, key_variable=self.target.key_env or "LORAMUX_API_KEY")

    def admin_client(self) -> AdminClient:
        """With the admin key. Raises likewise."""
        return AdminClient(self.url, self.admin_key, key_variable=self.target.key_env or "LORAMUX_ADMIN_KEY")
