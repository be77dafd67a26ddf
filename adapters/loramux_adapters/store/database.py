"""Connections to the registry's database, its transactions and its migrations. The only file that knows how SQLite
and PostgreSQL differ, and the one that translates SQLAlchemy's errors."""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, delete, event, func, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from loramux_adapters.errors import SettingsInvalid, StorageFailed, StorageFull
from loramux_adapters.store import tables

_ADVISORY_LOCK = 0x6C6F7261
"""Any number that nobody else locks in the same database."""
_BUSY_TIMEOUT_S = 30.0
KEPT_CHANGES = 5000
"""Of at least so many of the latest changes, it is known which adapters they were about."""
_READ_ONLY = "loramux_read_only"
_MIGRATION_LOCK = 0x6C6F7261
"""Any number of our own."""


class Database:
    """A pool of connections, safe to use from many threads. Migrated to the newest schema when it is opened."""

    def __init__(self, url: str) -> None:
        """Raises `SettingsInvalid` for an address that is none, `StorageError` where the database does not answer."""
        try:
            self._engine = _engine(url)
        except (ArgumentError, ModuleNotFoundError) as error:
            raise SettingsInvalid(f"registry.database_url can not be used: {error}") from error
        with ExitStack() as undo:
            undo.callback(self.close)
            try:
                with _translated(), self._engine.begin() as connection:
                    _migrate(connection)
            except CommandError as error:
                raise SettingsInvalid(f"The registry was written by another release of loramux: {error}") from error
            undo.pop_all()

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep the registry from a second gateway, whose snapshot would not hear of our changes. For SQLite the home
        is held instead. Raises `SettingsInvalid` where another gateway has it."""
        if self._engine.dialect.name != "postgresql":
            yield
            return
        with _translated(), self._engine.connect() as connection:
            if not connection.execute(select(func.pg_try_advisory_lock(_ADVISORY_LOCK))).scalar_one():
                raise SettingsInvalid("Another gateway uses this registry.database_url; give each one its own.")
            connection.commit()
            yield

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that sees one state. Raises `StorageError`."""
        with (
            _translated(),
            self._engine.connect().execution_options(**{_READ_ONLY: True}) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def writing(self, *touching: str) -> Iterator[Connection]:
        """One transaction; writers wait for each other. Durable when the block is left, undone when it raises.
        `touching` are the adapters that it is about. Raises `StorageError`."""
        with _translated(), self._engine.begin() as connection:
            connection.execute(update(tables.generation).values(value=tables.generation.c.value + 1))
            for adapter in touching:
                touch(connection, adapter)
            yield connection


def touch(connection: Connection, adapter: str) -> None:
    """The change under way is about `adapter` too. Once in a change for each."""
    changes = tables.changes
    number = connection.execute(select(tables.generation.c.value)).scalar_one()
    connection.execute(insert(changes).values(generation=number, adapter=adapter))
    if number % KEPT_CHANGES == 0:
        connection.execute(delete(changes).where(changes.c.generation <= number - 2 * KEPT_CHANGES))


def _engine(address: str) -> Engine:
    if address.startswith("postgres://"):  # as many hosts write it
        address = address.replace("postgres://", "postgresql://", 1)
    url = make_url(address)
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    return _postgresql(url)


def _postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    # Asked before it is used: a connection that the server has closed is then made anew.
    engine = create_engine(url, pool_pre_ping=True)

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        if connection.get_execution_options().get(_READ_ONLY, False):
            # Else each statement sees what was committed before it: pointers and versions of different times.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")

    return engine


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # The driver's own transaction handling begins too late for IMMEDIATE; `begun` below replaces it.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # gateways that start together migrate one after the other
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).split("\n")[0]
        if "disk is full" in cause or "No space left" in cause:
            raise StorageFull(f"The registry's disk is full ({cause}); free space and try again.") from error
        raise StorageFailed(f"The registry's database did not do its work: {cause}.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("The registry's disk is full; free space and try again.") from error
        raise
