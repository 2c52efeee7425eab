"""The outbox: life-cycle events that wait in the store's database until a relay has put them into a spool."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Transaction, insert, select, update

from cryptocore.clock import parse_rfc3339
from cryptocore.errors import EventInvalid, RecordInvalid
from cryptocore.events import AuditEvent, decode_line, encode_line
from cryptocore.lines.vocabulary import LIFE_CYCLE
from cryptocore.records import SignedRecord
from cryptocore.registry import Registry, Role
from cryptocore.signing import OUTBOX, SignatureInvalid, Signer, verify
from cryptocore.store.errors import errors_of_the_store
from cryptocore.store.rows import verified
from cryptocore.store.tables import AUDIT_OUTBOX, KEY_HISTORY

if TYPE_CHECKING:
    from cryptocore.store.key_store import KeyStore


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

    def sent(self, now_ms: int, beside: Callable[[Connection], None] | None = None) -> None:
        """Mark the rows: their events are in the spool. Lets go of them.

        Args:
            now_ms: the time.
            beside: what is written in the same transaction: the marks of `OutboxMarks`.

        Raises:
            KeyUnavailable: the store does not answer; they will be relayed again.
        """
        numbers = [row.number for row in self.rows]
        change = update(AUDIT_OUTBOX).where(AUDIT_OUTBOX.c.number.in_(numbers)).values(sent_ms=now_ms)

        def write(connection: Connection) -> None:
            connection.execute(change)
            if beside is not None:
                beside(connection)

        if self._held is None:
            self._store.transaction(write)
            return
        connection, transaction = self._held
        try:
            with errors_of_the_store():
                write(connection)
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


def numbered(numbers: Sequence[int]) -> Any:
    """Select events by their numbers, oldest first."""
    query = select(AUDIT_OUTBOX.c.number, AUDIT_OUTBOX.c.line, AUDIT_OUTBOX.c.signature)
    return query.where(AUDIT_OUTBOX.c.number.in_(numbers)).order_by(AUDIT_OUTBOX.c.number)


def vouched(
    connection: Connection, registry: Registry, service: str, line: bytes, signature: object
) -> tuple[bool, SignedRecord | None]:
    """Say whether a signature of its own, or which signed record, holds for this event of the service.

    Only the service's own signers count: another one that shares the store must not speak under this one's seal.
    """
    try:
        event = decode_line(line)
    except EventInvalid:
        return False, None
    if not isinstance(event, AuditEvent) or event.service != service or event.operation not in LIFE_CYCLE:
        return False, None
    if signature is not None or event.key is None:
        return _signed(registry, event, line, signature), None
    named = (bytes.fromhex(event.key.id), event.key.version, event.key.revision)
    where = (KEY_HISTORY.c.key_id == named[0]) & (KEY_HISTORY.c.version == named[1])
    row = connection.execute(_HISTORY.where(where & (KEY_HISTORY.c.revision == named[2]))).mappings().first()
    if row is None:
        return False, None
    try:
        record, signed = verified(row, registry)
    except RecordInvalid:
        return False, None
    said = (record.key_id, record.key_version, record.revision)
    entry = registry.get(record.signer_id)
    ours = entry is not None and entry.source == service
    holds = ours and said == named and record.event_sha256 == sha256(line).digest()
    return holds, signed if holds else None


def _signed(registry: Registry, event: AuditEvent, line: bytes, signature: object) -> bool:
    """Say whether a signer of the event's service with the role `keys` signed the line."""
    at_ms = parse_rfc3339(event.occurred_at) // 1000
    return isinstance(signature, bytes) and signed_by(registry, event.service, OUTBOX, line, signature, at_ms)


def signed_by(  # noqa: PLR0917 - whose signature, of what, and when
    registry: Registry, service: str, label: str, message: bytes, signature: bytes, at_ms: int
) -> bool:
    """Say whether a signer of the service, with the role `keys` at that time, signed the message."""
    for entry in registry.signers:
        if entry.source == service and entry.usable(Role.KEYS, at_ms) and not entry.suspect(at_ms):
            with contextlib.suppress(SignatureInvalid):
                verify(entry.public_key, label, message, signature)
                return True
    return False


_HISTORY: Final = select(KEY_HISTORY.c.record, KEY_HISTORY.c.signature)
