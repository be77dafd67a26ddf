"""What clients of SageMaker's interface made."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "sagemaker_resources",
        sa.Column("kind", sa.String(24), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column(
            "adapter",
            sa.String(128),
            sa.ForeignKey("adapters.name", ondelete="CASCADE", name="fk_sagemaker_resources_adapter"),
        ),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_index("ix_sagemaker_resources_adapter", "sagemaker_resources", ["adapter"])


def downgrade() -> None:
    op.drop_table("sagemaker_resources")
