"""All tables of the key store's database, and what PostgreSQL calls them.

On SQLite the store makes its tables itself. On PostgreSQL `keytrail store migrate` does, by the revisions in
cryptocore/migrations; the store only reads which of them the database has.
"""

from typing import Final

from sqlalchemy import Engine, inspect, text

from cryptocore.errors import KeyUnavailable
from cryptocore.store import rotation_tables, statement_tables, token_tables
from cryptocore.store.errors import MIGRATE, errors_of_the_store
from cryptocore.store.tables import metadata

SCHEMA: Final = "keytrail"
VERSION_TABLE: Final = "keytrail_migration"
REVISIONS: Final = ("0001_keys", "0002_rotations", "0003_tokens", "0004_incidents", "0005_marks")
"""Of cryptocore/migrations/versions, oldest first; the last one is what this code works with."""
USE_ROLE: Final = "keytrail_use"
ADMIN_ROLE: Final = "keytrail_admin"

__all__ = ["ADMIN_ROLE", "REVISIONS", "SCHEMA", "USE_ROLE", "VERSION_TABLE", "check_schema", "metadata"]

_MODULES: Final = (rotation_tables, statement_tables, token_tables)
"""Imported so that their tables are in the metadata."""


def check_schema(engine: Engine) -> None:
    """See that PostgreSQL has the tables of this program; newer ones will do.

    Raises:
        KeyUnavailable: they are missing or older, and how to make them; or the server does not answer.
    """
    with errors_of_the_store(), engine.connect() as connection:
        if not inspect(connection).has_table(VERSION_TABLE, schema=SCHEMA):
            raise KeyUnavailable(
                f"the key store has no schema {SCHEMA}, or none you may see: {MIGRATE}", retryable=False
            )
        found = connection.execute(text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}")).scalar()  # noqa: S608 - constants
    if found in REVISIONS[:-1] or found is None:
        older = found or "empty"
        raise KeyUnavailable(
            f"the key store's schema is {older}, this program needs {REVISIONS[-1]}: {MIGRATE}", retryable=False
        )
