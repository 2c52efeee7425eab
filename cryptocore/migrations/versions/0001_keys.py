"""Key versions, their history and the outbox (cryptocore/store/tables.py); the roles, and what guards run."""

import sqlalchemy as sa
from alembic import op

from cryptocore.migrations import REFUSE, grant, guard, make_roles
from cryptocore.store.schema import SCHEMA, VERSION_TABLE

revision = "0001_keys"
down_revision: str | None = None

_NEWEST = sa.text("state = 'active' AND superseded_by = 0")
_STEP = (
    "NEW.revision <> OLD.revision + 1 OR NEW.key_id <> OLD.key_id OR NEW.version <> OLD.version"
    " OR NEW.owner <> OLD.owner"
)


def upgrade() -> None:
    """Make the roles where rights allow, the tables, their guards and what the roles may do."""
    make_roles()
    op.execute(REFUSE)
    _key_version()
    _key_history()
    _audit_outbox()
    grant(VERSION_TABLE, use="SELECT", admin="SELECT")


def _key_version() -> None:
    op.create_table(
        "key_version",
        sa.Column("key_id", sa.LargeBinary(16), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.LargeBinary(261), nullable=False),
        sa.Column("superseded_by", sa.BigInteger, nullable=False),
        sa.Column("retire_at_ms", sa.BigInteger, nullable=False),
        sa.Column("kek_alias", sa.String(128), nullable=False),
        sa.Column("kek_version", sa.String(128), nullable=False),
        sa.Column("wrapped_dek", sa.LargeBinary, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary(64), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "version"),
        schema=SCHEMA,
    )
    op.create_index("key_version_owner", "key_version", ["owner"], schema=SCHEMA)
    op.create_index(
        "key_version_newest", "key_version", ["owner"], unique=True, schema=SCHEMA, postgresql_where=_NEWEST
    )
    guard("key_version", "key_version_step", "UPDATE", "a key version moves on by one revision", when=_STEP)
    guard(
        "key_version", "key_version_first", "INSERT", "a key version begins with revision 1", when="NEW.revision <> 1"
    )
    guard("key_version", "key_version_delete", "DELETE", "key versions are kept")
    grant("key_version", use="SELECT", admin="SELECT, INSERT, UPDATE")


def _key_history() -> None:
    op.create_table(
        "key_history",
        sa.Column("key_id", sa.LargeBinary(16), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary(64), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "version", "revision"),
        schema=SCHEMA,
    )
    guard("key_history", "key_history_update", "UPDATE", "history is append-only")
    guard("key_history", "key_history_delete", "DELETE", "history is append-only")
    grant("key_history", use="SELECT", admin="SELECT, INSERT")


def _audit_outbox() -> None:
    op.create_table(
        "audit_outbox",
        sa.Column("number", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("service", sa.String(64), nullable=False),
        sa.Column("line", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary(64)),
        sa.Column("sent_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("event_id"),
        schema=SCHEMA,
    )
    op.create_index(
        "audit_outbox_unsent",
        "audit_outbox",
        ["service", "number"],
        schema=SCHEMA,
        postgresql_where=sa.text("sent_ms IS NULL"),
    )
    guard("audit_outbox", "audit_outbox_delete", "DELETE", "events are kept")
    may = "SELECT, INSERT, UPDATE (sent_ms)"
    grant("audit_outbox", use=may, admin=may)
