"""Rotations, approvals, destructions, recovery grants, cursors, imported DEKs (cryptocore/store/rotation_tables.py)."""

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

from cryptocore.migrations import grant, guard
from cryptocore.store.schema import SCHEMA

revision = "0002_rotations"
down_revision: str | None = "0001_keys"

_OPEN: Final = sa.text("finished_ms IS NULL")


def upgrade() -> None:
    """Make the tables, their guards and what the roles may do."""
    _rotation()
    _destruction()
    _approvals()
    _work()
    for table in ("rotation", "destruction"):
        grant(table, use="SELECT", admin="SELECT, INSERT, UPDATE")
    grant("work_cursor", use="SELECT, INSERT, UPDATE", admin="SELECT, INSERT, UPDATE")  # services re-encrypt their rows
    for table in ("approval_nonce", "recovery_grant", "imported_dek"):
        grant(table, use="SELECT", admin="SELECT, INSERT")
        guard(table, f"{table}_fixed", "UPDATE", f"{table} rows are append-only")
    for table in ("rotation", "destruction", "work_cursor", "approval_nonce", "recovery_grant", "imported_dek"):
        guard(table, f"{table}_kept", "DELETE", f"{table} rows are kept")


def _rotation() -> None:
    op.create_table(
        "rotation",
        _id("rotation_id"),
        _bytes("key_id", 16),
        _number("version"),
        _bytes("owner", 261),
        _bytes("next_key_id", 16),
        _number("next_version"),
        sa.Column("reason", sa.String(32), nullable=False),
        _number("opened_ms"),
        _number("due_ms"),
        _number("rows_left", nullable=True),
        _number("reported_ms", nullable=True),
        _number("finished_ms", nullable=True),
        sa.UniqueConstraint("key_id", "version"),
        schema=SCHEMA,
    )
    op.create_index("rotation_due", "rotation", ["due_ms"], schema=SCHEMA, postgresql_where=_OPEN)
    op.create_index("rotation_owner", "rotation", ["owner"], schema=SCHEMA)


def _destruction() -> None:
    op.create_table(
        "destruction",
        _id("destruction_id"),
        _bytes("request"),
        _bytes("signature", 64),
        _bytes("signer_id", 16),
        _number("due_ms"),
        _number("restored_ms", nullable=True),
        _number("begun_ms", nullable=True),
        _number("overwritten_ms", nullable=True),
        sa.Column("certificate", sa.LargeBinary),
        schema=SCHEMA,
    )


def _approvals() -> None:
    op.create_table(
        "approval_nonce",
        _id("nonce"),
        _number("action"),
        _bytes("signer_id", 16),
        _bytes("subject_sha256", 32),
        _number("used_ms"),
        schema=SCHEMA,
    )
    op.create_table(
        "recovery_grant",
        _id("grant_id"),
        _bytes("owner", 261),
        _bytes("key_id", 16),
        _bytes("approvals"),
        _number("granted_ms"),
        _number("expires_ms"),
        schema=SCHEMA,
    )
    op.create_index("recovery_grant_key", "recovery_grant", ["key_id", "expires_ms"], schema=SCHEMA)


def _work() -> None:
    op.create_table(
        "work_cursor",
        sa.Column("name", sa.String(512), primary_key=True),
        _bytes("cursor"),
        _number("moved_ms"),
        schema=SCHEMA,
    )
    op.create_table(
        "imported_dek",
        _id("blob_sha256", 32),
        _bytes("owner", 261),
        _bytes("key_id", 16),
        _number("version"),
        _number("imported_ms"),
        schema=SCHEMA,
    )
    op.create_index("imported_dek_owner", "imported_dek", ["owner"], schema=SCHEMA)


def _id(name: str, size: int = 16) -> "sa.Column[Any]":
    return sa.Column(name, sa.LargeBinary(size), primary_key=True)


def _bytes(name: str, size: int | None = None) -> "sa.Column[Any]":
    return sa.Column(name, sa.LargeBinary(size), nullable=False)


def _number(name: str, *, nullable: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, sa.BigInteger, nullable=nullable)
