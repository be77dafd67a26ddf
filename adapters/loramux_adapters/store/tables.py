"""Tables of the registry. Times are Unix seconds; JSON columns hold small values that no query looks into."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

generation = Table(
    "registry_generation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
)
"""One row. Every change adds one, which also makes writers wait for each other."""

changes = Table(
    "registry_changes",
    metadata,
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("adapter", String(128), primary_key=True),
)
"""Which adapters the latest changes were about, so that a reader who knows an earlier state reads only those."""

adapters = Table(
    "adapters",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("base", String(256), nullable=False),
    Column("state", String(16), nullable=False),
    Column("live", Integer),
    Column("canary", Integer),
    Column("canary_weight", Float, nullable=False),
    Column("pin", String(8)),
    Column("last_number", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("canary_sticky", String(8), nullable=False, server_default="request"),
    Column("canary_rule", JSON),
    Column("canary_since", Float),
    Column("canary_end", JSON),
    Column("previous", Integer),
    Column("live_since", Float),
)

versions = Table(
    "versions",
    metadata,
    Column("adapter", String(128), ForeignKey("adapters.name", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", String(16), nullable=False),
    Column("source", Text, nullable=False),
    Column("digest", String(64)),
    Column("size_bytes", BigInteger),
    Column("info", JSON),
    Column("failure", JSON),
    Column("created_at", Float, nullable=False),
    Column("ready_at", Float),
    Index(None, "digest"),
)

live_history = Table(
    "live_history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("adapter", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    ForeignKeyConstraint(["adapter", "version"], ["versions.adapter", "versions.number"], ondelete="CASCADE"),
    Index(None, "adapter"),
)
"""What was live before, oldest first: rollback takes the last row, whose number `adapters.previous` repeats."""

aliases = Table(
    "aliases",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("adapter", String(128), ForeignKey("adapters.name", ondelete="CASCADE"), nullable=False),
    Column("version", Integer),
    Column("created_at", Float, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(24), nullable=False),
    Column("adapter", String(128), nullable=False),
    Column("version", Integer),
    Column("state", String(16), nullable=False),
    Column("promote", JSON, nullable=False),
    Column("failure", JSON),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    Index(None, "state"),
    Index(None, "adapter"),
)
"""No foreign key: what was done stays known after the adapter is gone."""

resources = Table(
    "sagemaker_resources",
    metadata,
    Column("kind", String(24), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("adapter", String(128), ForeignKey("adapters.name", ondelete="CASCADE")),
    Column("state", String(16), nullable=False),
    Column("body", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Index(None, "adapter"),
)
"""What clients of SageMaker's interface made. Where `adapter` is set, what they said of that adapter."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("adapters", JSON, nullable=False),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("access_key_id", String(32)),
    Index(None, "access_key_id", unique=True),
)
