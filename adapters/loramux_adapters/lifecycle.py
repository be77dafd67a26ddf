"""Runs operations: an adapter arriving, a version leaving. DESIGN section 3 has the states.

Every step can be run again: after a crash, `resume` begins each unfinished operation anew, and what it had done
already is found done. An operation was acknowledged when its row was committed; it ends as succeeded or failed, never
as forgotten.
"""

import asyncio
from dataclasses import replace
from functools import partial

import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential

from loramux_adapters.errors import EngineError, LoramuxError, StorageError
from loramux_adapters.events import EventLog
from loramux_adapters.library import Library
from loramux_adapters.manager import AdapterManager
from loramux_adapters.model import (
    Failure,
    Operation,
    OperationKind,
    Target,
    Tier,
    Version,
    VersionState,
)
from loramux_adapters.pointers import Pointers
from loramux_adapters.ports import Clock, LoadOutcome, TierObserver
from loramux_adapters.progress import ProgressBoard
from loramux_adapters.registry import Registry
from loramux_adapters.snapshot import target_of

_log = structlog.get_logger(__name__)

_ENGINE_PATIENCE_S = 900.0
"""How long an arriving version waits for an engine that is being restarted."""


class Lifecycle:
    """Owns the tasks of operations under way. `close` ends them; `resume` takes them up again."""

    def __init__(
        self,
        registry: Registry,
        manager: AdapterManager,
        library: Library,
        pointers: Pointers,
        progress: ProgressBoard,
        events: EventLog,
        clock: Clock,
        observer: TierObserver,
    ) -> None:
        self._registry = registry
        self._manager = manager
        self._library = library
        self._pointers = pointers
        self._progress = progress
        self._events = events
        self._clock = clock
        self._observer = observer
        self._running: dict[str, tuple[Operation, asyncio.Task[None]]] = {}
        self._closing = False

    async def resume(self) -> None:
        """Begin what the last process left unfinished."""
        for operation in await asyncio.to_thread(self._registry.store.unfinished_operations):
            self.begin(operation)

    def begin(self, operation: Operation) -> None:
        """Run an operation in the background. No effect where it runs already."""
        if operation.id in self._running or operation.state.finished:
            return
        task = asyncio.create_task(self._run(operation), name=f"operation {operation.id}")
        self._running[operation.id] = (operation, task)
        task.add_done_callback(lambda _: self._running.pop(operation.id, None))

    async def wait(self, operation_id: str) -> Operation:
        """The operation when it has ended. A caller who leaves does not end it."""
        running = self._running.get(operation_id)
        if running is not None:
            await asyncio.wait([running[1]])
        return await self.operation(operation_id)

    async def operation(self, operation_id: str) -> Operation:
        """With its progress. Raises `OperationNotFound`."""
        stored = await asyncio.to_thread(self._registry.store.operation, operation_id)
        return self._progress.onto(stored)

    async def close(self) -> None:
        """End all tasks; what they were at is taken up by the next process."""
        self._closing = True
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, operation: Operation) -> None:
        log = _log.bind(operation=operation.id, adapter=operation.adapter, version=operation.version)
        try:
            await asyncio.to_thread(self._registry.store.start_operation, operation.id)
            if operation.kind in (OperationKind.ADD, OperationKind.UPDATE):
                await self._arrive(operation)
            elif operation.kind is OperationKind.DELETE_ADAPTER:
                await self._delete_adapter(operation)
            else:
                await self._delete_version(operation)
            self._events.publish("operation.succeeded", operation.adapter, operation.version, operation=operation.id)
            log.info("operation succeeded", kind=operation.kind)
        except LoramuxError as error:
            await self._fail(operation, Failure(error.code, error.message, error.retryable))
            log.warning("operation failed", kind=operation.kind, code=error.code, reason=error.message)
        except Exception:  # a fault of ours: the operation must still end, with the trace in the log
            log.exception("operation broke", kind=operation.kind)
            await self._fail(operation, Failure("internal_error", "The gateway failed; its log says where."))
        finally:
            self._progress.forget(operation.id)

    async def _fail(self, operation: Operation, failure: Failure) -> None:
        store, now = self._registry.store, self._clock.now()
        try:
            if operation.version is not None and operation.kind in (OperationKind.ADD, OperationKind.UPDATE):
                await self._registry.change(
                    store.fail_version, operation.id, operation.adapter, operation.version, failure, now
                )
            else:
                await self._registry.change(store.fail_operation, operation.id, failure, now)
        except StorageError as error:  # it stays unfinished, and the next start takes it up
            _log.error("the registry did not take a failure", operation=operation.id, reason=error.message)
        self._events.publish(
            "operation.failed",
            operation.adapter,
            operation.version,
            operation=operation.id,
            code=failure.code,
            message=failure.message,
        )

    # --- arriving ---

    async def _arrive(self, operation: Operation) -> None:
        version = await self._version(operation)
        try:
            await self._bring(operation, version)
        finally:
            if not self._closing:  # else the next process fetches it again
                await self._library.forget(version.source)

    async def _bring(self, operation: Operation, version: Version) -> None:
        version = await self._enter(operation, version, VersionState.FETCHING)
        started = self._clock.monotonic()
        ok = False

        async def validating() -> None:
            nonlocal version
            version = await self._enter(operation, version, VersionState.VALIDATING)

        try:
            artifact, info = await self._library.acquire(
                version.source, self._progress.reporter(operation.id), validating
            )
            ok = True
        finally:
            outcome: LoadOutcome = "ok" if ok else "failed"
            self._observer.adapter_loaded(Tier.REMOTE, Tier.DISK, outcome, self._clock.monotonic() - started)
        version = replace(version, digest=artifact.digest, size_bytes=artifact.size_bytes, info=info)
        version = await self._enter(operation, version, VersionState.STAGING)
        ready = replace(version, state=VersionState.READY, ready_at=self._clock.now())
        target = target_of(ready)
        assert target is not None
        before = self._registry.snapshot.state.adapters.get(version.adapter)
        try:
            await self._stage(target)
            after = await self._registry.change(
                self._registry.store.finish_version, operation.id, ready, self._clock.now()
            )
        except LoramuxError:
            self._pointers.release(target.engine_name, "failed")
            raise
        self._events.publish("version.ready", version.adapter, version.number, digest=artifact.digest)
        if after.live == version.number:
            self._events.publish("version.promoted", version.adapter, version.number)
        self._pointers.release_replaced(before, after)
        if after.live != version.number and after.canary != version.number:
            self._pointers.release(target.engine_name, "not_live")

    async def _enter(self, operation: Operation, version: Version, state: VersionState) -> Version:
        version = replace(version, state=state)
        await self._registry.change(self._registry.store.save_version, version)
        self._progress.enter(operation.id, state)
        self._events.publish(f"version.{state}", version.adapter, version.number)
        return version

    async def _version(self, operation: Operation) -> Version:
        state = await asyncio.to_thread(self._registry.store.state)
        assert operation.version is not None
        version = state.versions.get((operation.adapter, operation.version))
        if version is None:
            raise LoramuxError("The version was deleted before it arrived.")
        return version

    async def _stage(self, target: Target) -> None:
        """On every replica that is there; waits for engines that are being restarted."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, EngineError) and error.retryable),
            wait=wait_exponential(multiplier=0.2, max=5.0),
            stop=stop_after_delay(_ENGINE_PATIENCE_S),
            reraise=True,
        ):
            with attempt:
                await self._manager.stage_everywhere(target)

    # --- leaving ---

    async def _delete_adapter(self, operation: Operation) -> None:
        arriving = [
            task
            for other, task in self._running.values()
            if other.adapter == operation.adapter and other.id != operation.id
        ]
        if arriving:
            await asyncio.wait(arriving)  # they end at `finish_version` at the latest: the adapter is busy
        versions = [
            version
            for (adapter, _), version in self._registry.snapshot.state.versions.items()
            if adapter == operation.adapter
        ]
        await self._remove(versions)
        await self._registry.change(
            self._registry.store.finish_delete_adapter, operation.id, operation.adapter, self._clock.now()
        )
        self._events.publish("adapter.deleted", operation.adapter)

    async def _delete_version(self, operation: Operation) -> None:
        version = await self._version(operation)
        await self._remove([version])
        await self._registry.change(
            self._registry.store.finish_delete_version,
            operation.id,
            version.adapter,
            version.number,
            self._clock.now(),
        )
        self._events.publish("version.deleted", version.adapter, version.number)

    async def _remove(self, leaving: list[Version]) -> None:
        """Drain, free the engines, then delete the files that no other version shares."""
        for name in {version.engine_name for version in leaving if version.engine_name}:
            await self._manager.retire(name, "deleted", partial(self._shared, name, leaving))
        keys = {(version.adapter, version.number) for version in leaving}
        shared = {
            version.digest
            for key, version in self._registry.snapshot.state.versions.items()
            if key not in keys and version.state is not VersionState.DELETED
        }
        for digest in {version.digest for version in leaving if version.digest} - shared:
            await self._library.remove(digest)

    def _shared(self, engine_name: str, leaving: list[Version]) -> bool:
        """Whether a version that stays has the same engine name."""
        keys = {(version.adapter, version.number) for version in leaving}
        return engine_name in self._registry.snapshot.wanted or any(
            version.engine_name == engine_name and version.state is VersionState.READY
            for key, version in self._registry.snapshot.state.versions.items()
            if key not in keys
        )
