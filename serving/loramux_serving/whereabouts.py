"""Where every version is: what the engines last reported, and below that the disk tier. Pure, and never a guess: a
replica that has reported nothing is left out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from loramux_adapters.model import Resident, Tier, Version

_IN_ENGINE = (Tier.GPU, Tier.CPU)


@dataclass(frozen=True, slots=True)
class Held:
    """What a replica's engine said that it holds. `age_s` is how long ago."""

    age_s: float
    residents: tuple[Resident, ...]


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How many adapters are in one place, how many of them the engine itself keeps there, and what their weights take
    in host memory: 0 bytes where the engine does not tell."""

    used: int
    pinned: int
    size_bytes: int


class Whereabouts:
    """One look: made for one call, then dropped."""

    def __init__(self, held: Mapping[str, Held], disk: Mapping[str, int]) -> None:
        """`held` by replica; `disk` has the size in bytes of what is in the disk tier, by digest."""
        self.held = held
        self.disk = disk
        self.replicas = sorted(held)
        # Most versions are in no engine: they share one answer.
        self._outside = {below: dict.fromkeys(self.replicas, below) for below in (Tier.DISK, Tier.REMOTE)}
        self._found: dict[str, dict[str, Resident]] = {}
        for replica, report in held.items():
            for resident in report.residents:
                self._found.setdefault(resident.engine_name, {})[replica] = resident

    def residents(self, version: Version) -> Mapping[str, Resident]:
        """By replica, for those whose engine knows the version."""
        return self._found.get(version.engine_name or "", {})

    def tiers(self, version: Version) -> Mapping[str, Tier]:
        """By replica; `disk` or `remote` where the engine does not hold it."""
        below = self.below(version)
        found = self.residents(version)
        if not found:
            return self._outside[below]
        return {
            replica: below if (resident := found.get(replica)) is None else nearer(resident.tier, below)
            for replica in self.replicas
        }

    def best(self, version: Version) -> Tier:
        """Over all replicas; where there are none, `disk` or `remote`."""
        return min(self.tiers(version).values(), key=lambda tier: tier.depth, default=self.below(version))

    def below(self, version: Version) -> Tier:
        """Where it is outside the engines."""
        return Tier.DISK if version.digest in self.disk else Tier.REMOTE


def nearer(reported: Tier, below: Tier) -> Tier:
    """An engine that only knows the name has nothing that the disk tier has not."""
    return reported if reported in _IN_ENGINE else below


def in_order(residents: Iterable[Resident]) -> list[Resident]:
    """Nearest tier first, and within it what was used the longest time ago."""
    return sorted(residents, key=lambda each: (each.tier.depth, each.recency, each.engine_name))


def slots(residents: Iterable[Resident]) -> Occupancy:
    """Of the GPU's slots."""
    return _occupancy(residents, (Tier.GPU,))


def host(residents: Iterable[Resident]) -> Occupancy:
    """Of host memory: what is in a slot keeps its copy there."""
    return _occupancy(residents, _IN_ENGINE)


def by_tier(residents: Sequence[Resident]) -> dict[Tier, Occupancy]:
    """Each adapter once, in the best tier that it is in. Its pin counts in the tier that it is pinned in."""
    found = {}
    for tier in _IN_ENGINE:
        there = [each.size_bytes for each in residents if each.tier is tier]
        found[tier] = Occupancy(len(there), sum(each.pin is tier for each in residents), sum(there))
    return found


def _occupancy(residents: Iterable[Resident], tiers: tuple[Tier, ...]) -> Occupancy:
    there = [each for each in residents if each.tier in tiers]
    return Occupancy(len(there), sum(each.pin in tiers for each in there), sum(each.size_bytes for each in there))
