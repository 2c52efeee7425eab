"""The tables beside key versions: rotations, approvals counted, destructions, recovery grants, cursors, imported DEKs.

Nothing here makes a key usable. What a rotation or a destruction has reached is read from signed records; approvals are
verified again whenever they are used, and what the database alone says is only a list of work.
"""

from typing import Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Index,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    event,
    text,
)

from cryptocore.store.tables import metadata

ROTATION: Final = Table(
    "rotation",
    metadata,
    Column("rotation_id", LargeBinary(16), primary_key=True),
    Column("key_id", LargeBinary(16), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("owner", LargeBinary(261), nullable=False),
    Column("next_key_id", LargeBinary(16), nullable=False),
    Column("next_version", BigInteger, nullable=False),
    Column("reason", String(32), nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("rows_left", BigInteger),
    Column("reported_ms", BigInteger),
    Column("finished_ms", BigInteger),
    UniqueConstraint("key_id", "version"),
)
_OPEN: Final = text("finished_ms IS NULL")
Index("rotation_due", ROTATION.c.due_ms, sqlite_where=_OPEN, postgresql_where=_OPEN)
Index("rotation_owner", ROTATION.c.owner)

APPROVAL_NONCE: Final = Table(
    "approval_nonce",
    metadata,
    Column("nonce", LargeBinary(16), primary_key=True),
    Column("action", BigInteger, nullable=False),
    Column("signer_id", LargeBinary(16), nullable=False),
    Column("subject_sha256", LargeBinary(32), nullable=False),
    Column("used_ms", BigInteger, nullable=False),
)

DESTRUCTION: Final = Table(
    "destruction",
    metadata,
    Column("destruction_id", LargeBinary(16), primary_key=True),
    Column("request", LargeBinary, nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
    Column("signer_id", LargeBinary(16), nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("restored_ms", BigInteger),
    Column("begun_ms", BigInteger),
    Column("overwritten_ms", BigInteger),
    Column("certificate", LargeBinary),
)

RECOVERY_GRANT: Final = Table(
    "recovery_grant",
    metadata,
    Column("grant_id", LargeBinary(16), primary_key=True),
    Column("owner", LargeBinary(261), nullable=False),
    Column("key_id", LargeBinary(16), nullable=False),
    Column("approvals", LargeBinary, nullable=False),
    Column("granted_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)
Index("recovery_grant_key", RECOVERY_GRANT.c.key_id, RECOVERY_GRANT.c.expires_ms)

WORK_CURSOR: Final = Table(
    "work_cursor",
    metadata,
    Column("name", String(512), primary_key=True),
    Column("cursor", LargeBinary, nullable=False),
    Column("moved_ms", BigInteger, nullable=False),
)

IMPORTED_DEK: Final = Table(
    "imported_dek",
    metadata,
    Column("blob_sha256", LargeBinary(32), primary_key=True),
    Column("owner", LargeBinary(261), nullable=False),
    Column("key_id", LargeBinary(16), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("imported_ms", BigInteger, nullable=False),
)
Index("imported_dek_owner", IMPORTED_DEK.c.owner)

_REFUSED: Final = "CREATE TRIGGER {table}_{name} BEFORE {act} ON {table} BEGIN SELECT RAISE(ABORT, '{why}'); END"
_KEPT: Final = {
    ROTATION: ("DELETE",),
    APPROVAL_NONCE: ("UPDATE", "DELETE"),
    DESTRUCTION: ("DELETE",),
    RECOVERY_GRANT: ("UPDATE", "DELETE"),
    WORK_CURSOR: ("DELETE",),
    IMPORTED_DEK: ("UPDATE", "DELETE"),
}
for table, acts in _KEPT.items():
    for act in acts:
        name = "kept" if act == "DELETE" else "fixed"
        statement = _REFUSED.format(table=table.name, name=name, act=act, why=f"{table.name} rows are kept")
        event.listen(table, "after_create", DDL(statement).execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call]

_CHANGED: Final = " OR ".join(
    (
        "(OLD.restored_ms IS NOT NULL AND (NEW.restored_ms IS NULL OR NEW.restored_ms <> OLD.restored_ms))",
        *(
            f"NEW.{column} <> OLD.{column}"
            for column in ("destruction_id", "request", "signature", "signer_id", "due_ms")
        ),
    )
)
"""What no update of a destruction does: bring one that was called off to life again, or change what was asked for.

Its approvals are in the request.
"""
_FINAL: Final = f"""
CREATE TRIGGER IF NOT EXISTS destruction_final BEFORE UPDATE ON destruction WHEN {_CHANGED}
BEGIN SELECT RAISE(ABORT, 'a destruction keeps its request, and called off it stays so'); END
"""
event.listen(metadata, "after_create", DDL(_FINAL).execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call] # a table made before gets it, too
