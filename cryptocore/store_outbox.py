"""The outbox: life-cycle events that wait in the store's database until a relay has put them into a spool."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Transaction, insert, select, update

from cryptocore.events import AuditEvent, encode_line
from cryptocore.records import SignedRecord
from cryptocore.signing import OUTBOX, Signer
from cryptocore.store_errors import errors_of_the_store
from cryptocore.store_tables import AUDIT_OUTBOX

if TYPE_CHECKING:
    from cryptocore.store import KeyStore


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event that waits for the relay.

    Attributes:
        vouched: a signed record of its key version holds its digest, or it is signed itself; anybody who writes the
            table can add other rows.
        stated: the record that vouches for it.
    """

    number: int
    line: bytes
    vouched: bool
    stated: SignedRecord | None = field(default=None, repr=False)


class OutboxClaim:
    """Rows of the outbox that one relay takes; on PostgreSQL no other one is given them until it lets go.

    SQLite has no locks of rows: there, two processes may send an event twice, and the monitor drops the second.
    """

    def __init__(
        self, store: "KeyStore", rows: Sequence[OutboxRow], held: tuple[Connection, Transaction] | None
    ) -> None:
        self._store = store
        self._held = held
        self.rows = rows

    def sent(self, now_ms: int) -> None:
        """Mark the rows: their events are in the spool. Lets go of them.

        Raises:
            KeyUnavailable: the store does not answer; they will be relayed again.
        """
        numbers = [row.number for row in self.rows]
        change = update(AUDIT_OUTBOX).where(AUDIT_OUTBOX.c.number.in_(numbers)).values(sent_ms=now_ms)
        if self._held is None:
            self._store.transaction(lambda connection: connection.execute(change))
            return
        connection, transaction = self._held
        try:
            with errors_of_the_store():
                connection.execute(change)
                transaction.commit()
        finally:
            self.release()

    def release(self) -> None:
        """Let go of what was not marked, for whoever comes next."""
        if self._held is not None:
            connection, _ = self._held
            self._held = None
            self._store.let_go(connection)


def outbox_row(event: AuditEvent, signer: Signer) -> Callable[[Connection], None]:
    """Put an event into the outbox that no key record vouches for; its signature does, of a signer with role `keys`."""
    line = encode_line(event)
    row = {"event_id": event.id, "service": event.service, "line": line, "signature": signer.sign(OUTBOX, line)}

    def write(connection: Connection) -> None:
        connection.execute(insert(AUDIT_OUTBOX).values(**row))

    return write


def unsent(service: str, limit: int) -> Any:
    """Select a service's events that no relay has taken to a spool, oldest first."""
    return (
        select(AUDIT_OUTBOX.c.number, AUDIT_OUTBOX.c.line, AUDIT_OUTBOX.c.signature)
        .where((AUDIT_OUTBOX.c.service == service) & AUDIT_OUTBOX.c.sent_ms.is_(None))
        .order_by(AUDIT_OUTBOX.c.number)
        .limit(limit)
    )
