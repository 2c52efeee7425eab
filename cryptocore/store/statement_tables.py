"""The table of what people state: labels of keys, the threat level, incidents, ends of KEKs. Append-only."""

from typing import Final

from sqlalchemy import DDL, BigInteger, Column, Index, LargeBinary, String, Table, event

from cryptocore.store.tables import metadata

STATEMENT: Final = Table(
    "statement",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("subject", String(64), primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("stated_ms", BigInteger, nullable=False),
    Column("signer_id", LargeBinary(16), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
)
Index("statement_kind", STATEMENT.c.kind, STATEMENT.c.stated_ms)

for act in ("UPDATE", "DELETE"):
    guard = f"""
CREATE TRIGGER statement_{act.lower()} BEFORE {act} ON statement
BEGIN SELECT RAISE(ABORT, 'statements are append-only'); END
"""
    event.listen(STATEMENT, "after_create", DDL(guard).execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call]
