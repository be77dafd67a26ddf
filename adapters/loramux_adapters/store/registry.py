"""Adapters, versions, aliases and operations: each method of `ports.RegistryStore` is one transaction here."""

from collections.abc import Sequence
from uuid import uuid4

from sqlalchemy import Connection, delete, exists, insert, select, update

from loramux_adapters.errors import (
    AdapterBusy,
    AdapterNotFound,
    AliasNotFound,
    Conflict,
    NameTaken,
    NoPreviousVersion,
    OperationNotFound,
    RequestInvalid,
    VersionInUse,
    VersionNotFound,
    VersionNotReady,
)
from loramux_adapters.model import (
    Adapter,
    AdapterState,
    Alias,
    Failure,
    Operation,
    OperationKind,
    OperationState,
    RegistryState,
    Tier,
    Version,
    VersionState,
)
from loramux_adapters.store.database import Database
from loramux_adapters.store.rows import (
    adapter_of,
    alias_of,
    failure_value,
    operation_of,
    version_of,
    version_values,
)
from loramux_adapters.store.tables import adapters, aliases, generation, live_history, operations, versions

_UNFINISHED = (OperationState.PENDING.value, OperationState.RUNNING.value)
_ARRIVING = tuple(state.value for state in VersionState if state.arriving)


