"""Runs operations: an adapter arriving, a version leaving. DESIGN section 3 has the states.

Every step can be run again: after a crash, `resume` begins each unfinished operation anew, and what it had done
already is found done. An operation was acknowledged when its row was committed; it ends as succeeded or failed, never
as forgotten.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import structlog
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
)

from loramux_adapters.errors import EngineError, LoramuxError, OperationInterrupted, StorageError, VersionNotFound
from loramux_adapters.events import EventLog
from loramux_adapters.library import Library
from loramux_adapters.manager import AdapterManager
from loramux_adapters.model import (
    AdapterInfo,
    AdapterState,
    Artifact,
    Failure,
    Operation,
    OperationKind,
    OperationState,
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


@dataclass(slots=True, eq=False)
class _Run:
    """An operation under way. `source` and `engine_name` are what it has taken up and may have to leave again."""

    operation: Operation
    task: asyncio.Task[None] | None = None
    source: str | None = None
    engine_name: str | None = None


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
        self._running: dict[str, _Run] = {}
        self._closing = False

    async def resume(self) -> None:
        """Begin what the last process left unfinished."""
        for operation in await asyncio.to_thread(self._registry.store.unfinished_operations):
            self.begin(operation)

    def begin(self, operation: Operation) -> None:
        """Run an operation in the background. No effect where it runs already, or where `close` was called: then the
        next process begins it."""
        if self._closing or operation.id in self._running or operation.state.finished:
            return
        run = self._running[operation.id] = _Run(operation)
        run.task = asyncio.create_task(self._run(run), name=f"operation {operation.id}")
        run.task.add_done_callback(lambda _: self._running.pop(operation.id, None))

    async def wait(self, operation_id: str) -> Operation:
        """The operation when it has ended. A caller who leaves does not end it. Raises `OperationNotFound`, and
        `OperationInterrupted` where the gateway stops first."""
        run = self._running.get(operation_id)
        if run is not None and run.task is not None:
            await asyncio.wait([run.task])
        operation = await self.operation(operation_id)
        if not operation.state.finished and (run is not None or self._closing):
            raise OperationInterrupted("The gateway stopped before this was done; it goes on when it is back.")
        return operation

    async def operation(self, operation_id: str) -> Operation:
        """With its progress. Raises `OperationNotFound`."""
        stored = await asyncio.to_thread(self._registry.store.operation, operation_id)
        return self._progress.onto(stored)

    async def close(self) -> None:
        """End all tasks; what they were at is taken up by the next process."""
        self._closing = True
        tasks = [run.task for run in self._running.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, run: _Run) -> None:
        operation = run.operation
        log = _log.bind(operation=operation.id, adapter=operation.adapter, version=operation.version)
        try:
            try:
                await self._perform(run)
            except LoramuxError as error:
                log.warning("operation failed", kind=operation.kind, code=error.code, reason=error.message)
                ended = await self._fail(run, Failure(error.code, error.message, error.retryable))
            except Exception:  # a fault of ours: the operation must still end, with the trace in the log
                log.exception("operation broke", kind=operation.kind)
                ended = await self._fail(run, Failure("internal_error", "The gateway failed; its log says where."))
            else:
                ended = replace(operation, state=OperationState.SUCCEEDED)
            self._announce(ended)
            if run.source is not None:
                await self._forget(run.source)
        except LoramuxError as error:
            log.error("a failure could not be kept", kind=operation.kind, reason=error.message)
        finally:
            self._progress.forget(operation.id)

    async def _forget(self, source: str) -> None:
        """What was sent to us stays on the disk at worst: no reason for an operation to fail."""
        try:
            await self._library.forget(source)
        except LoramuxError as error:
            _log.warning("a source was not forgotten", source=source, reason=error.message)

    def _announce(self, ended: Operation) -> None:
        _log.info("operation ended", operation=ended.id, adapter=ended.adapter, kind=ended.kind, state=ended.state)
        why = {} if ended.failure is None else {"code": ended.failure.code, "message": ended.failure.message}
        self._events.publish(f"operation.{ended.state}", ended.adapter, ended.version, operation=ended.id, **why)

    async def _perform(self, run: _Run) -> None:
        operation = run.operation
        await asyncio.to_thread(self._registry.store.start_operation, operation.id)
        if operation.kind in (OperationKind.ADD, OperationKind.UPDATE):
            await self._arrive(run)
        elif operation.kind is OperationKind.DELETE_ADAPTER:
            await self._delete_adapter(operation)
        else:
            await self._delete_version(operation)

    async def _fail(self, run: _Run, failure: Failure) -> Operation:
        """Keep the failure, however long the database takes to answer. Gives the operation as it ended: a change of
        which nobody knew whether it was done may have been done."""
        operation, store = run.operation, self._registry.store
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(StorageError), wait=wait_exponential(multiplier=0.2, max=30.0)
        ):
            with attempt:
                now = self._clock.now()
                if operation.version is not None and operation.kind in (OperationKind.ADD, OperationKind.UPDATE):
                    await self._registry.change(
                        store.fail_version, operation.id, operation.adapter, operation.version, failure, now
                    )
                else:
                    await self._registry.change(store.fail_operation, operation.id, failure, now)
                operation = await asyncio.to_thread(store.operation, operation.id)
        if run.engine_name is not None:
            self._pointers.release(run.engine_name, "failed")
        return operation

    # --- arriving ---

    async def _arrive(self, run: _Run) -> None:
        operation = run.operation
        version = self._version(operation)
        run.source = version.source
        version = await self._enter(operation, version, VersionState.FETCHING)
        async with self._fetched(operation, version) as (artifact, info):
            version = replace(version, digest=artifact.digest, size_bytes=artifact.size_bytes, info=info)
            version = await self._enter(operation, version, VersionState.STAGING)
            ready = replace(version, state=VersionState.READY, ready_at=self._clock.now())
            target = target_of(ready)
            assert target is not None
            run.engine_name = target.engine_name
            async with self._staged(target):
                after = await self._registry.change(
                    self._registry.store.finish_version, operation.id, ready, self._clock.now()
                )
        self._events.publish("version.ready", version.adapter, version.number, digest=artifact.digest)
        if after.live == version.number:
            self._events.publish("version.promoted", version.adapter, version.number)
        elif after.canary == version.number:
            self._events.publish("canary.changed", version.adapter, version.number, weight=after.canary_weight)
        self._pointers.release(target.engine_name, "not_live")

    @asynccontextmanager
    async def _fetched(self, operation: Operation, version: Version) -> AsyncIterator[tuple[Artifact, AdapterInfo]]:
        """The version's artifact, kept on disk for the length of the block at least."""
        started = self._clock.monotonic()
        outcome: LoadOutcome = "failed"

        async def validating() -> None:
            await self._enter(operation, version, VersionState.VALIDATING)

        reporter = self._progress.reporter(operation.id)
        async with AsyncExitStack() as stack:
            try:
                found = await stack.enter_async_context(self._library.acquire(version.source, reporter, validating))
                outcome = "ok"
            finally:
                self._observer.adapter_loaded(Tier.REMOTE, Tier.DISK, outcome, self._clock.monotonic() - started)
            yield found

    async def _enter(self, operation: Operation, version: Version, state: VersionState) -> Version:
        version = replace(version, state=state)
        await self._registry.change(self._registry.store.save_version, version)
        self._progress.enter(operation.id, state)
        self._events.publish(f"version.{state}", version.adapter, version.number)
        return version

    def _version(self, operation: Operation) -> Version:
        """Raises `VersionNotFound` where it was deleted meanwhile."""
        assert operation.version is not None
        version = self._registry.snapshot.state.versions.get((operation.adapter, operation.version))
        if version is None:
            raise VersionNotFound(f"Version {operation.version} of {operation.adapter!r} was deleted.")
        return version

    @asynccontextmanager
    async def _staged(self, target: Target) -> AsyncIterator[None]:
        """On every replica that is there; waits for engines that are being restarted, unless the adapter goes."""

        def worth_waiting(error: BaseException) -> bool:
            adapter = self._registry.snapshot.state.adapters.get(target.adapter)
            stays = adapter is not None and adapter.state is AdapterState.ACTIVE
            return stays and isinstance(error, EngineError) and error.retryable

        async with AsyncExitStack() as stack:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(worth_waiting),
                wait=wait_exponential(multiplier=0.2, max=5.0),
                stop=stop_after_delay(_ENGINE_PATIENCE_S),
                reraise=True,
            ):
                with attempt:
                    await stack.enter_async_context(self._manager.hold(target))
            yield

    # --- leaving ---

    async def _delete_adapter(self, operation: Operation) -> None:
        arriving = [
            run.task
            for run in self._running.values()
            if run.operation.adapter == operation.adapter and run.operation.id != operation.id and run.task is not None
        ]
        if arriving:
            await asyncio.wait(arriving)  # they end at their next step: the adapter is busy
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
        version = self._version(operation)
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
        keys = frozenset((version.adapter, version.number) for version in leaving)
        for name in {version.engine_name for version in leaving if version.engine_name}:
            await self._manager.retire(name, "deleted", partial(self._name_shared, name, keys), end_requests=True)
        for digest in {version.digest for version in leaving if version.digest}:
            await self._library.remove(digest, partial(self._content_shared, digest, keys))
        for source in {version.source for version in leaving}:
            await self._forget(source)

    def _name_shared(self, engine_name: str, leaving: frozenset[tuple[str, int]]) -> bool:
        """Whether a version that stays or arrives has the same engine name."""
        return any(
            version.engine_name == engine_name and (version.state is VersionState.READY or version.state.arriving)
            for key, version in self._registry.snapshot.state.versions.items()
            if key not in leaving
        )

    def _content_shared(self, digest: str, leaving: frozenset[tuple[str, int]]) -> bool:
        return any(
            version.digest == digest and version.state is not VersionState.DELETED
            for key, version in self._registry.snapshot.state.versions.items()
            if key not in leaving
        )
