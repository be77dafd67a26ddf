"""Alembic's entry: runs on the connection that `database.py` hands over, in that one's transaction."""

from alembic import context

from loramux_adapters.store import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    transactional_ddl=False,
    render_as_batch=True,
)
context.run_migrations()
