"""The key store: key versions, the history of their records, and the outbox of their events, in one database.

It is not trusted. What is read is believed when its signed record says so: every read verifies the signature and that
the columns agree with the record. Errors are raised `from None`: what SQLAlchemy chains holds the values of the row.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Connection, Engine, func, insert, select, text, tuple_, update
from sqlalchemy.exc import SQLAlchemyError

from cryptocore import forking
from cryptocore.clock import Clock
from cryptocore.envelope import Owner
from cryptocore.errors import KeyRecordRollback, RecordInvalid
from cryptocore.keys import KeyState
from cryptocore.registry import Registry
from cryptocore.store.engine import StoreOptions, engine_of
from cryptocore.store.errors import StoreConflict, errors_of_the_store
from cryptocore.store.outbox import OutboxClaim, OutboxRow, numbered, outbox_row, unsent, vouched
from cryptocore.store.rows import KeyVersion, believed, columns_of
from cryptocore.store.schema import check_schema, metadata
from cryptocore.store.tables import AUDIT_OUTBOX, KEY_HISTORY, KEY_VERSION

if TYPE_CHECKING:
    from cryptocore.store.outbox_marks import OutboxMarks

T = TypeVar("T")

_Judged = tuple[tuple[bytes, int], KeyVersion | RecordInvalid | KeyRecordRollback]

__all__ = ["Change", "KeyStore", "KeyVersion", "OutboxClaim", "OutboxRow", "StoreConflict", "database_ms", "outbox_row"]


@dataclass(frozen=True, slots=True)
class Change:
    """One revision and its event: `line` is the event as it will be sent, without its newline."""

    version: KeyVersion
    event_id: str
    service: str
    line: bytes


class KeyStore:
    """Key versions by id and by owner.

    Opens nothing before its first use. On SQLite it then makes its tables where they are missing; on PostgreSQL it only
    looks whether `keytrail store migrate` has made them.

    Args:
        url: an SQLAlchemy URL of PostgreSQL or SQLite.
        registry: whose signers with the role `keys` are believed.
        options: limits of the connections to PostgreSQL.

    Raises:
        ConfigurationError: it is no such URL, or the connection would not be protected.
        clock: SQLite has no clock but its process's; one given here, in demo and tests, is taken for it.
    """

    def __init__(
        self, url: str, *, registry: Registry, clock: Clock | None = None, options: StoreOptions | None = None
    ) -> None:
        self._make: Callable[[], Engine] = lambda: engine_of(url, options).execution_options(keytrail_clock=clock)
        self._registry = registry
        self._begin()
        forking.renew_in_child(self)

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent, unused and open."""
        forking.keep(self._engine, *self._claimed)
        self._begin()

    def _begin(self) -> None:
        self._engine = self._make()
        self._ready = False
        self._claimed: set[Connection] = set()
        self._lock = threading.Lock()

    def version(self, key_id: bytes, number: int) -> KeyVersion | None:
        """Read one key version.

        Raises:
            RecordInvalid: the row is not to be believed.
            KeyRecordRollback: its own history is ahead of it.
            KeyUnavailable: the store does not answer.
        """
        where = (KEY_VERSION.c.key_id == key_id) & (KEY_VERSION.c.version == number)
        rows = self.transaction(lambda connection: connection.execute(_SELECT.where(where)).mappings().all())
        return believed(rows[0], self._registry) if rows else None

    def page(self, names: Sequence[tuple[bytes, int]]) -> dict[tuple[bytes, int], KeyVersion]:
        """Read several key versions at once, those that are there and believed; `version` says why one is not.

        Raises:
            KeyUnavailable: the store does not answer.
        """
        query = _SELECT.where(tuple_(KEY_VERSION.c.key_id, KEY_VERSION.c.version).in_(names))
        return {name: found for name, found in self._each(query) if isinstance(found, KeyVersion)}

    def versions(self, key_id: bytes) -> list[KeyVersion]:
        """Read all versions of a key, oldest first; raises as `version` does."""
        query = _SELECT.where(KEY_VERSION.c.key_id == key_id).order_by(KEY_VERSION.c.version)
        return [
            believed(row, self._registry) for row in self.transaction(lambda it: it.execute(query).mappings().all())
        ]

    def newest(self, owner: Owner) -> KeyVersion | None:
        """Read the version that encrypts for an owner, else the last one made; raises as `version` does."""
        query = _SELECT.where(KEY_VERSION.c.owner == owner.encode()).order_by(KEY_VERSION.c.version)
        rows = self.transaction(lambda connection: connection.execute(query).mappings().all())
        if not rows:
            return None
        versions = [believed(row, self._registry) for row in rows]
        return max(versions, key=_standing)

    def listed(self, after: tuple[bytes, int] | None, limit: int) -> list[_Judged]:
        """Read key versions in the order of their ids, behind one of them: each believed, or why it is not.

        Raises:
            KeyUnavailable: the store does not answer.
        """
        query = _SELECT.order_by(KEY_VERSION.c.key_id, KEY_VERSION.c.version).limit(limit)
        if after is not None:
            query = query.where(tuple_(KEY_VERSION.c.key_id, KEY_VERSION.c.version) > tuple_(*after))
        return self._each(query)

    def _each(self, query: Any) -> list[_Judged]:
        found: list[_Judged] = []
        for row in self.transaction(lambda connection: connection.execute(query).mappings().all()):
            name = (bytes(row["key_id"]), int(row["version"]))
            try:
                found.append((name, believed(row, self._registry)))
            except (RecordInvalid, KeyRecordRollback) as problem:
                found.append((name, problem))
        return found

    def apply(self, changes: Sequence[Change], *, beside: Sequence[Callable[[Connection], None]] = ()) -> None:
        """Write revisions, their history and their events, all or nothing.

        Args:
            changes: in this order.
            beside: what else is written in the same transaction, after them.

        Raises:
            StoreConflict: a revision is not the next one any more, or the owner has another newest version.
            KeyUnavailable: the store does not answer.
        """

        def write(connection: Connection) -> None:
            _write_all(connection, changes)
            for work in beside:
                work(connection)

        self.transaction(write)

    def outbox(self, service: str, limit: int) -> list[OutboxRow]:
        """Read a service's events that were not relayed yet, oldest first.

        Raises:
            KeyUnavailable: the store does not answer.
        """
        return self.transaction(lambda connection: self._waiting(connection, unsent(service, limit), service))

    def claim(self, service: str, limit: int) -> OutboxClaim:
        """Take such events to relay them; those that another relay has just taken are passed over.

        Raises:
            KeyUnavailable: the store does not answer.
        """
        if self._opened().dialect.name == "sqlite":
            return OutboxClaim(self, self.outbox(service, limit), None)
        with errors_of_the_store():
            connection = self._opened().connect()
            self._claimed.add(connection)
            try:
                transaction = connection.begin()
                query = unsent(service, limit).with_for_update(skip_locked=True)
                rows = self._waiting(connection, query, service)
            except BaseException:
                self.let_go(connection)
                raise
        claim = OutboxClaim(self, rows, (connection, transaction))
        if not rows:
            claim.release()
        return claim

    def unmarked(self, marks: "OutboxMarks") -> list[OutboxRow]:
        """Read the service's events that are marked as sent and of which no signer of its own says so.

        Raises:
            KeyUnavailable: the store does not answer.
        """

        def read(connection: Connection) -> list[OutboxRow]:
            missing = marks.missing(connection)
            return self._waiting(connection, numbered(missing), marks.service) if missing else []

        return self.transaction(read)

    def let_go(self, connection: Connection) -> None:
        """Give back the connection of a claim."""
        self._claimed.discard(connection)
        with contextlib.suppress(SQLAlchemyError):
            connection.close()

    def close(self) -> None:
        """Let go of connections."""
        self._engine.dispose()
        self._ready = False

    def transaction(self, work: Callable[[Connection], T]) -> T:
        """Do work in one transaction of the database.

        Raises:
            StoreConflict: a rule of the tables refused it.
            KeyUnavailable: the store does not answer.
        """
        with errors_of_the_store(), self._opened().begin() as connection:
            return work(connection)

    def _opened(self) -> Engine:
        if not self._ready:
            if self._engine.dialect.name == "sqlite":
                with self._lock, errors_of_the_store(), self._engine.begin() as connection:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")  # another process may be making them, too
                    metadata.create_all(connection)
            else:
                check_schema(self._engine)  # no lock: a server that is away keeps each thread waiting only once
            self._ready = True
        return self._engine

    def _waiting(self, connection: Connection, query: Any, service: str) -> list[OutboxRow]:
        found = []
        for number, stored, signature in connection.execute(query).all():
            line = stored if isinstance(stored, bytes) else b""
            holds, stated = vouched(connection, self._registry, service, line, signature)
            found.append(OutboxRow(number, line, holds, stated))
        return found


