"""Adapters as operators see them: the registry joined with what the engines report."""

from loramux_adapters.errors import AdapterNotFound
from loramux_adapters.model import Adapter, AdapterState, Tier, Version, VersionState
from loramux_serving.api.admin.views import AdapterView, VersionView
from loramux_serving.services import Services

Residency = dict[str, dict[str, Tier]]
"""By engine name, the tier on each replica that holds it."""

_RANK = {Tier.GPU: 0, Tier.CPU: 1, Tier.DISK: 2, Tier.REMOTE: 3}


class Catalog:
    """One consistent look: made for one call, then dropped."""

    def __init__(self, services: Services, residency: Residency, on_disk: frozenset[str]) -> None:
        self._services = services
        self._residency = residency
        self._on_disk = on_disk
        self._state = services.registry.snapshot.state
        self._versions: dict[str, list[Version]] = {}
        for version in self._state.versions.values():
            if version.state is not VersionState.DELETED:
                self._versions.setdefault(version.adapter, []).append(version)
        self._aliases: dict[str, list[str]] = {}
        for alias in self._state.aliases.values():
            self._aliases.setdefault(alias.adapter, []).append(alias.name)

    @classmethod
    async def look(cls, services: Services) -> "Catalog":
        """Asks every engine what it holds."""
        residency: Residency = {}
        for replica, residents in (await services.manager.residents()).items():
            for resident in residents:
                residency.setdefault(resident.engine_name, {})[replica] = resident.tier
        on_disk = frozenset(artifact.digest for artifact in await services.library.entries())
        return cls(services, residency, on_disk)

    def names(self) -> list[str]:
        return sorted(self._state.adapters)

    def describe(self, name: str) -> AdapterView:
        """Raises `AdapterNotFound`."""
        adapter = self._state.adapters.get(name)
        if adapter is None:
            raise AdapterNotFound(f"There is no adapter {name!r}.")
        versions = sorted(self._versions.get(name, []), key=lambda version: version.number)
        use = self._services.usage.use(name)
        return AdapterView.of(
            adapter,
            state=state_of(adapter, versions),
            versions=[VersionView.of(version, self._tiers(version)) for version in versions],
            aliases=sorted(self._aliases.get(name, [])),
            requests=use.requests,
            last_used_at=use.last_used_at,
        )

    def state(self, name: str) -> str:
        return state_of(self._state.adapters[name], self._versions.get(name, []))

    def best_tier(self, name: str) -> Tier:
        """Of the live version, over all replicas."""
        adapter = self._state.adapters[name]
        version = self._state.versions.get((name, adapter.live)) if adapter.live is not None else None
        if version is None:
            return Tier.REMOTE
        return min((Tier(tier) for tier in self._tiers(version).values()), key=_RANK.__getitem__, default=Tier.REMOTE)

    def _tiers(self, version: Version) -> dict[str, str]:
        held = self._residency.get(version.engine_name or "", {})
        below = Tier.DISK if version.digest in self._on_disk else Tier.REMOTE
        return {replica: held.get(replica, below).value for replica in sorted(self._services.manager.replicas)}


def state_of(adapter: Adapter, versions: list[Version]) -> str:
    """`deleting`, `ready`, `arriving` or `failed`, as `AdapterView.state` says."""
    if adapter.state is AdapterState.DELETING:
        return "deleting"
    if adapter.live is not None:
        return "ready"
    return "arriving" if any(version.state.arriving for version in versions) else "failed"
