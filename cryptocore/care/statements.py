"""What people state beside the keys, kept so that it can be believed later: signed, numbered, chained, append-only.

A statement has a kind, a subject and revisions from 1. Each revision is signed with the one before it in the signature
(docs/formats.md, "Statements"), so that a row written, changed or left out by somebody else is not believed. That the
last revisions were cut off does not show: who owns the database could do that. What a body means is its kind's to say.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from typing import Any, Final, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, RowMapping, insert, select

from cryptocore.envelope import lp16
from cryptocore.errors import RecordInvalid
from cryptocore.registry import Registry, Role
from cryptocore.signing import STATEMENT as LABEL
from cryptocore.signing import SignatureInvalid, Signer, verify
from cryptocore.store.statement_tables import STATEMENT

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

NO_PREVIOUS: Final = bytes(32)
_HEAD: Final = struct.Struct(">16s16sQQ32s32s")


class Asking(Protocol):
    """Whoever can ask the key store's database: a core's parts, or a reader."""

    @property
    def registry(self) -> Registry:
        """Whose signers are believed."""

    async def ask(self, work: Callable[[Connection], T]) -> T:
        """Do work in one transaction.

        Raises:
            KeyUnavailable: the database does not answer, or what it gives is not to be believed.
        """


@dataclass(frozen=True, slots=True)
class Statement:
    """One revision of what was stated of a subject; `digest` is what the next one is chained to."""

    subject: str
    revision: int
    stated_ms: int
    body: bytes
    digest: bytes = field(repr=False)

    def read(self, as_type: type[S]) -> S:
        """Read the body.

        Raises:
            RecordInvalid: it is none of this type.
        """
        try:
            return msgspec.json.decode(self.body, type=as_type)
        except msgspec.MsgspecError:
            raise RecordInvalid("statement.body", f"not a {as_type.__name__} of this version") from None


@dataclass(frozen=True, slots=True)
class Latest:
    """The last revision of every subject of a kind, and the subjects of which a row is not to be believed."""

    found: tuple[Statement, ...]
    unbelieved: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Histories:
    """All revisions of every subject of a kind, oldest first, and the subjects that are not to be believed."""

    found: tuple[list[Statement], ...]
    unbelieved: tuple[str, ...]


class Statements:
    """Statements of one kind.

    Args:
        kind: a word of up to 16 letters.
        registry: whose signers with the role `keys` are believed.
        signer: signs what is appended; has that role. Who only reads needs none.
    """

    def __init__(self, kind: str, registry: Registry, signer: Signer | None = None) -> None:
        self._kind = kind
        self._registry = registry
        self._signer = signer

    def append(
        self, connection: Connection, subject: str, body: msgspec.Struct, *, before: Statement | None, now_ms: int
    ) -> Statement:
        """Write the next revision; the database refuses it when somebody else has written it meanwhile."""
        assert self._signer is not None, "who only reads states nothing"
        revision = 1 if before is None else before.revision + 1
        stated_ms = now_ms if before is None else max(now_ms, before.stated_ms)
        raw = msgspec.json.encode(body)
        previous = NO_PREVIOUS if before is None else before.digest
        head = self._head(self._signer.signer_id, subject, revision, stated_ms, previous, raw)
        connection.execute(
            insert(STATEMENT).values(
                kind=self._kind,
                subject=subject,
                revision=revision,
                stated_ms=stated_ms,
                signer_id=self._signer.signer_id,
                body=raw,
                signature=self._signer.sign(LABEL, head),
            )
        )
        return Statement(subject, revision, stated_ms, raw, sha256(head).digest())

    def history(self, connection: Connection, subject: str) -> list[Statement]:
        """Read all revisions of a subject, oldest first.

        Raises:
            RecordInvalid: one of them is not to be believed, or is missing.
        """
        query = _SELECT.where((STATEMENT.c.kind == self._kind) & (STATEMENT.c.subject == subject))
        return self._believed(connection.execute(query.order_by(STATEMENT.c.revision)).mappings().all())

    def latest(self, connection: Connection, subject: str) -> Statement | None:
        """Read the last revision of a subject; raises as `history`."""
        found = self.history(connection, subject)
        return found[-1] if found else None

    def all_latest(self, connection: Connection) -> Latest:
        """Read the last revision of every subject; one that is not to be believed does not hide the others."""
        all_of = self.histories(connection)
        return Latest(tuple(history[-1] for history in all_of.found), all_of.unbelieved)

    def histories(self, connection: Connection) -> Histories:
        """Read all revisions of every subject; one that is not to be believed does not hide the others."""
        query = _SELECT.where(STATEMENT.c.kind == self._kind).order_by(STATEMENT.c.subject, STATEMENT.c.revision)
        rows = connection.execute(query).mappings()
        found, unbelieved = [], []
        for subject, group in groupby(rows, key=lambda row: row["subject"]):
            try:
                found.append(self._believed(list(group)))
            except RecordInvalid:
                unbelieved.append(str(subject)[:64])
        return Histories(tuple(found), tuple(unbelieved))

    def _believed(self, rows: Sequence[RowMapping]) -> list[Statement]:
        found: list[Statement] = []
        for number, row in enumerate(rows, 1):
            if row["revision"] != number:
                raise RecordInvalid("statement.revision", "one before it is missing")
            found.append(self._verified(row, found[-1].digest if found else NO_PREVIOUS))
        return found

    def _verified(self, row: RowMapping, previous: bytes) -> Statement:
        if not all(isinstance(row[name], bytes) for name in ("signer_id", "body", "signature")):
            raise RecordInvalid("statement", "not bytes")
        if not isinstance(row["stated_ms"], int):
            raise RecordInvalid("statement.stated_ms", "not an integer")
        stated_ms, entry = row["stated_ms"], self._registry.get(row["signer_id"])
        if entry is None or not entry.usable(Role.KEYS, stated_ms) or entry.suspect(stated_ms):
            raise RecordInvalid("statement.signer_id", "not registered for keys at that time")
        head = self._head(row["signer_id"], row["subject"], row["revision"], stated_ms, previous, row["body"])
        try:
            verify(entry.public_key, LABEL, head, row["signature"])
        except SignatureInvalid:
            raise RecordInvalid("statement.signature", "does not hold") from None
        return Statement(row["subject"], row["revision"], stated_ms, row["body"], sha256(head).digest())

    def _head(  # noqa: PLR0917 - the fields of the format, in its order
        self, signer_id: bytes, subject: str, revision: int, stated_ms: int, previous: bytes, body: bytes
    ) -> bytes:
        fixed = _HEAD.pack(self._registry.deployment, signer_id, revision, stated_ms, previous, sha256(body).digest())
        return fixed + lp16(self._kind.encode()) + lp16(subject.encode())


_SELECT: Final[Any] = select(STATEMENT)
