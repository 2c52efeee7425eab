"""Tokens, and whose turn it is to clean them up (cryptocore/store/token_tables.py)."""

import sqlalchemy as sa
from alembic import op

from cryptocore.migrations import grant, guard
from cryptocore.store.schema import SCHEMA

revision = "0003_tokens"
down_revision: str | None = "0002_rotations"


def upgrade() -> None:
    """Make the tables, their guards and what the roles may do."""
    op.create_table(
        "token",
        sa.Column("owner", sa.LargeBinary(261), nullable=False),
        sa.Column("token_id", sa.String(128), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("integration_id", sa.String(128)),
        sa.Column("key_id", sa.LargeBinary(16), nullable=False),
        sa.Column("key_version", sa.BigInteger, nullable=False),
        sa.Column("ciphertext", sa.LargeBinary),
        sa.Column("stored_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
        sa.Column("ended_as", sa.String(16)),
        sa.Column("ended_by", sa.String(161)),
        sa.Column("ended_reason", sa.String(32)),
        sa.PrimaryKeyConstraint("owner", "token_id", "generation"),
        sa.CheckConstraint("(ended_ms IS NULL) = (ciphertext IS NOT NULL)", name="token_erased"),
        sa.CheckConstraint("(ended_ms IS NULL) = (ended_as IS NULL)", name="token_tombstone"),
        schema=SCHEMA,
    )
    for name, columns in _INDICES.items():
        op.create_index(
            name,
            "token",
            list(columns),
            unique=name == "token_live",
            schema=SCHEMA,
            postgresql_where=sa.text("ended_ms IS NULL"),
        )
    guard("token", "token_tombstone", "UPDATE", "a token that ended stays ended", when="OLD.ended_ms IS NOT NULL")
    guard("token", "token_name", "UPDATE", "a token keeps its name and its expiry", when=_RENAMED)
    guard("token", "token_kept", "DELETE", "tombstones of tokens are kept")
    op.create_table(
        "turn",
        sa.Column("job", sa.String(64), nullable=False),
        sa.Column("taken_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("job"),
        schema=SCHEMA,
    )
    for table in ("token", "turn"):
        grant(table, use="SELECT, INSERT, UPDATE", admin="SELECT, INSERT, UPDATE")


_INDICES = {
    "token_live": ("owner", "token_id"),
    "token_live_integration": ("integration_id",),
    "token_live_key": ("key_id", "key_version"),
    "token_live_expiry": ("expires_ms",),
}
_RENAMED = " OR ".join(
    f"NEW.{column} <> OLD.{column}" for column in ("owner", "token_id", "generation", "expires_ms", "stored_ms")
)
