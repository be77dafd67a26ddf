"""Adapters, versions, aliases and operations: each method of `ports.RegistryStore` is one transaction here."""

from collections.abc import Sequence

from sqlalchemy import delete, exists, insert, select, update

from loramux_adapters.errors import (
    AliasNotFound,
    Conflict,
    NameTaken,
    RequestInvalid,
    VersionInUse,
)
from loramux_adapters.model import (
    Adapter,
    AdapterState,
    Alias,
    CanaryEnd,
    CanaryRule,
    Failure,
    Operation,
    OperationKind,
    OperationState,
    RegistryState,
    Sticky,
    Tier,
    Version,
    VersionState,
)
from loramux_adapters.store.database import Database, touch
from loramux_adapters.store.rows import failure_value, operation_of
from loramux_adapters.store.state import read_state
from loramux_adapters.store.statements import (
    ARRIVING,
    UNFINISHED,
    begin_canary,
    end_canary,
    fail_operation,
    finish_operation,
    insert_adapter,
    insert_arriving,
    insert_operation,
    point_live,
    read_adapter,
    read_operation,
    read_previous,
    read_under_way,
    read_version,
    refresh_previous,
    refuse_deleting,
    refuse_unready,
    save_arriving,
    set_live,
    update_adapter,
)
from loramux_adapters.store.tables import adapters, aliases, live_history, operations, versions


