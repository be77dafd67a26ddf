"""The gateway while it runs: what starts, in which order, and what ends."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog

from loramux_adapters.errors import LoramuxError
from loramux_adapters.model import Target
from loramux_adapters.ports import LoraEngine
from loramux_adapters.snapshot import Snapshot, target_of
from loramux_serving.services import Services

_log = structlog.get_logger(__name__)


class Gateway:
    """Ties the parts together. Entered once, by the application's lifespan."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._restarts: dict[str, int] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Registry first, then engines, then what the last process left unfinished; the reverse at the end. Raises
        `LoramuxError` where the registry can not be opened."""
        services = self._services
        services.registry.on_publish(self._published)
        services.metrics.before_scrape(self._scraped)
        await services.registry.open()
        await services.sagemaker.open()
        await services.key_desk.open()
        await asyncio.to_thread(services.uploads.open, self._awaited_uploads())
        async with AsyncExitStack() as stack:
            stack.callback(services.request_log.flush)
            stack.callback(services.records.flush)
            stack.push_async_callback(services.http.aclose)
            stack.push_async_callback(services.relay.close)
            await stack.enter_async_context(services.copies)
            stack.push_async_callback(services.manager.close)
            stack.push_async_callback(services.pointers.close)
            stack.push_async_callback(services.lifecycle.close)
            await services.lifecycle.resume()
            await stack.enter_async_context(_task(services.sagemaker.run(), "sagemaker"))
            await stack.enter_async_context(_task(self._sweep(), "sweep"))
            await stack.enter_async_context(_task(self._ask_engines(), "reports"))
            if services.settings.tiers.prefetch_interval_s > 0:
                await stack.enter_async_context(_task(self._prefetch(), "prefetch"))
            await stack.enter_async_context(_task(services.canaries.run(), "canaries"))
            yield

    async def attach(self, engine: LoraEngine) -> None:
        """Reconcile a replica that has come up, before it takes requests. Raises `EngineError`."""
        services = self._services
        on_disk = {artifact.digest for artifact in await services.library.entries()}
        await services.manager.attach(
            engine,
            known=lambda: {target.engine_name: target for target in _targets(services.registry.snapshot)},
            first=lambda: self._first(services.registry.snapshot, on_disk),
        )
        services.events.publish("replica.attached", replica=engine.replica_id)

    def detach(self, replica_id: str) -> None:
        """Forget at once what a replica held. Once or more often."""
        if replica_id in self._services.manager.replicas:
            self._services.manager.detach(replica_id)
            self._services.events.publish("replica.lost", replica=replica_id)

    def _first(self, snapshot: Snapshot, on_disk: Collection[str]) -> tuple[Target, ...]:
        """What a replica stages before it takes requests: all that is pinned, then as many as fit beside it in slots,
        if they are on disk: those in highest demand, and then those changed last."""
        manager = self._services.manager
        pinned = [snapshot.wanted[name] for name in snapshot.pins]
        likely = sorted(
            (target for name, target in snapshot.wanted.items() if name not in snapshot.pins),
            key=lambda target: (manager.demand(target.engine_name), snapshot.state.adapters[target.adapter].updated_at),
            reverse=True,
        )
        room = max(0, self._services.settings.engine.max_loras - len(pinned))
        return (*pinned, *[target for target in likely if target.digest in on_disk][:room])

    def _awaited_uploads(self) -> set[str]:
        versions = self._services.registry.snapshot.state.versions.values()
        return {version.source for version in versions if version.state.arriving}

    def _published(self, snapshot: Snapshot) -> None:
        adapters = snapshot.state.adapters
        self._services.metrics.live_versions(
            {name: adapter.live for name, adapter in adapters.items()},
            {name: adapter.canary for name, adapter in adapters.items() if adapter.canary is not None},
        )
        self._services.usage.keep(adapters.keys() | {snapshot.base.adapter})

    def _scraped(self) -> None:
        services = self._services
        services.records.flush()
        services.metrics.replicas_wanted(services.copies.wanted)
        load = services.admission.snapshot()
        services.metrics.queued({adapter: each.queued for adapter, each in load.adapters.items()})
        for status in services.fleet.statuses():
            services.metrics.outstanding(status.id, status.outstanding)
            services.metrics.replica_state(status.id, status.state)
            for _ in range(status.restarts - self._restarts.get(status.id, 0)):
                services.metrics.engine_restarted(status.id)
            self._restarts[status.id] = status.restarts

    async def _sweep(self) -> None:
        """Free what was called by number and is idle."""
        services = self._services
        idle_s = services.settings.registry.idle_evict_s
        while True:
            await asyncio.sleep(max(idle_s / 2, 1.0))
            try:
                await services.manager.sweep(services.pointers.needed, idle_s)
            except LoramuxError as error:
                _log.warning("sweep failed", code=error.code, reason=error.message)

    async def _ask_engines(self) -> None:
        """Keep what is shown of the tiers, and the pins in the engines, up to date."""
        while True:
            await asyncio.sleep(self._services.settings.tiers.report_interval_s)
            self._services.manager.refresh_soon()

    async def _prefetch(self) -> None:
        services = self._services
        while True:
            await asyncio.sleep(services.settings.tiers.prefetch_interval_s)
            services.manager.prefetch_by_demand(services.registry.snapshot.wanted)


def _targets(snapshot: Snapshot) -> list[Target]:
    """Every version that can answer, wanted ones last, so that they win where an engine name is shared."""
    ready = [target for version in snapshot.state.versions.values() if (target := target_of(version)) is not None]
    return [*ready, *snapshot.wanted.values()]


@asynccontextmanager
async def _task(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
