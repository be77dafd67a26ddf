"""Adapters as operators see them: the registry joined with what the engines report."""

from loramux_adapters.errors import AdapterNotFound
from loramux_adapters.model import Adapter, AdapterState, Tier, Version, VersionState
from loramux_serving.api.admin.views import AdapterView, ResidencyView, VersionView
from loramux_serving.api.look import ask, look
from loramux_serving.services import Services
from loramux_serving.whereabouts import Whereabouts


class Catalog:
    """One consistent look: made for one call, then dropped."""

    def __init__(self, services: Services, whereabouts: Whereabouts) -> None:
        self._services = services
        self._whereabouts = whereabouts
        self._outside = {
            below: {replica: ResidencyView.of(below, None, held.age_s) for replica, held in whereabouts.held.items()}
            for below in (Tier.DISK, Tier.REMOTE)
        }
        """What versions share that are in no engine, and most are."""
        services.records.flush()
        self._load = services.admission.snapshot().adapters
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
        """After the engines were asked: for what was just changed. Raises `StorageError`."""
        await ask(services)
        return await cls.glance(services)

    @classmethod
    async def glance(cls, services: Services) -> "Catalog":
        """By what the engines reported last. Raises `StorageError`."""
        return cls(services, await look(services))

    def names(self) -> list[str]:
        return sorted(self._state.adapters)

    def describe(self, name: str) -> AdapterView:
        """Raises `AdapterNotFound`."""
        adapter = self._state.adapters.get(name)
        if adapter is None:
            raise AdapterNotFound(f"There is no adapter {name!r}.")
        versions = sorted(self._versions.get(name, []), key=lambda version: version.number)
        use = self._services.usage.use(name)
        load = self._load.get(name)
        return AdapterView.of(
            adapter,
            state=state_of(adapter, versions),
            versions=[VersionView.of(version, self._tiers(version)) for version in versions],
            figures=self._services.canaries.figures(name),
            residency=self._residency(adapter),
            aliases=sorted(self._aliases.get(name, [])),
            running=load.running if load else 0,
            queued=load.queued if load else 0,
            requests=use.requests,
            last_used_at=use.last_used_at,
        )

    def state(self, name: str) -> str:
        return state_of(self._state.adapters[name], self._versions.get(name, []))

    def best_tier(self, name: str) -> Tier:
        """Of the live version, over all replicas."""
        live = self._live(self._state.adapters[name])
        return Tier.REMOTE if live is None else self._whereabouts.best(live)

    def _live(self, adapter: Adapter) -> Version | None:
        return None if adapter.live is None else self._state.versions.get((adapter.name, adapter.live))

    def _tiers(self, version: Version) -> dict[str, str]:
        return dict(self._whereabouts.tiers(version))

    def _residency(self, adapter: Adapter) -> dict[str, ResidencyView]:
        live = self._live(adapter)
        if live is None:
            return {}
        residents = self._whereabouts.residents(live)
        if not residents:
            return self._outside[self._whereabouts.below(live)]
        held = self._whereabouts.held
        return {
            replica: ResidencyView.of(tier, residents.get(replica), held[replica].age_s)
            for replica, tier in self._whereabouts.tiers(live).items()
        }


def state_of(adapter: Adapter, versions: list[Version]) -> str:
    """`deleting`, `ready`, `arriving` or `failed`, as `AdapterView.state` says."""
    if adapter.state is AdapterState.DELETING:
        return "deleting"
    if adapter.live is not None:
        return "ready"
    return "arriving" if any(version.state.arriving for version in versions) else "failed"
