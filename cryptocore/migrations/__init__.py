"""Revisions of the key store's schema on PostgreSQL, for Alembic, and the words that they are written in."""

from typing import Final

from alembic import op

from cryptocore.store_schema import SCHEMA

REFUSE: Final = f"""
CREATE FUNCTION {SCHEMA}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'integrity_constraint_violation'; END $$
"""
"""What every guard runs; its first argument says why. `0001_keys` makes it."""


def guard(table: str, name: str, act: str, why: str, *, when: str | None = None) -> None:
    """Refuse an act on a table's rows, always or when a condition over OLD and NEW holds.

    Args:
        table: its name, without the schema.
        name: of the trigger; the same as on SQLite.
        act: INSERT, UPDATE or DELETE; with DELETE goes TRUNCATE.
        why: the error's message.
        when: an SQL condition.
    """
    condition = "" if when is None else f"WHEN ({when}) "
    run = f"EXECUTE FUNCTION {SCHEMA}.refuse('{why}')"
    op.execute(f"CREATE TRIGGER {name} BEFORE {act} ON {SCHEMA}.{table} FOR EACH ROW {condition}{run}")
    if act == "DELETE":
        op.execute(f"CREATE TRIGGER {table}_truncate BEFORE TRUNCATE ON {SCHEMA}.{table} FOR EACH STATEMENT {run}")


def grant(table: str, *, use: str, admin: str) -> None:
    """Say what each role may do with a table; DELETE and TRUNCATE are given to nobody.

    Args:
        table: its name, without the schema.
        use: privileges of keytrail_use, such as `SELECT, INSERT`; empty for none.
        admin: what keytrail_admin may do.
    """
    for role, privileges in (("keytrail_use", use), ("keytrail_admin", admin)):
        if privileges:
            op.execute(_IF_ROLE.format(role=role, grant=f"GRANT {privileges} ON {SCHEMA}.{table} TO {role}"))


_IF_ROLE: Final = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN {grant}; END IF;
END $$
"""
"""Roles belong to the server; who migrates may not be allowed to make them. `keytrail store check` tells."""
