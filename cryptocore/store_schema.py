"""All tables of the key store's database, and what PostgreSQL calls them.

On SQLite the store makes its tables itself. On PostgreSQL `keytrail store migrate` does, by the revisions in
cryptocore/migrations; the store only reads which of them the database has.
"""

from typing import Final

from cryptocore import rotation_tables, statement_tables, token_tables
from cryptocore.store_tables import metadata

SCHEMA: Final = "keytrail"
VERSION_TABLE: Final = "keytrail_migration"
REVISIONS: Final = ("0001_keys", "0002_rotations", "0003_tokens", "0004_incidents")
"""Of cryptocore/migrations/versions, oldest first; the last one is what this code works with."""
USE_ROLE: Final = "keytrail_use"
ADMIN_ROLE: Final = "keytrail_admin"

__all__ = ["ADMIN_ROLE", "REVISIONS", "SCHEMA", "USE_ROLE", "VERSION_TABLE", "metadata"]

_MODULES: Final = (rotation_tables, statement_tables, token_tables)
"""Imported so that their tables are in the metadata."""
