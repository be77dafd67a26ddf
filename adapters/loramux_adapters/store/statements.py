"""What transactions of the registry are made of: each function runs on a connection that its caller has begun."""

from dataclasses import asdict
from uuid import uuid4

from sqlalchemy import Connection, exists, insert, select, update

from loramux_adapters.errors import (
    AdapterBusy,
    AdapterNotFound,
    Conflict,
    NameTaken,
    NoPreviousVersion,
    OperationNotFound,
    VersionNotFound,
    VersionNotReady,
)
from loramux_adapters.model import (
    Adapter,
    AdapterState,
    CanaryEnd,
    CanaryRule,
    Failure,
    Operation,
    OperationKind,
    OperationState,
    Sticky,
    Tier,
    Version,
    VersionState,
)
from loramux_adapters.store.rows import (
    adapter_of,
    failure_value,
    operation_of,
    version_of,
    version_values,
)
from loramux_adapters.store.tables import adapters, aliases, live_history, operations, versions

UNFINISHED = (OperationState.PENDING.value, OperationState.RUNNING.value)
ARRIVING = tuple(state.value for state in VersionState if state.arriving)


def read_adapter(connection: Connection, name: str) -> Adapter:
    row = connection.execute(select(adapters).where(adapters.c.name == name)).one_or_none()
    if row is None:
        raise AdapterNotFound(f"There is no adapter {name!r}.")
    return adapter_of(row)


def read_version(connection: Connection, adapter: str, number: int) -> Version:
    query = select(versions).where(versions.c.adapter == adapter, versions.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None or row.state == VersionState.DELETED:
        raise VersionNotFound(f"Adapter {adapter!r} has no version {number}.")
    return version_of(row)


def refuse_deleting(adapter: Adapter) -> None:
    if adapter.state is AdapterState.DELETING:
        raise AdapterBusy(f"Adapter {adapter.name!r} is being deleted.")


def refuse_unready(version: Version) -> None:
    if version.state is not VersionState.READY:
        raise VersionNotReady(f"Version {version.number} of {version.adapter!r} is {version.state}, not ready.")


def insert_adapter(
    connection: Connection, name: str, base: str, source: str, *, promote: bool | float, pin: Tier | None, now: float
) -> tuple[Adapter, Version, Operation]:
    """See `ports.RegistryStore.create_adapter`."""
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
        refuse_deleting(adapter_of(row))
        alive = exists().where(versions.c.adapter == name, versions.c.state.in_((*ARRIVING, VersionState.READY.value)))
        if connection.execute(select(alive)).scalar_one():
            raise NameTaken(f"Adapter {name!r} exists; add a version to it to update it.")
        update_adapter(connection, name, now, base=base, pin=pin.value if pin else None)
    version, operation = insert_arriving(connection, OperationKind.ADD, name, source, promote, now)
    return read_adapter(connection, name), version, operation


def insert_arriving(
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
    return version, insert_operation(connection, kind, adapter, number, promote, now)


def save_arriving(connection: Connection, version: Version) -> None:
    """What has arrived, or failed to, does not change again, whoever else still works on it."""
    state = read_version(connection, version.adapter, version.number).state
    if not state.arriving:
        raise Conflict(f"Version {version.number} of {version.adapter!r} is {state} already.")
    connection.execute(
        update(versions)
        .where(versions.c.adapter == version.adapter, versions.c.number == version.number)
        .values(**version_values(version))
    )


def set_live(
    connection: Connection, adapter: Adapter, number: int, now: float, end: CanaryEnd | None = None
) -> Adapter:
    """`end` tells why, where a canary becomes live by its rule."""
    if adapter.live == number:
        return adapter
    if adapter.live is not None:
        connection.execute(insert(live_history).values(adapter=adapter.name, version=adapter.live))
    return point_live(connection, adapter, number, now, end)


def point_live(
    connection: Connection, adapter: Adapter, number: int, now: float, end: CanaryEnd | None = None
) -> Adapter:
    """Once the history is as it will be. A canary of that version has come to its end; another one has a new version
    beside it from now on."""
    values: dict[str, object] = {}
    if adapter.canary == number:
        values = end_canary(end or CanaryEnd(number, True, False, "It was made live by hand.", now))
    elif adapter.canary is not None:
        values = {"canary_since": now}
    update_adapter(connection, adapter.name, now, live=number, live_since=now, **values)
    return refresh_previous(connection, adapter.name)


def end_canary(end: CanaryEnd) -> dict[str, object]:
    """What changes of the adapter's row."""
    return {
        "canary": None,
        "canary_weight": 0.0,
        "canary_sticky": Sticky.REQUEST.value,
        "canary_rule": None,
        "canary_since": None,
        "canary_end": asdict(end),
    }


def begin_canary(number: int, weight: float, sticky: Sticky, rule: CanaryRule | None, now: float) -> dict[str, object]:
    """What changes of the adapter's row."""
    return {
        "canary": number,
        "canary_weight": weight,
        "canary_sticky": sticky.value,
        "canary_rule": None if rule is None else asdict(rule),
        "canary_since": now,
        "canary_end": None,
    }


def refresh_previous(connection: Connection, name: str) -> Adapter:
    """After the history, or a version in it, has changed."""
    found = find_previous(connection, read_adapter(connection, name))
    number = None if found is None else found[1]
    connection.execute(update(adapters).where(adapters.c.name == name).values(previous=number))
    return read_adapter(connection, name)


def update_adapter(connection: Connection, name: str, now: float, **values: object) -> Adapter:
    connection.execute(update(adapters).where(adapters.c.name == name).values(updated_at=now, **values))
    return read_adapter(connection, name)


def read_previous(connection: Connection, adapter: Adapter) -> tuple[int, int]:
    """Row of the history and number of the version to go back to."""
    found = find_previous(connection, adapter)
    if found is None:
        raise NoPreviousVersion(f"Adapter {adapter.name!r} has no earlier live version to go back to.")
    return found


def find_previous(connection: Connection, adapter: Adapter) -> tuple[int, int] | None:
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
    return None if row is None else (row.id, row.version)


def insert_operation(
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


def read_operation(connection: Connection, operation_id: str) -> Operation:
    row = connection.execute(select(operations).where(operations.c.id == operation_id)).one_or_none()
    if row is None:
        raise OperationNotFound(f"There is no operation {operation_id!r}.")
    return operation_of(row)


def read_under_way(connection: Connection, kind: OperationKind, adapter: str, version: int | None) -> Operation | None:
    query = select(operations).where(
        operations.c.adapter == adapter,
        operations.c.version.is_(None) if version is None else operations.c.version == version,
        operations.c.kind == kind.value,
        operations.c.state.in_(UNFINISHED),
    )
    row = connection.execute(query.order_by(operations.c.created_at).limit(1)).one_or_none()
    return None if row is None else operation_of(row)


def finish_operation(connection: Connection, operation_id: str, now: float) -> None:
    connection.execute(
        update(operations)
        .where(operations.c.id == operation_id)
        .values(state=OperationState.SUCCEEDED.value, finished_at=now)
    )


def fail_operation(connection: Connection, operation_id: str, failure: Failure, now: float) -> None:
    connection.execute(
        update(operations)
        .where(operations.c.id == operation_id, operations.c.state.in_(UNFINISHED))
        .values(state=OperationState.FAILED.value, failure=failure_value(failure), finished_at=now)
    )
