"""Statements: labels of keys, the threat level, incidents (cryptocore/store/statement_tables.py)."""

import sqlalchemy as sa
from alembic import op

from cryptocore.migrations import grant, guard
from cryptocore.store.schema import SCHEMA

revision = "0004_incidents"
down_revision: str | None = "0003_tokens"


def upgrade() -> None:
    """Make the table, its guards and what the roles may do."""
    op.create_table(
        "statement",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("stated_ms", sa.BigInteger, nullable=False),
        sa.Column("signer_id", sa.LargeBinary(16), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary(64), nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", "revision"),
        schema=SCHEMA,
    )
    op.create_index("statement_kind", "statement", ["kind", "stated_ms"], schema=SCHEMA)
    guard("statement", "statement_update", "UPDATE", "statements are append-only")
    guard("statement", "statement_delete", "DELETE", "statements are append-only")
    grant("statement", use="SELECT", admin="SELECT, INSERT")
