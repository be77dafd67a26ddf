"""Keys to sign requests with, as AWS' are."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("access_key_id", sa.String(32)))
    op.create_index("ix_api_keys_access_key_id", "api_keys", ["access_key_id"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_api_keys_access_key_id", "api_keys")
    op.drop_column("api_keys", "access_key_id")