class SqlRegistryStore:
    """`ports.RegistryStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self, since: RegistryState | None = None) -> RegistryState:
        with self._database.reading() as connection:
            return read_state(connection, since)

    # --- arriving versions ---

    def create_adapter(
        self, name: str, base: str, source: str, *, promote: bool | float, pin: Tier | None, now: float
    ) -> tuple[Adapter, Version, Operation]:
        with self._database.writing(name) as connection:
            return insert_adapter(connection, name, base, source, promote=promote, pin=pin, now=now)

    def create_version(
        self, adapter: str, source: str, *, promote: bool | float, now: float
    ) -> tuple[Version, Operation]:
        with self._database.writing(adapter) as connection:
            refuse_deleting(read_adapter(connection, adapter))
            return insert_arriving(connection, OperationKind.UPDATE, adapter, source, promote, now)

    def save_version(self, version: Version) -> None:
        with self._database.writing(version.adapter) as connection:
            refuse_deleting(read_adapter(connection, version.adapter))
            save_arriving(connection, version)

    def finish_version(self, operation_id: str, version: Version, now: float) -> Adapter:
        with self._database.writing(version.adapter) as connection:
            adapter = read_adapter(connection, version.adapter)
            operation = read_operation(connection, operation_id)
            if operation.state is OperationState.SUCCEEDED:
                return adapter
            refuse_deleting(adapter)
            save_arriving(connection, version)
            finish_operation(connection, operation_id, now)
            if operation.promote is False or (adapter.live is not None and adapter.live > version.number):
                return adapter
            if operation.promote is True or adapter.live is None:
                return set_live(connection, adapter, version.number, now)
            canary = begin_canary(version.number, operation.promote, Sticky.REQUEST, None, now)
            return update_adapter(connection, adapter.name, now, **canary)

    def fail_version(self, operation_id: str, adapter: str, number: int, failure: Failure, now: float) -> None:
        with self._database.writing(adapter) as connection:
            connection.execute(
                update(versions)
                .where(versions.c.adapter == adapter, versions.c.number == number)
                .where(versions.c.state.in_(ARRIVING))
                .values(state=VersionState.FAILED.value, failure=failure_value(failure))
            )
            fail_operation(connection, operation_id, failure, now)

    # --- pointers ---

    def promote(self, adapter: str, number: int, now: float) -> Adapter:
        with self._database.writing(adapter) as connection:
            current = read_adapter(connection, adapter)
            refuse_deleting(current)
            refuse_unready(read_version(connection, adapter, number))
            return set_live(connection, current, number, now)

    def rollback_target(self, adapter: str) -> int:
        with self._database.reading() as connection:
            return read_previous(connection, read_adapter(connection, adapter))[1]

    def rollback(self, adapter: str, now: float) -> Adapter:
        with self._database.writing(adapter) as connection:
            current = read_adapter(connection, adapter)
            refuse_deleting(current)
            entry, number = read_previous(connection, current)
            connection.execute(
                delete(live_history).where(live_history.c.adapter == adapter, live_history.c.id >= entry)
            )
            return point_live(connection, current, number, now)

    def set_canary(
        self,
        adapter: str,
        number: int | None,
        weight: float,
        now: float,
        *,
        sticky: Sticky = Sticky.REQUEST,
        rule: CanaryRule | None = None,
    ) -> Adapter:
        with self._database.writing(adapter) as connection:
            current = read_adapter(connection, adapter)
            refuse_deleting(current)
            if number is None:
                if current.canary is None:
                    return current
                end = CanaryEnd(current.canary, False, False, "It was ended by hand.", now)
                return update_adapter(connection, adapter, now, **end_canary(end))
            refuse_unready(read_version(connection, adapter, number))
            if current.live is None or current.live == number:
                raise RequestInvalid(f"A canary of {adapter!r} needs a live version other than {number}.")
            return update_adapter(connection, adapter, now, **begin_canary(number, weight, sticky, rule, now))

    def end_canary(self, adapter: str, since: float, end: CanaryEnd, now: float) -> Adapter | None:
        with self._database.writing(adapter) as connection:
            current = read_adapter(connection, adapter)
            refuse_deleting(current)
            if (current.canary, current.canary_since) != (end.version, since):
                return None
            if not end.promoted:
                return update_adapter(connection, adapter, now, **end_canary(end))
            refuse_unready(read_version(connection, adapter, end.version))
            return set_live(connection, current, end.version, now, end)

    def set_pin(self, adapter: str, pin: Tier | None, now: float) -> Adapter:
        with self._database.writing(adapter) as connection:
            refuse_deleting(read_adapter(connection, adapter))
            return update_adapter(connection, adapter, now, pin=pin.value if pin else None)

    def create_alias(self, name: str, adapter: str, version: int | None, now: float) -> Alias:
        with self._database.writing(adapter) as connection:
            if connection.execute(select(exists().where(adapters.c.name == name))).scalar_one():
                raise NameTaken(f"{name!r} is an adapter; choose another name for the alias.")
            refuse_deleting(read_adapter(connection, adapter))
            if version is not None:
                refuse_unready(read_version(connection, adapter, version))
            connection.execute(delete(aliases).where(aliases.c.name == name))
            connection.execute(insert(aliases).values(name=name, adapter=adapter, version=version, created_at=now))
            return Alias(name=name, adapter=adapter, version=version, created_at=now)

    def delete_alias(self, name: str) -> None:
        with self._database.writing() as connection:
            adapter = connection.execute(select(aliases.c.adapter).where(aliases.c.name == name)).scalar_one_or_none()
            if adapter is None:
                raise AliasNotFound(f"There is no alias {name!r}.")
            touch(connection, adapter)
            connection.execute(delete(aliases).where(aliases.c.name == name))

    # --- deletion ---

    def begin_delete_adapter(self, name: str, now: float) -> Operation:
        with self._database.writing(name) as connection:
            adapter = read_adapter(connection, name)
            if adapter.state is AdapterState.DELETING:
                under_way = read_under_way(connection, OperationKind.DELETE_ADAPTER, name, None)
                return under_way or insert_operation(connection, OperationKind.DELETE_ADAPTER, name, None, False, now)
            connection.execute(delete(aliases).where(aliases.c.adapter == name))
            connection.execute(
                update(versions)
                .where(versions.c.adapter == name, versions.c.state == VersionState.READY.value)
                .values(state=VersionState.DRAINING.value)
            )
            update_adapter(
                connection,
                name,
                now,
                state=AdapterState.DELETING.value,
                live=None,
                canary=None,
                canary_weight=0.0,
                canary_rule=None,
                canary_since=None,
                previous=None,
                live_since=None,
            )
            return insert_operation(connection, OperationKind.DELETE_ADAPTER, name, None, False, now)

    def finish_delete_adapter(self, operation_id: str, name: str, now: float) -> None:
        with self._database.writing(name) as connection:
            if read_operation(connection, operation_id).state.finished:
                return  # by another gateway: by now the name may be somebody else's
            connection.execute(delete(live_history).where(live_history.c.adapter == name))
            connection.execute(delete(versions).where(versions.c.adapter == name))
            connection.execute(delete(adapters).where(adapters.c.name == name))
            finish_operation(connection, operation_id, now)

    def begin_delete_version(self, adapter: str, number: int, now: float) -> Operation:
        with self._database.writing(adapter) as connection:
            current = read_adapter(connection, adapter)
            refuse_deleting(current)
            version = read_version(connection, adapter, number)
            if version.state.arriving:
                raise Conflict(f"Version {number} of {adapter!r} is still arriving; delete it when that has ended.")
            if version.state is VersionState.DRAINING and read_under_way(
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
            refresh_previous(connection, adapter)
            return insert_operation(connection, OperationKind.DELETE_VERSION, adapter, number, False, now)

    def finish_delete_version(self, operation_id: str, adapter: str, number: int, now: float) -> None:
        with self._database.writing(adapter) as connection:
            if read_operation(connection, operation_id).state.finished:
                return
            connection.execute(
                update(versions)
                .where(versions.c.adapter == adapter, versions.c.number == number)
                .values(state=VersionState.DELETED.value)
            )
            finish_operation(connection, operation_id, now)

    # --- operations ---

    def operation(self, operation_id: str) -> Operation:
        with self._database.reading() as connection:
            return read_operation(connection, operation_id)

    def unfinished_operations(self) -> Sequence[Operation]:
        with self._database.reading() as connection:
            query = select(operations).where(operations.c.state.in_(UNFINISHED))
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
            fail_operation(connection, operation_id, failure, now)
