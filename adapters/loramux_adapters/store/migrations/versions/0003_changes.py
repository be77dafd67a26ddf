"""Which adapters the latest changes were about."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "registry_changes",
        sa.Column("generation", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("adapter", sa.String(128), primary_key=True),
    )


def downgrade() -> None:
    op.drop_table("registry_changes")
