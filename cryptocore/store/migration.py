"""Bring the key store's schema on PostgreSQL to what this program works with. Done by a person, never by a service."""

from typing import Any, Final

from sqlalchemy import Connection, inspect, text

from cryptocore.errors import ConfigurationError
from cryptocore.store.engine import StoreOptions, engine_of
from cryptocore.store.errors import errors_of_the_store
from cryptocore.store.schema import ADMIN_ROLE, REVISIONS, SCHEMA, USE_ROLE, VERSION_TABLE

_ALONE: Final = 0x6B657974
"""Advisory lock: two people who migrate at the same moment do it one after the other."""
_WAIT_MS: Final = 60_000


def migrate(url: str, *, options: StoreOptions | None = None) -> list[str]:
    """Apply the revisions that the database does not have, all of them or none.

    Args:
        url: of PostgreSQL, as a user who owns the database or its schema `keytrail`.
        options: of the connection.

    Returns:
        The revisions applied.

    Raises:
        ConfigurationError: it is not PostgreSQL, its schema is newer than this program, a role is missing that this
            user may not make, or Alembic is not installed.
        KeyUnavailable: the database does not answer, or refuses.
    """
    engine = engine_of(url, options)
    if engine.dialect.name == "sqlite":
        raise ConfigurationError("SQLite needs no migration: the store makes its tables itself")
    try:
        with errors_of_the_store(), engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = {_WAIT_MS}; SET LOCAL statement_timeout = 0"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ALONE})"))
            before = revision_of(connection)
            if before is not None and before not in REVISIONS:
                raise ConfigurationError(f"the schema is {before}, newer than this program ({REVISIONS[-1]})")
            if not inspect(connection).has_schema(SCHEMA):
                connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
            _check_roles(connection)
            _upgrade(connection)
            return list(REVISIONS[0 if before is None else REVISIONS.index(before) + 1 :])
    finally:
        engine.dispose()


def revision_of(connection: Connection) -> str | None:
    """Say which revision a PostgreSQL database has; None when it has none."""
    if not inspect(connection).has_table(VERSION_TABLE, schema=SCHEMA):
        return None
    found: str | None = connection.execute(text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}")).scalar()  # noqa: S608 - constants
    return found


def _upgrade(connection: Connection) -> None:
    try:
        from alembic.config import Config  # noqa: PLC0415 - the extra `postgres`
        from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415
        from alembic.script import ScriptDirectory  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigurationError('migrations need Alembic: pip install "keytrail-core[postgres]"') from None
    config = Config()
    config.set_main_option("script_location", "cryptocore:migrations")
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def steps(revision: Any, _: Any) -> Any:
        return script._upgrade_revs(REVISIONS[-1], revision)  # noqa: SLF001 - as Alembic's own `upgrade` command does

    with EnvironmentContext(config, script, fn=steps, destination_rev=REVISIONS[-1]) as environment:
        environment.configure(
            connection=connection,
            version_table=VERSION_TABLE,
            version_table_schema=SCHEMA,
            transactional_ddl=False,  # the caller's transaction is around everything
        )
        environment.run_migrations()


def _check_roles(connection: Connection) -> None:
    """Roles belong to the server, and who owns a database may not be allowed to make them.

    Raises:
        ConfigurationError: holds the statements that an administrator must run first.
    """
    known = {row[0] for row in connection.execute(text("SELECT rolname FROM pg_roles"))}
    missing = [role for role in (USE_ROLE, ADMIN_ROLE) if role not in known]
    may = text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    if missing and not connection.execute(may).scalar():
        statements = " ".join(f"CREATE ROLE {role} NOLOGIN;" for role in missing)
        raise ConfigurationError(f"this user may not make roles; let an administrator run first: {statements}")
