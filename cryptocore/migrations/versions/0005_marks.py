"""A destruction that was called off stays so; who sent an event of the outbox signs that (store/tables.py)."""

import sqlalchemy as sa
from alembic import op

from cryptocore.migrations import grant, guard
from cryptocore.store.schema import ADMIN_ROLE, SCHEMA, USE_ROLE

revision = "0005_marks"
down_revision: str | None = "0004_incidents"

_FINAL = " OR ".join(
    (
        "(OLD.restored_ms IS NOT NULL AND NEW.restored_ms IS DISTINCT FROM OLD.restored_ms)",
        *(
            f"NEW.{column} <> OLD.{column}"
            for column in ("destruction_id", "request", "signature", "signer_id", "due_ms")
        ),
    )
)


def upgrade() -> None:
    """Make the guard of destructions, the table of marks, and let nobody choose an event's number."""
    why = "a destruction keeps its request, and called off it stays so"
    guard("destruction", "destruction_final", "UPDATE", why, when=_FINAL)
    op.create_index("audit_outbox_service", "audit_outbox", ["service", "number"], schema=SCHEMA)
    op.create_table(
        "outbox_mark",
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("signature", sa.LargeBinary(64), nullable=False),
        sa.Column("sent_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("number", "signature"),
        schema=SCHEMA,
    )
    # What was sent before there were marks; after that the guard lets nobody write such a row.
    op.execute(
        f"INSERT INTO {SCHEMA}.outbox_mark (number, signature, sent_ms)"  # noqa: S608 - constants
        f" SELECT number, ''::bytea, sent_ms FROM {SCHEMA}.audit_outbox WHERE sent_ms IS NOT NULL"
    )
    guard("outbox_mark", "outbox_mark_signed", "INSERT", "a mark is signed", when="octet_length(NEW.signature) <> 64")
    guard("outbox_mark", "outbox_mark_update", "UPDATE", "marks are append-only")
    guard("outbox_mark", "outbox_mark_delete", "DELETE", "marks are append-only")
    grant("outbox_mark", use="SELECT, INSERT", admin="SELECT, INSERT")
    op.execute(f"REVOKE INSERT ON {SCHEMA}.audit_outbox FROM {USE_ROLE}, {ADMIN_ROLE}")
    may = "INSERT (event_id, service, line, signature)"
    grant("audit_outbox", use=may, admin=may)
