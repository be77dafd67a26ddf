"""Callers' keys."""

from collections.abc import Sequence

from sqlalchemy import insert, select, update

from loramux_adapters.errors import KeyNotFound
from loramux_adapters.model import ApiKey
from loramux_adapters.store.database import Database
from loramux_adapters.store.rows import key_of
from loramux_adapters.store.tables import api_keys


class SqlKeyStore:
    """`ports.KeyStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_key(self, key: ApiKey) -> None:
        with self._database.writing() as connection:
            connection.execute(
                insert(api_keys).values(
                    id=key.id,
                    name=key.name,
                    role=key.role.value,
                    digest=key.digest,
                    adapters=list(key.adapters),
                    requests_per_minute=key.requests_per_minute,
                    tokens_per_minute=key.tokens_per_minute,
                    created_at=key.created_at,
                    revoked_at=key.revoked_at,
                    access_key_id=key.access_key_id,
                )
            )

    def list_keys(self) -> Sequence[ApiKey]:
        with self._database.reading() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id))
            return tuple(key_of(row) for row in rows)

    def revoke_key(self, key_id: str, now: float) -> ApiKey:
        with self._database.writing() as connection:
            row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
            if row is None:
                raise KeyNotFound(f"There is no key {key_id!r}.")
            if row.revoked_at is None:
                connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=now))
            return key_of(connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one())
