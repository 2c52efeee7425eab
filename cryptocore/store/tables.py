"""The tables of the key store. Columns are an index over the signed records; nobody believes them alone.

History is append-only and a row moves on by exactly one revision: triggers refuse anything else, so that a slip in our
own code cannot do it either. Who owns the database can drop a trigger; against that stand the signatures, the revisions
that a process has seen, and the monitor.
"""

from typing import Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    event,
    text,
)

metadata: Final = MetaData()

KEY_VERSION: Final = Table(
    "key_version",
    metadata,
    Column("key_id", LargeBinary(16), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("owner", LargeBinary(261), nullable=False),
    Column("superseded_by", BigInteger, nullable=False),
    Column("retire_at_ms", BigInteger, nullable=False),
    Column("kek_alias", String(128), nullable=False),
    Column("kek_version", String(128), nullable=False),
    Column("wrapped_dek", LargeBinary, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
)
_NEWEST: Final = text("state = 'active' AND superseded_by = 0")
Index("key_version_owner", KEY_VERSION.c.owner)
Index(
    "key_version_newest",
    KEY_VERSION.c.owner,
    unique=True,
    sqlite_where=_NEWEST,
    postgresql_where=_NEWEST,
)

KEY_HISTORY: Final = Table(
    "key_history",
    metadata,
    Column("key_id", LargeBinary(16), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("record", LargeBinary, nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
)

AUDIT_OUTBOX: Final = Table(
    "audit_outbox",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    Column("event_id", String(36), nullable=False),
    Column("service", String(64), nullable=False),
    Column("line", LargeBinary, nullable=False),
    Column("signature", LargeBinary(64)),
    Column("sent_ms", BigInteger),
    UniqueConstraint("event_id"),
)
_UNSENT: Final = text("sent_ms IS NULL")
Index(
    "audit_outbox_unsent", AUDIT_OUTBOX.c.service, AUDIT_OUTBOX.c.number, sqlite_where=_UNSENT, postgresql_where=_UNSENT
)
Index("audit_outbox_service", AUDIT_OUTBOX.c.service, AUDIT_OUTBOX.c.number)

OUTBOX_MARK: Final = Table(
    "outbox_mark",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("signature", LargeBinary(64), primary_key=True),
    Column("sent_ms", BigInteger, nullable=False),
)
"""Who took an event of the outbox to a spool signs that; an empty signature is of the time before there were marks."""
OUTBOX_MARK.add_is_dependent_on(AUDIT_OUTBOX)

_STEP: Final = """
CREATE TRIGGER key_version_step BEFORE UPDATE ON key_version
WHEN NEW.revision <> OLD.revision + 1 OR NEW.key_id <> OLD.key_id OR NEW.version <> OLD.version
    OR NEW.owner <> OLD.owner
BEGIN SELECT RAISE(ABORT, 'a key version moves on by one revision'); END
"""
_FIRST: Final = """
CREATE TRIGGER key_version_first BEFORE INSERT ON key_version WHEN NEW.revision <> 1
BEGIN SELECT RAISE(ABORT, 'a key version begins with revision 1'); END
"""
_MARKED_BEFORE: Final = """
INSERT INTO outbox_mark SELECT number, x'', sent_ms FROM audit_outbox WHERE sent_ms IS NOT NULL
"""
_MARK_SIGNED: Final = """
CREATE TRIGGER outbox_mark_signed BEFORE INSERT ON outbox_mark WHEN length(NEW.signature) <> 64
BEGIN SELECT RAISE(ABORT, 'a mark is signed'); END
"""
_REFUSED: Final = "CREATE TRIGGER {table}_{act} BEFORE {act} ON {table} BEGIN SELECT RAISE(ABORT, '{why}'); END"

for table, statements in {
    KEY_VERSION: (_STEP, _FIRST, _REFUSED.format(table="key_version", act="DELETE", why="key versions are kept")),
    KEY_HISTORY: tuple(
        _REFUSED.format(table="key_history", act=act, why="history is append-only") for act in ("UPDATE", "DELETE")
    ),
    AUDIT_OUTBOX: (_REFUSED.format(table="audit_outbox", act="DELETE", why="events are kept"),),
    OUTBOX_MARK: (
        _MARKED_BEFORE,
        _MARK_SIGNED,
        *(_REFUSED.format(table="outbox_mark", act=act, why="marks are append-only") for act in ("UPDATE", "DELETE")),
    ),
}.items():
    for statement in statements:
        event.listen(table, "after_create", DDL(statement).execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call]

_INDEX: Final = "CREATE INDEX IF NOT EXISTS audit_outbox_service ON audit_outbox (service, number)"
event.listen(metadata, "after_create", DDL(_INDEX).execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call] # a table made before gets it, too
