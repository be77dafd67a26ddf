"""Rules of canaries, who keeps to one side of one, and what a rollback leads to."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for column in (
        sa.Column("canary_sticky", sa.String(8), nullable=False, server_default="request"),
        sa.Column("canary_rule", sa.JSON),
        sa.Column("canary_since", sa.Float),
        sa.Column("canary_end", sa.JSON),
        sa.Column("previous", sa.Integer),
        sa.Column("live_since", sa.Float),
    ):
        op.add_column("adapters", column)
    # Since when they were live was not kept.
    op.execute(
        "UPDATE adapters SET previous = ("
        " SELECT live_history.version FROM live_history JOIN versions"
        " ON versions.adapter = live_history.adapter AND versions.number = live_history.version"
        " WHERE live_history.adapter = adapters.name AND live_history.version <> adapters.live"
        " AND versions.state = 'ready' ORDER BY live_history.id DESC LIMIT 1)"
    )
    op.execute("UPDATE adapters SET canary_since = updated_at WHERE canary IS NOT NULL")


def downgrade() -> None:
    for name in ("live_since", "previous", "canary_end", "canary_since", "canary_rule", "canary_sticky"):
        op.drop_column("adapters", name)
