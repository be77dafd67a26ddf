"""Reading the registry: all of it, or what changed since an earlier look."""

from collections.abc import Collection

from sqlalchemy import Connection, select

from loramux_adapters.model import RegistryState
from loramux_adapters.store.database import KEPT_CHANGES
from loramux_adapters.store.rows import adapter_of, alias_of, version_of
from loramux_adapters.store.tables import adapters, aliases, changes, generation, versions

_MOST_TOUCHED = 100
"""Beyond, reading everything is about as quick."""


def read_state(connection: Connection, since: RegistryState | None) -> RegistryState:
    """See `ports.RegistryStore.state`. In a transaction that sees one state."""
    number = connection.execute(select(generation.c.value)).scalar_one()
    if since is None or not 0 <= number - since.generation <= KEPT_CHANGES:
        return _read(connection, number)
    of_late = select(changes.c.adapter).where(changes.c.generation > since.generation).distinct()
    touched = frozenset(connection.execute(of_late.limit(_MOST_TOUCHED + 1)).scalars())
    if len(touched) > _MOST_TOUCHED:
        return _read(connection, number)
    return _merged(since, _read(connection, number, touched), touched)


def _read(connection: Connection, number: int, only: Collection[str] | None = None) -> RegistryState:
    """Everything, or what there is of `only` these adapters."""
    of_adapters = select(adapters).order_by(adapters.c.created_at, adapters.c.name)
    of_versions, of_aliases = select(versions), select(aliases)
    if only is not None:
        of_adapters = of_adapters.where(adapters.c.name.in_(only))
        of_versions = of_versions.where(versions.c.adapter.in_(only))
        of_aliases = of_aliases.where(aliases.c.adapter.in_(only))
    return RegistryState(
        generation=number,
        adapters={row.name: adapter_of(row) for row in connection.execute(of_adapters)},
        versions={(row.adapter, row.number): version_of(row) for row in connection.execute(of_versions)},
        aliases={row.name: alias_of(row) for row in connection.execute(of_aliases)},
    )


def _merged(before: RegistryState, now: RegistryState, touched: Collection[str]) -> RegistryState:
    """`before`, with all that it says of the adapters `touched` replaced by `now`."""
    kept = {name: now.adapters.get(name) if name in touched else known for name, known in before.adapters.items()}
    return RegistryState(
        generation=now.generation,
        adapters={name: known for name, known in kept.items() if known is not None} | dict(now.adapters),
        versions={key: known for key, known in before.versions.items() if key[0] not in touched} | dict(now.versions),
        aliases={name: known for name, known in before.aliases.items() if known.adapter not in touched}
        | dict(now.aliases),
    )
