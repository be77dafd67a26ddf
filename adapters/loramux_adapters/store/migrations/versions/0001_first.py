"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    generation = op.create_table(
        "registry_generation",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(generation, [{"id": 1, "value": 0}])
    op.create_table(
        "adapters",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("base", sa.String(256), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("live", sa.Integer),
        sa.Column("canary", sa.Integer),
        sa.Column("canary_weight", sa.Float, nullable=False),
        sa.Column("pin", sa.String(8)),
        sa.Column("last_number", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column(
            "adapter",
            sa.String(128),
            sa.ForeignKey("adapters.name", ondelete="CASCADE", name="fk_versions_adapter"),
            primary_key=True,
        ),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64)),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("info", sa.JSON),
        sa.Column("failure", sa.JSON),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("ready_at", sa.Float),
    )
    op.create_index("ix_versions_digest", "versions", ["digest"])
    op.create_table(
        "live_history",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("adapter", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(
            ["adapter", "version"],
            ["versions.adapter", "versions.number"],
            ondelete="CASCADE",
            name="fk_live_history_adapter_version",
        ),
    )
    op.create_index("ix_live_history_adapter", "live_history", ["adapter"])
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column(
            "adapter",
            sa.String(128),
            sa.ForeignKey("adapters.name", ondelete="CASCADE", name="fk_aliases_adapter"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("adapter", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("promote", sa.JSON, nullable=False),
        sa.Column("failure", sa.JSON),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("finished_at", sa.Float),
    )
    op.create_index("ix_operations_state", "operations", ["state"])
    op.create_index("ix_operations_adapter", "operations", ["adapter"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("adapters", sa.JSON, nullable=False),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("tokens_per_minute", sa.Integer),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("revoked_at", sa.Float),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )


def downgrade() -> None:
    for table in ("api_keys", "operations", "aliases", "live_history", "versions", "adapters", "registry_generation"):
        op.drop_table(table)
