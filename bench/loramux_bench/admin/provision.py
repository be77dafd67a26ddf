"""Adapters that the bench uploads for a run."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial

from loramux_bench.admin.artifact import Artifact
from loramux_bench.admin.client import AdminClient, CallFailed
from loramux_bench.admin.patience import Tell
from loramux_bench.admin.restoration import Restoration
from loramux_bench.errors import EndpointError
from loramux_bench.scenario import Provision, find_source

_AT_A_TIME = 3
_BUSY_S = 0.5
_BUSY_TRIES = 60


def names_of(provision: Provision) -> tuple[str, ...]:
    """`bench-000`, `bench-001`, …"""
    return tuple(f"{provision.prefix}-{number:03}" for number in range(provision.count))


def provide(
    client: AdminClient,
    provision: Provision,
    restoration: Restoration,
    *,
    tell: Tell,
    sleep: Callable[[float], object],
) -> tuple[str, ...]:
    """Upload them all, and owe their deletion unless they are kept. What an earlier run has left of the same names is
    replaced; an adapter of such a name that was not uploaded is somebody else's.

    Raises `EndpointError` (also for such an adapter, before anything is uploaded) and `ScenarioError` for a source that
    is no adapter.
    """
    names = names_of(provision)
    artifact = Artifact.read(find_source(provision.source))
    _refuse_others(client, names)
    pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="provision")
    try:
        began = [
            pool.submit(_provide_one, client, artifact, name, None if provision.keep else restoration, sleep)
            for name in names
        ]
        for done, future in enumerate(as_completed(began), 1):
            future.result()
            tell("Uploading adapters", done, len(names))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return names


def _refuse_others(client: AdminClient, names: tuple[str, ...]) -> None:
    wanted = set(names)
    taken = [
        adapter.name
        for adapter in client.adapters()
        if adapter.name in wanted and not all(version.uploaded for version in adapter.versions)
    ]
    if taken:
        raise EndpointError(
            f"{client.url} has adapters of these names that no bench has uploaded: {', '.join(taken)}. "
            f"Give adapters.provision another prefix."
        )


def _provide_one(
    client: AdminClient,
    artifact: Artifact,
    name: str,
    restoration: Restoration | None,
    sleep: Callable[[float], object],
) -> None:
    if restoration is not None:
        restoration.owe(f"delete the adapter {name!r}", partial(client.delete, name))
    for last in (False,) * _BUSY_TRIES + (True,):
        try:
            client.wait(client.upload(name, artifact.archive(name)))
        except CallFailed as failure:
            # An earlier run's deletion is still under way.
            if failure.code != "adapter_busy" or last:
                raise
            sleep(_BUSY_S)
        else:
            return
