"""How the key store reaches its database: protected, bounded in time, no values in errors, and a commit that is kept.

SQLite is for one machine; PostgreSQL for services that share keys. Nothing else is a key store.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import URL, Engine, ExceptionContext, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from cryptocore.addresses import is_loopback
from cryptocore.errors import ConfigurationError
from cryptocore.store.schema import SCHEMA

BUSY_S: Final = 5
"""How long a transaction on SQLite waits for another one's lock."""
_OLD_TLS: Final = ("TLSv1", "TLSv1.1")
_KEEPALIVE: Final = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""A server that is gone without a word is noticed within half a minute, also by a connection that waits."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Limits of the connections to PostgreSQL.

    Attributes:
        pool_size: connections that are kept.
        pool_more: connections beyond them while many threads ask at once.
        pool_wait_s: for one of them to be free.
        connect_s: for a connection to be made.
        statement_ms: for one statement; more is `KeyUnavailable`.
        lock_ms: for another transaction's lock.
        idle_ms: how long a transaction may do nothing: a process that hangs does not hold its rows for ever.
        allow_plaintext: other than verified TLS to an address that is not of this machine.
    """

    pool_size: int = 5
    pool_more: int = 10
    pool_wait_s: float = 5
    connect_s: int = 5
    statement_ms: int = 10_000
    lock_ms: int = 5_000
    idle_ms: int = 60_000
    allow_plaintext: bool = False


def engine_of(url: str, options: StoreOptions | None = None) -> Engine:
    """Make the engine of an SQLAlchemy URL; it connects when it is first used.

    Raises:
        ConfigurationError: it is no URL of SQLite or PostgreSQL, or the connection would not be protected.
    """
    parsed = url_of(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    return _postgres(parsed, options or StoreOptions())


def url_of(url: str) -> URL:
    """Read the URL of a key store.

    Raises:
        ConfigurationError: it is no URL of SQLite or PostgreSQL; the message holds none of it.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError("the key store's address is not a URL such as postgresql://host/database") from None
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return parsed
    raise ConfigurationError(f"a key store is kept in PostgreSQL or SQLite, not in {parsed.drivername}")


def _sqlite(url: URL) -> Engine:
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_S, "check_same_thread": False}}
    if url.database in (None, "", ":memory:"):
        options["poolclass"] = StaticPool
    engine = create_engine(url, hide_parameters=True, **options)
    event.listen(engine, "connect", _durable)
    return engine


def _durable(connection: Any, _: Any) -> None:
    """Make an SQLite connection keep what it commits."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _postgres(url: URL, options: StoreOptions) -> Engine:
    _check_protected(url, allow_plaintext=options.allow_plaintext)
    try:
        engine = create_engine(
            url,
            hide_parameters=True,
            isolation_level="READ COMMITTED",
            pool_size=options.pool_size,
            max_overflow=options.pool_more,
            pool_timeout=options.pool_wait_s,
            pool_pre_ping=True,  # a server that was started again costs a reconnect, not a refused use
            connect_args=_KEEPALIVE | {"connect_timeout": options.connect_s, "application_name": "keytrail"},
            execution_options={"schema_translate_map": {None: SCHEMA}},
        )
    except (ModuleNotFoundError, NoSuchModuleError):
        raise ConfigurationError('PostgreSQL needs a driver: pip install "keytrail-core[postgres]"') from None
    limits = {
        "statement_timeout": options.statement_ms,
        "lock_timeout": options.lock_ms,
        "idle_in_transaction_session_timeout": options.idle_ms,
    }

    def limit(connection: Any, _: Any) -> None:
        autocommit, connection.autocommit = connection.autocommit, True
        for name, ms in limits.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, str(ms)))
        connection.autocommit = autocommit

    event.listen(engine, "connect", limit)
    event.listen(engine, "handle_error", _leave_replica)
    return engine


def _leave_replica(context: ExceptionContext) -> None:
    """Let go of connections to a server that takes no writes: after a failover, a new one finds the primary."""
    if getattr(context.original_exception, "sqlstate", None) == "25006":
        context.is_disconnect = True


def _check_protected(url: URL, *, allow_plaintext: bool) -> None:
    """Refuse what could send wrapped DEKs and records over a network unprotected, or to somebody who plays the server.

    Raises:
        ConfigurationError: names the setting.
    """
    if "service" in url.query or "PGSERVICE" in os.environ:
        raise ConfigurationError("name the key store's host in its URL, not in a service file")
    if url.query.get("ssl_min_protocol_version", os.environ.get("PGSSLMINPROTOCOLVERSION")) in _OLD_TLS:
        raise ConfigurationError("the key store's URL allows less than TLS 1.2")
    verified = url.query.get("sslmode", os.environ.get("PGSSLMODE")) == "verify-full"
    if not verified and not allow_plaintext and not all(_is_here(host) for host in _hosts(url)):
        raise ConfigurationError(
            "PostgreSQL on another machine needs sslmode=verify-full in its URL (and sslrootcert), "
            "unless plaintext is allowed explicitly (KEYTRAIL_CORE_STORE_ALLOW_PLAINTEXT)"
        )


def _hosts(url: URL) -> Sequence[str]:
    """List every host that libpq may connect to; none stands for the socket of this machine."""
    hosts = [url.host] if url.host else []
    for name, variable in (("host", "PGHOST"), ("hostaddr", "PGHOSTADDR")):
        given = url.query.get(name)
        if given is None and (variable == "PGHOSTADDR" or not hosts):
            given = os.environ.get(variable)
        several = (given,) if isinstance(given, str) else (given or ())
        hosts += [host for one in several for host in one.split(",")]
    return hosts


def _is_here(host: str) -> bool:
    if host.startswith(("/", "@")) or not host:
        return True
    name, _, port = host.rpartition(":")
    return is_loopback(host) or (port.isdigit() and is_loopback(name))
