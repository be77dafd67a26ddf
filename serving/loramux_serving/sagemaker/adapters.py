"""Adapter components: adapters of the registry, as SageMaker's clients see them; pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from loramux_adapters.model import Adapter, AdapterState, RegistryState, Version, VersionState
from loramux_serving.sagemaker.shapes.components import FAILURE_REASON_LENGTH, ComponentStatus


@dataclass(frozen=True, slots=True)
class Seen:
    """An adapter as a component. `source` is where the live version came from, or the newest where none is live;
    `reason` why the newest failed."""

    adapter: Adapter
    status: ComponentStatus
    source: str
    modified_at: float
    reason: str | None = None


def see(state: RegistryState, name: str) -> Seen | None:
    """None where there is no adapter of that name."""
    return next(see_all(state, frozenset([name])), None)


def see_all(state: RegistryState, only: frozenset[str] | None = None) -> Iterator[Seen]:
    newest: dict[str, Version] = {}
    arriving: set[str] = set()
    for version in state.versions.values():
        name = version.adapter
        if (only is None or name in only) and version.state is not VersionState.DELETED:
            before = newest.get(name)
            if before is None or before.number < version.number:
                newest[name] = version
            if version.state.arriving:
                arriving.add(name)
    for name in state.adapters if only is None else only & state.adapters.keys():
        adapter = state.adapters[name]
        live = None if adapter.live is None else state.versions.get((name, adapter.live))
        yield _seen(adapter, live, newest.get(name), name in arriving)


def _seen(adapter: Adapter, live: Version | None, newest: Version | None, arriving: bool) -> Seen:
    shown = live or newest
    times = [adapter.updated_at, adapter.created_at]
    if newest is not None:
        times += [newest.created_at, newest.ready_at or 0.0]
    reason = newest.failure.message if newest is not None and newest.failure is not None else None
    return Seen(
        adapter=adapter,
        status=_status(adapter, live, newest, arriving),
        source="" if shown is None else shown.source,
        modified_at=max(times),
        reason=None if reason is None else reason[:FAILURE_REASON_LENGTH],
    )


def _status(adapter: Adapter, live: Version | None, newest: Version | None, arriving: bool) -> ComponentStatus:
    """A failed update leaves what was in service before, as in the service."""
    if adapter.state is AdapterState.DELETING:
        return "Deleting"
    begun: Literal["Creating", "Updating"] = "Updating" if newest is not None and newest.number > 1 else "Creating"
    if live is None:
        return begun if arriving else "Failed"
    return "Updating" if arriving else "InService"