_SELECT: Final = select(
    KEY_VERSION,
    select(func.max(KEY_HISTORY.c.revision))
    .where((KEY_HISTORY.c.key_id == KEY_VERSION.c.key_id) & (KEY_HISTORY.c.version == KEY_VERSION.c.version))
    .scalar_subquery()
    .label("last_revision"),
)


def database_ms(connection: Connection) -> int:
    """Ask the database for its own time, in milliseconds since 1970."""
    clock: Clock | None = connection.get_execution_options().get("keytrail_clock")
    if connection.dialect.name == "sqlite":
        if clock is not None:
            return clock.now_us() // 1000
        query = text("SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)")
    else:
        query = text("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)")
    return int(connection.execute(query).scalar_one())


def _standing(version: KeyVersion) -> tuple[bool, bool, int, int]:
    """Order the versions of an owner: the one that encrypts, else one that may yet, else the last one that changed."""
    encrypts = version.record.state is KeyState.ACTIVE and version.newest
    may_yet = version.record.state in (KeyState.PRE_ACTIVATION, KeyState.SUSPENDED) and version.newest
    return encrypts, may_yet, version.record.changed_at_ms, version.number


def _write_all(connection: Connection, changes: Sequence[Change]) -> None:
    for change in changes:
        _write(connection, change)


def _write(connection: Connection, change: Change) -> None:
    version = change.version
    key = {"key_id": version.key_id, "version": version.number}
    signed = {"record": version.signed.record, "signature": version.signed.signature}
    columns = columns_of(version) | signed
    revision = version.record.revision
    if revision == 1:
        connection.execute(insert(KEY_VERSION).values(**columns))
    else:
        where = (KEY_VERSION.c.key_id == version.key_id) & (KEY_VERSION.c.version == version.number)
        moved = connection.execute(
            update(KEY_VERSION).where(where & (KEY_VERSION.c.revision == revision - 1)).values(**columns),
        )
        if moved.rowcount != 1:
            raise StoreConflict
    connection.execute(insert(KEY_HISTORY).values(**key, revision=revision, **signed))
    connection.execute(
        insert(AUDIT_OUTBOX).values(event_id=change.event_id, service=change.service, line=change.line),
    )
