"""What names mean, frozen at one generation of the registry. Pure; swapped whole when the registry changes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from loramux_adapters.errors import ModelNotFound
from loramux_adapters.model import (
    UPLOAD_SCHEME,
    Adapter,
    AdapterState,
    RegistryState,
    Split,
    Target,
    Tier,
    Version,
    VersionState,
)


@dataclass(frozen=True, slots=True)
class Previous:
    """Where a rollback of an adapter leads; `moved_at` is when its live pointer moved last, in Unix seconds."""

    target: Target
    moved_at: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`names` holds every adapter and alias that answers. `wanted` are the targets that names lead to, by engine
    name; `pins` has the tier below which some of them may not fall in the engines. `previous` are those where a
    rollback leads."""

    generation: int
    base: Target
    state: RegistryState
    names: Mapping[str, Split] = field(default_factory=dict)
    wanted: Mapping[str, Target] = field(default_factory=dict)
    pins: Mapping[str, Tier] = field(default_factory=dict)
    previous: tuple[Previous, ...] = ()

    @property
    def pinned(self) -> frozenset[str]:
        """Those of `wanted` that may not leave host memory."""
        return frozenset(self.pins)

    def resolve(self, model: str, draw: float) -> Target:
        """The target of `model`: a base, an adapter, an alias, or `adapter@number`. `draw` in [0, 1) takes the
        canary where it is below its weight. Raises `ModelNotFound`."""
        split = self.names.get(model)
        if split is not None:
            return split.pick(draw)
        if model == self.base.adapter:
            return self.base
        target = self._numbered(model)
        if target is None:
            raise ModelNotFound(f"The model {model!r} does not exist.")
        return target

    def _numbered(self, model: str) -> Target | None:
        name, at, number = model.rpartition("@")
        if not at or not (number.isascii() and number.isdigit()) or len(number) > 9:
            return None
        adapter = self.state.adapters.get(name)
        version = self.state.versions.get((name, int(number)))
        if adapter is None or adapter.state is not AdapterState.ACTIVE:
            return None
        return target_of(version)

    def kept(self, since: float) -> frozenset[Target]:
        """Where rollbacks lead of adapters whose live pointer moved after `since`."""
        return frozenset(previous.target for previous in self.previous if previous.moved_at > since)

    @property
    def protected_digests(self) -> frozenset[str]:
        """Artifacts that may not leave the disk: of versions that names lead to, of pinned adapters, and those
        that came as an upload, of which there is no other copy."""
        found = {target.digest for target in self.wanted.values() if target.digest}
        for version in self.state.versions.values():
            if version.state in (VersionState.DELETED, VersionState.FAILED) or version.digest is None:
                continue
            adapter = self.state.adapters.get(version.adapter)
            pinned = adapter is not None and adapter.pin is not None and adapter.live == version.number
            if pinned or version.source.startswith(UPLOAD_SCHEME) or version.state.arriving:
                found.add(version.digest)
        return frozenset(found)


def target_of(version: Version | None) -> Target | None:
    """The target of a version that can answer, None of any other."""
    if version is None or version.state is not VersionState.READY or version.engine_name is None:
        return None
    return Target(version.adapter, version.engine_name, version.number, version.digest)


def build(state: RegistryState, base_name: str) -> Snapshot:
    names: dict[str, Split] = {}
    for adapter in state.adapters.values():
        split = _split(adapter, state)
        if split is not None:
            names[adapter.name] = split
    for alias in state.aliases.values():
        if alias.version is None:
            through = names.get(alias.adapter)
        else:
            target = target_of(state.versions.get((alias.adapter, alias.version)))
            through = None if target is None else Split(target)
        if through is not None:
            names[alias.name] = through
    wanted = {
        target.engine_name: target
        for split in names.values()
        for target in (split.live, split.canary)
        if target is not None
    }
    pins = {
        split.live.engine_name: pin
        for name, split in names.items()
        if name in state.adapters and (pin := state.adapters[name].pin) in (Tier.GPU, Tier.CPU)
    }
    return Snapshot(
        generation=state.generation,
        base=Target(adapter=base_name, engine_name=base_name),
        state=state,
        names=names,
        wanted=wanted,
        pins=pins,
        previous=tuple(
            Previous(target, adapter.live_since)
            for adapter in state.adapters.values()
            if adapter.previous is not None and adapter.live_since is not None
            if (target := target_of(state.versions.get((adapter.name, adapter.previous)))) is not None
        ),
    )


def _split(adapter: Adapter, state: RegistryState) -> Split | None:
    if adapter.state is not AdapterState.ACTIVE or adapter.live is None:
        return None
    live = target_of(state.versions.get((adapter.name, adapter.live)))
    if live is None:
        return None
    canary = None
    if adapter.canary is not None:
        canary = target_of(state.versions.get((adapter.name, adapter.canary)))
    return Split(live, canary, adapter.canary_weight if canary else 0.0, adapter.canary_sticky)


def sticky_draw(sticky: str, adapter: str) -> float:
    """The same number in [0, 1) for the same text and adapter, in every process, evenly spread over texts."""
    digest = hashlib.blake2b(f"{adapter}\0{sticky}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53  # what a float holds exactly, so that 1.0 does not come out
