"""Revisions of the key store's schema on PostgreSQL, for Alembic, and the words that they are written in."""

from typing import Final

from alembic import op

from cryptocore.store.schema import ADMIN_ROLE, SCHEMA, USE_ROLE

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
    for role, privileges in ((USE_ROLE, use), (ADMIN_ROLE, admin)):
        if privileges:
            op.execute(f"GRANT {privileges} ON {SCHEMA}.{table} TO {role}")


def make_roles() -> None:
    """Make the two roles where they are missing, and let both look into the schema.

    Roles belong to the server, not to the database: another database's migration may make them at this moment.
    """
    for role in (USE_ROLE, ADMIN_ROLE):
        op.execute(_ROLE.format(role=role))
        op.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}")


_ROLE: Final = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} NOLOGIN; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""
