"""Is the key store's database as it must be? Asked as the service that uses it, answered as a list.

PostgreSQL is looked at from outside of our own code: schema, guards, grants and clock. SQLite's tables are made by this
program, and its file belongs to whoever may read it.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from cryptocore.errors import KeyUnavailable
from cryptocore.store.engine import StoreOptions, engine_of
from cryptocore.store.errors import MIGRATE, errors_of_the_store
from cryptocore.store.key_store import database_ms
from cryptocore.store.migration import revision_of
from cryptocore.store.schema import ADMIN_ROLE, REVISIONS, SCHEMA, USE_ROLE, metadata

CLOCKS_APART_MS: Final = 2_000
"""Cooling-off, due dates and approvals go by the database's clock, events by this machine's."""
GUARDS: Final = {
    "approval_nonce": {"approval_nonce_fixed", "approval_nonce_kept", "approval_nonce_truncate"},
    "audit_outbox": {"audit_outbox_delete", "audit_outbox_truncate"},
    "destruction": {"destruction_final", "destruction_kept", "destruction_truncate"},
    "imported_dek": {"imported_dek_fixed", "imported_dek_kept", "imported_dek_truncate"},
    "key_history": {"key_history_delete", "key_history_truncate", "key_history_update"},
    "key_version": {"key_version_delete", "key_version_first", "key_version_step", "key_version_truncate"},
    "outbox_mark": {"outbox_mark_delete", "outbox_mark_signed", "outbox_mark_truncate", "outbox_mark_update"},
    "recovery_grant": {"recovery_grant_fixed", "recovery_grant_kept", "recovery_grant_truncate"},
    "rotation": {"rotation_kept", "rotation_truncate"},
    "statement": {"statement_delete", "statement_truncate", "statement_update"},
    "token": {"token_kept", "token_name", "token_tombstone", "token_truncate"},
    "work_cursor": {"work_cursor_kept", "work_cursor_truncate"},
}
"""Triggers by table, as the migrations make them."""
_LOCKED: Final = ("key_version", "key_history")
"""Only keytrail_admin writes them."""


@dataclass(frozen=True, slots=True)
class Look:
    """One thing looked at.

    Attributes:
        subject: what.
        well: how it is; None when it is no fault, but somebody should know.
        says: what was found, without any secret.
        do: what a person should do; empty when nothing.
    """

    subject: str
    well: bool | None
    says: str
    do: str = ""


def check(url: str, *, options: StoreOptions | None = None) -> list[Look]:
    """Look at a key store, with the rights of the URL's user.

    Raises:
        ConfigurationError: the URL is none of a key store, or the connection would not be protected.
    """
    engine = engine_of(url, options)
    if engine.dialect.name == "sqlite" and engine.url.database and not Path(engine.url.database).exists():
        return [Look("file", None, "there is none yet; the first use makes it")]
    try:
        with errors_of_the_store(), engine.connect() as connection:
            return list(_sqlite(connection) if engine.dialect.name == "sqlite" else _postgres(connection))
    except KeyUnavailable as error:
        return [Look("connection", False, str(error), "look at the address, the server and the user's rights")]
    finally:
        engine.dispose()


def _sqlite(connection: Connection) -> Iterator[Look]:
    damage = connection.execute(text("PRAGMA quick_check(1)")).scalar()
    if damage != "ok":
        yield Look("file", False, "the file is damaged", "restore it; keep what there is for whoever looks into it")
    known = set(inspect(connection).get_table_names())
    missing = sorted(set(metadata.tables) - known)
    if not known:
        yield Look("schema", None, "it is empty; the first use makes its tables")
    elif missing:
        yield Look("schema", None, f"tables are missing and made at the next use: {', '.join(missing)}")
    else:
        yield Look("schema", True, "all tables are there")
    yield Look("kind", None, "SQLite: for one machine, without roles; its file's mode is what protects it")


def _postgres(connection: Connection) -> Iterator[Look]:
    found = revision_of(connection)
    if found is None:
        yield Look("schema", False, f"there is no schema {SCHEMA}, or none this user may see", MIGRATE)
        return
    if found in REVISIONS[:-1]:
        yield Look("schema", False, f"is {found}, this program needs {REVISIONS[-1]}", MIGRATE)
        return
    if found == REVISIONS[-1]:
        yield Look("schema", True, f"is {found}")
    else:
        yield Look("schema", None, f"is {found}, newer than this program ({REVISIONS[-1]})", "upgrade the program")
    yield _guards(connection)
    yield _unique(connection)
    yield from _user(connection)
    yield from _grants(connection)
    yield _clock(connection)
    yield _transport(connection)


def _guards(connection: Connection) -> Look:
    query = text(
        "SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc p ON p.oid = t.tgfoid"
        " WHERE n.nspname = :schema AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')"
        " AND p.proname = 'refuse' AND p.pronamespace = n.oid AND p.prosrc LIKE '%RAISE EXCEPTION%'"
    )
    there = {(row[0], row[1]) for row in connection.execute(query, {"schema": SCHEMA})}
    missing = sorted(name for table, names in GUARDS.items() for name in names if (table, name) not in there)
    if missing:
        return Look(
            "triggers",
            False,
            f"missing or switched off: {', '.join(missing)}",
            "find out who did it and when; make them again as cryptocore/migrations does",
        )
    return Look("triggers", True, f"all {sum(map(len, GUARDS.values()))} are there and on")


def _unique(connection: Connection) -> Look:
    query = text(
        "SELECT i.indisunique AND i.indisvalid AND pg_get_expr(i.indpred, i.indrelid) IS NOT NULL"
        " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = :schema AND c.relname = 'key_version_newest'"
    )
    if connection.execute(query, {"schema": SCHEMA}).scalar():
        return Look("one key per owner", True, "the unique index key_version_newest holds")
    return Look(
        "one key per owner",
        False,
        "the unique index key_version_newest is missing or not valid",
        "two newest versions of one owner are possible; look for them, then make the index again",
    )


def _user(connection: Connection) -> Iterator[Look]:
    query = text(
        "SELECT current_user, r.rolsuper, pg_has_role(current_user, c.relowner, 'USAGE'), r.rolbypassrls"
        " FROM pg_roles r, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE r.rolname = current_user AND n.nspname = :schema AND c.relname = 'key_version'"
    )
    name, superuser, owner, _ = connection.execute(query, {"schema": SCHEMA}).one()
    if superuser or owner:
        kind = "a superuser" if superuser else "the owner of the tables"
        yield Look(
            "user",
            False,
            f"{name} is {kind}: it can switch off triggers and delete",
            f"let services connect as a user of their own: GRANT {USE_ROLE} or {ADMIN_ROLE} TO it",
        )
        return
    member = text("SELECT pg_has_role(current_user, oid, 'USAGE') FROM pg_roles WHERE rolname = :role")
    has = [role for role in (ADMIN_ROLE, USE_ROLE) if connection.execute(member, {"role": role}).scalar()]
    if has:
        yield Look("user", True, f"{name} has {has[0]}")
    else:
        yield Look("user", False, f"{name} has neither {USE_ROLE} nor {ADMIN_ROLE}", f"GRANT {USE_ROLE} TO it")


def _grants(connection: Connection) -> Iterator[Look]:
    grants = [(row[0], row[1], row[2]) for row in connection.execute(text(_GRANTS), {"schema": SCHEMA})]
    wrong = {
        f"{role} {act} on {table}"
        for table, role, act in grants
        if act in ("DELETE", "TRUNCATE", "TRIGGER")
        or role == "PUBLIC"
        or (act in ("INSERT", "UPDATE") and table in _LOCKED and role != ADMIN_ROLE)
        or (act == "UPDATE" and table == "key_history")
    }
    chosen = text("SELECT has_column_privilege(:role, :table, 'number', 'INSERT')")
    wrong |= {
        f"{role} INSERT of a number on audit_outbox"
        for role in (USE_ROLE, ADMIN_ROLE)
        if connection.execute(chosen, {"role": role, "table": f"{SCHEMA}.audit_outbox"}).scalar()
    }
    if wrong:
        yield Look("grants", False, f"too much: {', '.join(sorted(wrong))}", "REVOKE them; nobody deletes")
    missing = {
        f"{role} {act} on {table}"
        for table, role, act in (
            ("key_version", USE_ROLE, "SELECT"),
            ("key_history", USE_ROLE, "SELECT"),
            ("audit_outbox", USE_ROLE, "INSERT"),
            ("key_version", ADMIN_ROLE, "INSERT"),
            ("key_version", ADMIN_ROLE, "UPDATE"),
            ("key_history", ADMIN_ROLE, "INSERT"),
            ("audit_outbox", USE_ROLE, "UPDATE"),
            ("audit_outbox", ADMIN_ROLE, "INSERT"),
            ("audit_outbox", ADMIN_ROLE, "UPDATE"),
            ("outbox_mark", USE_ROLE, "INSERT"),
            ("outbox_mark", ADMIN_ROLE, "INSERT"),
        )
        if (table, role, act) not in grants
    }
    if missing:
        yield Look("grants", False, f"missing: {', '.join(sorted(missing))}", "GRANT them again")
    if not wrong and not missing:
        yield Look("grants", True, f"{USE_ROLE} reads keys, {ADMIN_ROLE} writes them, nobody deletes")


_GRANTS: Final = """
SELECT c.relname, COALESCE(r.rolname, 'PUBLIC'), a.privilege_type
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT grantee, privilege_type FROM aclexplode(c.relacl)
    UNION SELECT g.grantee, g.privilege_type FROM pg_attribute t, aclexplode(t.attacl) g WHERE t.attrelid = c.oid
) a
LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE n.nspname = :schema AND c.relkind = 'r' AND a.grantee <> c.relowner
"""
"""Of tables and of their columns."""


def _clock(connection: Connection) -> Look:
    before = time.time_ns() // 1_000_000
    theirs = database_ms(connection)
    ours = (before + time.time_ns() // 1_000_000) // 2
    ahead = theirs - ours
    says = f"{abs(ahead) / 1000:.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine"
    if abs(ahead) > CLOCKS_APART_MS:
        return Look("clock", False, says, "let NTP or chrony set both clocks")
    return Look("clock", True, says)


def _transport(connection: Connection) -> Look:
    query = text("SELECT version, inet_client_addr() IS NULL FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    version, socket = connection.execute(query).one()
    if version is not None:
        return Look("transport", True, f"{version}")
    return Look("transport", None, "a local socket" if socket else "without TLS, on loopback or because it was allowed")
