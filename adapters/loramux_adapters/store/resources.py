"""What clients of SageMaker's interface made: each method of `ports.ResourceStore` is one transaction here."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, exists, insert, select, update

from loramux_adapters.errors import NameTaken
from loramux_adapters.model import Adapter, Operation, Resource, ResourceKind, Tier, Version
from loramux_adapters.store.database import Database
from loramux_adapters.store.rows import adapter_of, resource_of, resource_values
from loramux_adapters.store.statements import insert_adapter, refuse_deleting
from loramux_adapters.store.tables import adapters, resources


class SqlResourceStore:
    """`ports.ResourceStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def resources(self) -> Sequence[Resource]:
        with self._database.reading() as connection:
            query = select(resources).order_by(resources.c.created_at, resources.c.kind, resources.c.name)
            return tuple(resource_of(row) for row in connection.execute(query))

    def create_resource(self, resource: Resource) -> None:
        with self._database.writing() as connection:
            _insert(connection, resource)

    def save_resource(self, resource: Resource) -> None:
        with self._database.writing() as connection:
            _save(connection, resource)

    def delete_resource(self, kind: ResourceKind, name: str) -> None:
        with self._database.writing() as connection:
            connection.execute(delete(resources).where(resources.c.kind == kind.value, resources.c.name == name))

    def create_adapter(
        self,
        resource: Resource,
        name: str,
        base: str,
        source: str,
        *,
        promote: bool | float,
        pin: Tier | None,
        now: float,
    ) -> tuple[Adapter, Version, Operation]:
        with self._database.writing(name) as connection:
            row = connection.execute(select(adapters).where(adapters.c.name == name)).one_or_none()
            if row is not None:
                refuse_deleting(adapter_of(row))
                raise NameTaken(f"Adapter {name!r} exists.")
            created = insert_adapter(connection, name, base, source, promote=promote, pin=pin, now=now)
            _insert(connection, resource)
            return created

    def keep_adapter(self, resource: Resource) -> None:
        with self._database.writing() as connection:
            if not connection.execute(select(exists().where(adapters.c.name == resource.name))).scalar_one():
                return
            if not _save(connection, resource):
                _insert(connection, resource)


def _insert(connection: Connection, resource: Resource) -> None:
    known = exists().where(resources.c.kind == resource.kind.value, resources.c.name == resource.name)
    if connection.execute(select(known)).scalar_one():
        raise NameTaken(f"There is a resource {resource.name!r} of this kind.")
    connection.execute(
        insert(resources).values(
            kind=resource.kind.value,
            name=resource.name,
            adapter=resource.name if resource.of_adapter else None,
            created_at=resource.created_at,
            **resource_values(resource),
        )
    )


def _save(connection: Connection, resource: Resource) -> bool:
    """Whether it was there."""
    done = connection.execute(
        update(resources)
        .where(resources.c.kind == resource.kind.value, resources.c.name == resource.name)
        .values(**resource_values(resource))
    )
    return done.rowcount > 0
