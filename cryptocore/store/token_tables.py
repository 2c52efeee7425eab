"""The tables of tokens: one row for each generation of a token, and whose turn it is to clean up.

A row lives until `ended_ms`; then its ciphertext is gone and what is left is a tombstone: when, how, by whom, why.
Triggers keep it so: a tombstone never changes, a row keeps its name and its expiry, and nothing is deleted.
"""

from typing import Final

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    String,
    Table,
    event,
    text,
)

from cryptocore.store.tables import metadata

TOKEN: Final = Table(
    "token",
    metadata,
    Column("owner", LargeBinary(261), primary_key=True),
    Column("token_id", String(128), primary_key=True),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("integration_id", String(128)),
    Column("key_id", LargeBinary(16), nullable=False),
    Column("key_version", BigInteger, nullable=False),
    Column("ciphertext", LargeBinary),
    Column("stored_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("ended_as", String(16)),
    Column("ended_by", String(161)),
    Column("ended_reason", String(32)),
    CheckConstraint("(ended_ms IS NULL) = (ciphertext IS NOT NULL)", name="token_erased"),
    CheckConstraint("(ended_ms IS NULL) = (ended_as IS NULL)", name="token_tombstone"),
)
_LIVE: Final = text("ended_ms IS NULL")


def _index(name: str, *columns: str, unique: bool = False) -> None:
    named = [TOKEN.c[column] for column in columns]
    Index(name, *named, unique=unique, sqlite_where=_LIVE, postgresql_where=_LIVE)


_index("token_live", "owner", "token_id", unique=True)
_index("token_live_integration", "integration_id")
_index("token_live_key", "key_id", "key_version")
_index("token_live_expiry", "expires_ms")

TURN: Final = Table(
    "turn",
    metadata,
    Column("job", String(64), primary_key=True),
    Column("taken_ms", BigInteger, nullable=False),
)

_GUARDS: Final = (
    """
CREATE TRIGGER token_tombstone BEFORE UPDATE ON token WHEN OLD.ended_ms IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a token that ended stays ended'); END
""",
    """
CREATE TRIGGER token_name BEFORE UPDATE ON token
WHEN NEW.owner <> OLD.owner OR NEW.token_id <> OLD.token_id OR NEW.generation <> OLD.generation
    OR NEW.expires_ms <> OLD.expires_ms OR NEW.stored_ms <> OLD.stored_ms
BEGIN SELECT RAISE(ABORT, 'a token keeps its name and its expiry'); END
""",
    """
CREATE TRIGGER token_kept BEFORE DELETE ON token
BEGIN SELECT RAISE(ABORT, 'tombstones of tokens are kept'); END
""",
)
for guard in _GUARDS:
    event.listen(TOKEN, "after_create", DDL(guard).execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call]
