"""Which events are known to have left the outbox: a signer of their own service says so.

`sent_ms` alone is a hint. On PostgreSQL every service that relays may set it, in the rows of any other one, whose event
would then never be told. So a relay signs what it took to a spool, row by row, and looks once a minute for rows of its
service that are marked as sent without such a mark, or that wait since the last look though a relay was there (somebody
keeps them locked). Those are relayed again; events are counted once, by their ids.

Rows that were found in order once are not looked at again: how far that is, the relay signs as well. It stays behind by
`LATE_MS`, since a row with a lower number may be committed after one with a higher.
"""

import struct
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from cryptocore.envelope import lp16
from cryptocore.registry import Registry
from cryptocore.signing import OUTBOX_CHECKED, OUTBOX_SENT, SIGNATURE_SIZE, Signer
from cryptocore.store import cursors
from cryptocore.store.outbox import OutboxRow, signed_by
from cryptocore.store.tables import AUDIT_OUTBOX, OUTBOX_MARK

LATE_MS: Final = 300_000
"""Longer than a transaction that writes an event lasts; see `StoreOptions`."""
LISTED: Final = 20_000
"""Rows listed in one look; the next one goes on."""
VERIFIED: Final = 2_000
"""Of them, those verified in one look: some 0.3 s of work."""
_HEAD: Final = struct.Struct(">QQ")


class OutboxMarks:
    """What one process knows of the marks of its service.

    Args:
        service: whose events.
        registry: whose signers of that service with the role `keys` are believed.
        signer: one of them.
    """

    def __init__(self, service: str, registry: Registry, signer: Signer) -> None:
        self.service: Final = service
        self._registry = registry
        self._signer = signer
        self._name = f"outbox/{service}"
        self._after = 0
        self._known: dict[int, int] = {}
        self._listed: list[int] = []
        self._waited: frozenset[int] = frozenset()

    def writing(self, rows: Sequence[OutboxRow], now_ms: int) -> Callable[[Connection], None]:
        """Mark rows whose events are in the spool."""
        marks = [
            {"number": row.number, "sent_ms": now_ms, "signature": self._signer.sign(OUTBOX_SENT, said)}
            for row, said in ((row, self._sent(row.number, row.line, now_ms)) for row in rows)
        ]

        def write(connection: Connection) -> None:
            insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
            if marks:
                connection.execute(insert(OUTBOX_MARK).on_conflict_do_nothing(), marks)

        return write

    def took(self, rows: Sequence[OutboxRow], now_ms: int) -> None:
        """Remember that this process took rows to its spool."""
        self._known.update((row.number, now_ms) for row in rows)

    def missing(self, connection: Connection) -> list[int]:
        """Look, and name the rows that have left without our mark, or wait since the last look."""
        self._after = max(self._after, self._checked(connection))
        self._known = {number: at_ms for number, at_ms in self._known.items() if number > self._after}
        query = select(AUDIT_OUTBOX.c.number, AUDIT_OUTBOX.c.sent_ms).where(
            (AUDIT_OUTBOX.c.service == self.service) & (AUDIT_OUTBOX.c.number > self._after)
        )
        rows = connection.execute(query.order_by(AUDIT_OUTBOX.c.number).limit(LISTED)).all()
        self._listed = [number for number, _ in rows]
        waited, self._waited = self._waited, frozenset(number for number, sent_ms in rows if sent_ms is None)
        asked = [
            number
            for number, sent_ms in rows
            if number not in self._known and (sent_ms is not None or number in waited)
        ][:VERIFIED]
        self._verify(connection, asked)
        return [number for number in asked if number not in self._known]

    def settling(self, now_ms: int) -> Callable[[Connection], None]:
        """Say how far all rows of the last look are in order, so that nobody looks at those again."""
        reached = self._after
        for number in self._listed:
            if self._known.get(number, now_ms) > now_ms - LATE_MS:
                break
            reached = number

        def write(connection: Connection) -> None:
            if reached > self._after:
                signature = self._signer.sign(OUTBOX_CHECKED, self._reached(reached, now_ms))
                cursors.begin(self._name)(connection)
                cursors.move(self._name, _HEAD.pack(reached, now_ms) + signature)(connection)
                self._after = reached

        return write

    def _verify(self, connection: Connection, numbers: Sequence[int]) -> None:
        """Remember those of the rows that have a mark; of very many marks not all are looked at."""
        if not numbers:
            return
        query = select(AUDIT_OUTBOX.c.number, AUDIT_OUTBOX.c.line, OUTBOX_MARK.c.sent_ms, OUTBOX_MARK.c.signature)
        marks = query.join(OUTBOX_MARK, AUDIT_OUTBOX.c.number == OUTBOX_MARK.c.number)
        for number, line, sent_ms, signature in connection.execute(
            marks.where(AUDIT_OUTBOX.c.number.in_(numbers)).limit(2 * VERIFIED)
        ):
            if number not in self._known and self._holds(number, line, sent_ms, signature):
                self._known[number] = sent_ms

    def _holds(self, number: int, line: object, sent_ms: object, signature: object) -> bool:
        if not isinstance(signature, bytes) or not isinstance(sent_ms, int) or not 0 <= sent_ms < 2**63:
            return False
        if not signature:  # of the time before there were marks: a trigger lets nobody write such a row
            return True
        return signed_by(
            self._registry, self.service, OUTBOX_SENT, self._sent(number, line, sent_ms), signature, sent_ms
        )

    def _checked(self, connection: Connection) -> int:
        """Read how far somebody of the service found all rows in order; 0 where nobody believably did."""
        stored: object = cursors.read(self._name)(connection)
        if not isinstance(stored, bytes) or len(stored) != _HEAD.size + SIGNATURE_SIZE:
            return 0
        number, at_ms = _HEAD.unpack_from(stored)
        said, signature = self._reached(number, at_ms), stored[_HEAD.size :]
        return number if signed_by(self._registry, self.service, OUTBOX_CHECKED, said, signature, at_ms) else 0

    def _sent(self, number: int, line: object, sent_ms: int) -> bytes:
        digest = sha256(line if isinstance(line, bytes) else b"").digest()
        return self._registry.deployment + _HEAD.pack(number, sent_ms) + digest

    def _reached(self, number: int, at_ms: int) -> bytes:
        return self._registry.deployment + _HEAD.pack(number, at_ms) + lp16(self.service.encode())