class SqlRegistryStore:
    """`ports.RegistryStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> RegistryState:
        oldest_first = select(adapters).order_by(adapters.c.created_at, adapters.c.name)
        with self._database.reading() as connection:
            return RegistryState(
                generation=connection.execute(select(generation.c.value)).scalar_one(),
                adapters={row.name: adapter_of(row) for row in connection.execute(oldest_first)},
                versions={(row.adapter, row.number): version_of(row) for row in connection.execute(select(versions))},
                aliases={row.name: alias_of(row) for row in connection.execute(select(aliases))},
            )

    # --- arriving versions ---

    def create_adapter(
        self, name: str, base: str, source: str, *, promote: bool | float, pin: Tier | None, now: float
    ) -> tuple[Adapter, Version, Operation]:
        with self._database.writing() as connection:
            if connection.execute(select(exists().where(aliases.c.name == name))).scalar_one():
                raise NameTaken(f"{name!r} is an alias; delete the alias or choose another name.")
            row = connection.execute(select(adapters).where(adapters.c.name == name)).one_or_none()
            if row is None:
                connection.execute(
                    insert(adapters).values(
                        name=name,
                        base=base,
                        state=AdapterState.ACTIVE.value,
                        canary_weight=0.0,
                        pin=pin.value if pin else None,
                        last_number=0,
                        created_at=now,
                        updated_at=now,
                    )
                )
            else:
                current = adapter_of(row)
                _refuse_deleting(current)
                alive = exists().where(
                    versions.c.adapter == name, versions.c.state.in_((*_ARRIVING, VersionState.READY.value))
                )
                if connection.execute(select(alive)).scalar_one():
                    raise NameTaken(f"Adapter {name!r} exists; add a version to it to update it.")
                _update_adapter(connection, name, now, base=base, pin=pin.value if pin else None)
            version, operation = _arrive(connection, OperationKind.ADD, name, source, promote, now)
            return _adapter(connection, name), version, operation

    def create_version(
        self, adapter: str, source: str, *, promote: bool | float, now: float
    ) -> tuple[Version, Operation]:
        with self._database.writing() as connection:
            _refuse_deleting(_adapter(connection, adapter))
            return _arrive(connection, OperationKind.UPDATE, adapter, source, promote, now)

    def save_version(self, version: Version) -> None:
        with self._database.writing() as connection:
            _refuse_deleting(_adapter(connection, version.adapter))
            _save_arriving(connection, version)

    def finish_version(self, operation_id: str, version: Version, now: float) -> Adapter:
        with self._database.writing() as connection:
            adapter = _adapter(connection, version.adapter)
            operation = _operation_by_id(connection, operation_id)
            if operation.state is OperationState.SUCCEEDED:
                return adapter
            _refuse_deleting(adapter)
            _save_arriving(connection, version)
            _finish(connection, operation_id, now)
            if operation.promote is False or (adapter.live is not None and adapter.live > version.number):
                return adapter
            if operation.promote is True or adapter.live is None:
                return _set_live(connection, adapter, version.number, now)
            return _update_adapter(
                connection, adapter.name, now, canary=version.number, canary_weight=operation.promote
            )

    def fail_version(self, operation_id: str, adapter: str, number: int, failure: Failure, now: float) -> None:
        with self._database.writing() as connection:
            connection.execute(
                update(versions)
                .where(versions.c.adapter == adapter, versions.c.number == number)
                .where(versions.c.state.in_(_ARRIVING))
                .values(state=VersionState.FAILED.value, failure=failure_value(failure))
            )
            _fail(connection, operation_id, failure, now)

    # --- pointers ---

    def promote(self, adapter: str, number: int, now: float) -> Adapter:
        with self._database.writing() as connection:
            current = _adapter(connection, adapter)
            _refuse_deleting(current)
            _refuse_unready(_version(connection, adapter, number))
            return _set_live(connection, current, number, now)

    def rollback_target(self, adapter: str) -> int:
        with self._database.reading() as connection:
            return _previous(connection, _adapter(connection, adapter))[1]

    def rollback(self, adapter: str, now: float) -> Adapter:
        with self._database.writing() as connection:
            current = _adapter(connection, adapter)
            _refuse_deleting(current)
            entry, number = _previous(connection, current)
            connection.execute(
                delete(live_history).where(live_history.c.adapter == adapter, live_history.c.id >= entry)
            )
            ends_canary = {"canary": None, "canary_weight": 0.0} if current.canary == number else {}
            return _update_adapter(connection, adapter, now, live=number, **ends_canary)

    def set_canary(self, adapter: str, number: int | None, weight: float, now: float) -> Adapter:
        with self._database.writing() as connection:
            current = _adapter(connection, adapter)
            _refuse_deleting(current)
            if number is None:
                return _update_adapter(connection, adapter, now, canary=None, canary_weight=0.0)
            _refuse_unready(_version(connection, adapter, number))
            if current.live is None or current.live == number:
                raise RequestInvalid(f"A canary of {adapter!r} needs a live version other than {number}.")
            return _update_adapter(connection, adapter, now, canary=number, canary_weight=weight)

    def set_pin(self, adapter: str, pin: Tier | None, now: float) -> Adapter:
        with self._database.writing() as connection:
            _refuse_deleting(_adapter(connection, adapter))
            return _update_adapter(connection, adapter, now, pin=pin.value if pin else None)

    def create_alias(self, name: str, adapter: str, version: int | None, now: float) -> Alias:
        with self._database.writing() as connection:
            if connection.execute(select(exists().where(adapters.c.name == name))).scalar_one():
                raise NameTaken(f"{name!r} is an adapter; choose another name for the alias.")
            _refuse_deleting(_adapter(connection, adapter))
            if version is not None:
                _refuse_unready(_version(connection, adapter, version))
            connection.execute(delete(aliases).where(aliases.c.name == name))
            connection.execute(insert(aliases).values(name=name, adapter=adapter, version=version, created_at=now))
            return Alias(name=name, adapter=adapter, version=version, created_at=now)

    def delete_alias(self, name: str) -> None:
        with self._database.writing() as connection:
            if connection.execute(delete(aliases).where(aliases.c.name == name)).rowcount == 0:
                raise AliasNotFound(f"There is no alias {name!r}.")

    # --- deletion ---

    def begin_delete_adapter(self, name: str, now: float) -> Operation:
        with self._database.writing() as connection:
            adapter = _adapter(connection, name)
            if adapter.state is AdapterState.DELETING:
                under_way = _under_way(connection, OperationKind.DELETE_ADAPTER, name, None)
                return under_way or _operation(connection, OperationKind.DELETE_ADAPTER, name, None, False, now)
            connection.execute(delete(aliases).where(aliases.c.adapter == name))
            connection.execute(
                update(versions)
                .where(versions.c.adapter == name, versions.c.state == VersionState.READY.value)
                .values(state=VersionState.DRAINING.value)
            )
            _update_adapter(
                connection,
                name,
                now,
                state=AdapterState.DELETING.value,
                live=None,
                canary=None,
                canary_weight=0.0,
            )
            return _operation(connection, OperationKind.DELETE_ADAPTER, name, None, False, now)

    def finish_delete_adapter(self, operation_id: str, name: str, now: float) -> None:
        with self._database.writing() as connection:
            if _operation_by_id(connection, operation_id).state.finished:
                return  # by another gateway: by now the name may be somebody else's
            connection.execute(delete(live_history).where(live_history.c.adapter == name))
            connection.execute(delete(versions).where(versions.c.adapter == name))
            connection.execute(delete(adapters).where(adapters.c.name == name))
            _finish(connection, operation_id, now)

    def begin_delete_version(self, adapter: str, number: int, now: float) -> Operation:
        with self._database.writing() as connection:
            current = _adapter(connection, adapter)
            _refuse_deleting(current)
            version = _version(connection, adapter, number)
            if version.state.arriving:
                raise Conflict(f"Version {number} of {adapter!r} is still arriving; delete it when that has ended.")
            if version.state is VersionState.DRAINING and _under_way(
                connection, OperationKind.DELETE_VERSION, adapter, number
            ):
                raise Conflict(f"Version {number} of {adapter!r} is being deleted already.")
            if number in (current.live, current.canary):
                raise VersionInUse(f"Version {number} of {adapter!r} takes traffic; promote another one first.")
            aliased = exists().where(aliases.c.adapter == adapter, aliases.c.version == number)
            if connection.execute(select(aliased)).scalar_one():
                raise VersionInUse(f"An alias names version {number} of {adapter!r}; delete the alias first.")
            connection.execute(
                delete(live_history).where(live_history.c.adapter == adapter, live_history.c.version == number)
            )
            connection.execute(
                update(versions)
                .where(versions.c.adapter == adapter, versions.c.number == number)
                .values(state=VersionState.DRAINING.value)
            )
            return _operation(connection, OperationKind.DELETE_VERSION, adapter, number, False, now)

    def finish_delete_version(self, operation_id: str, adapter: str, number: int, now: float) -> None:
        with self._database.writing() as connection:
            if _operation_by_id(connection, operation_id).state.finished:
                return
            connection.execute(
                update(versions)
                .where(versions.c.adapter == adapter, versions.c.number == number)
                .values(state=VersionState.DELETED.value)
            )
            _finish(connection, operation_id, now)

    # --- operations ---

    def operation(self, operation_id: str) -> Operation:
        with self._database.reading() as connection:
            return _operation_by_id(connection, operation_id)

    def unfinished_operations(self) -> Sequence[Operation]:
        with self._database.reading() as connection:
            query = select(operations).where(operations.c.state.in_(_UNFINISHED))
            rows = connection.execute(query.order_by(operations.c.created_at, operations.c.id))
            return tuple(operation_of(row) for row in rows)

    def start_operation(self, operation_id: str) -> None:
        with self._database.writing() as connection:
            connection.execute(
                update(operations)
                .where(operations.c.id == operation_id, operations.c.state == OperationState.PENDING.value)
                .values(state=OperationState.RUNNING.value)
            )

    def fail_operation(self, operation_id: str, failure: Failure, now: float) -> None:
        with self._database.writing() as connection:
            _fail(connection, operation_id, failure, now)


def _adapter(connection: Connection, name: str) -> Adapter:
    row = connection.execute(select(adapters).where(adapters.c.name == name)).one_or_none()
    if row is None:
        raise AdapterNotFound(f"There is no adapter {name!r}.")
    return adapter_of(row)


def _version(connection: Connection, adapter: str, number: int) -> Version:
    query = select(versions).where(versions.c.adapter == adapter, versions.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None or row.state == VersionState.DELETED:
        raise VersionNotFound(f"Adapter {adapter!r} has no version {number}.")
    return version_of(row)


def _refuse_deleting(adapter: Adapter) -> None:
    if adapter.state is AdapterState.DELETING:
        raise AdapterBusy(f"Adapter {adapter.name!r} is being deleted.")


def _refuse_unready(version: Version) -> None:
    if version.state is not VersionState.READY:
        raise VersionNotReady(f"Version {version.number} of {version.adapter!r} is {version.state}, not ready.")


def _arrive(
    connection: Connection, kind: OperationKind, adapter: str, source: str, promote: bool | float, now: float
) -> tuple[Version, Operation]:
    counted = update(adapters).where(adapters.c.name == adapter).values(last_number=adapters.c.last_number + 1)
    number = connection.execute(counted.returning(adapters.c.last_number)).scalar_one()
    version = Version(adapter=adapter, number=number, state=VersionState.PENDING, source=source, created_at=now)
    connection.execute(
        insert(versions).values(
            adapter=adapter, number=number, source=source, created_at=now, **version_values(version)
        )
    )
    return version, _operation(connection, kind, adapter, number, promote, now)


def _save_arriving(connection: Connection, version: Version) -> None:
    """What has arrived, or failed to, does not change again, whoever else still works on it."""
    state = _version(connection, version.adapter, version.number).state
    if not state.arriving:
        raise Conflict(f"Version {version.number} of {version.adapter!r} is {state} already.")
    connection.execute(
        update(versions)
        .where(versions.c.adapter == version.adapter, versions.c.number == version.number)
        .values(**version_values(version))
    )


def _set_live(connection: Connection, adapter: Adapter, number: int, now: float) -> Adapter:
    if adapter.live == number:
        return adapter
    if adapter.live is not None:
        connection.execute(insert(live_history).values(adapter=adapter.name, version=adapter.live))
    ends_canary = {"canary": None, "canary_weight": 0.0} if adapter.canary == number else {}
    return _update_adapter(connection, adapter.name, now, live=number, **ends_canary)


def _update_adapter(connection: Connection, name: str, now: float, **values: object) -> Adapter:
    connection.execute(update(adapters).where(adapters.c.name == name).values(updated_at=now, **values))
    return _adapter(connection, name)


def _previous(connection: Connection, adapter: Adapter) -> tuple[int, int]:
    """Row of the history and number of the version to go back to."""
    query = (
        select(live_history.c.id, live_history.c.version)
        .join(
            versions,
            (versions.c.adapter == live_history.c.adapter) & (versions.c.number == live_history.c.version),
        )
        .where(live_history.c.adapter == adapter.name, versions.c.state == VersionState.READY.value)
        .where(live_history.c.version != adapter.live)
        .order_by(live_history.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NoPreviousVersion(f"Adapter {adapter.name!r} has no earlier live version to go back to.")
    return row.id, row.version


def _operation(
    connection: Connection,
    kind: OperationKind,
    adapter: str,
    version: int | None,
    promote: bool | float,
    now: float,
) -> Operation:
    operation = Operation(
        id=uuid4().hex,
        kind=kind,
        adapter=adapter,
        version=version,
        state=OperationState.PENDING,
        created_at=now,
        promote=promote,
    )
    connection.execute(
        insert(operations).values(
            id=operation.id,
            kind=kind.value,
            adapter=adapter,
            version=version,
            state=operation.state.value,
            promote=promote,
            created_at=now,
        )
    )
    return operation


def _operation_by_id(connection: Connection, operation_id: str) -> Operation:
    row = connection.execute(select(operations).where(operations.c.id == operation_id)).one_or_none()
    if row is None:
        raise OperationNotFound(f"There is no operation {operation_id!r}.")
    return operation_of(row)


def _under_way(connection: Connection, kind: OperationKind, adapter: str, version: int | None) -> Operation | None:
    query = select(operations).where(
        operations.c.adapter == adapter,
        operations.c.version.is_(None) if version is None else operations.c.version == version,
        operations.c.kind == kind.value,
        operations.c.state.in_(_UNFINISHED),
    )
    row = connection.execute(query.order_by(operations.c.created_at).limit(1)).one_or_none()
    return None if row is None else operation_of(row)


def _finish(connection: Connection, operation_id: str, now: float) -> None:
    connection.execute(
        update(operations)
        .where(operations.c.id == operation_id)
        .values(state=OperationState.SUCCEEDED.value, finished_at=now)
    )


def _fail(connection: Connection, operation_id: str, failure: Failure, now: float) -> None:
    connection.execute(
        update(operations)
        .where(operations.c.id == operation_id, operations.c.state.in_(_UNFINISHED))
        .values(state=OperationState.FAILED.value, failure=failure_value(failure), finished_at=now)
    )
