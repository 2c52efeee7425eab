"""How the key store reaches its database: no values in errors, and what SQLite is told so that it keeps a commit."""

from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import StaticPool

BUSY_S: Final = 5
"""How long a transaction waits for another one's lock."""


def engine_of(url: str) -> Engine:
    """Make the engine of an SQLAlchemy URL; it connects when it is first used."""
    options: dict[str, Any] = {"hide_parameters": True}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": BUSY_S, "check_same_thread": False}
        if url in ("sqlite://", "sqlite:///:memory:"):
            options["poolclass"] = StaticPool
    engine = create_engine(url, **options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _durable)
    return engine


def _durable(connection: Any, _: Any) -> None:
    """Make an SQLite connection keep what it commits."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
