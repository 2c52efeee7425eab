"""Re-encrypt: the caller's rows, one after another, from old versions (or an old cipher) to the newest one.

The rows are the caller's: he lists them in the order of their ids and writes by compare-and-set. The cursor is kept
here, so that a run goes on where the last one stopped. Both uses, the read and the write, are in durable events before
the caller gets a new ciphertext.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hmac import compare_digest
from typing import Final

import msgspec

from cryptocore.audit import Refusal, StoreAway, Subject, cannot_open, state_forbids
from cryptocore.cache import Entry
from cryptocore.dek import Dek
from cryptocore.envelope import Header, Owner, decrypt_envelope, encrypt_envelope
from cryptocore.errors import AccessDenied, DecryptionFailed, EnvelopeInvalid
from cryptocore.events import AuditEvent, Operation, Outcome, Reason
from cryptocore.keys import KeyAct, KeyState, permits
from cryptocore.life import grants
from cryptocore.life.callers_rows import Reencrypted, Row, Rows
from cryptocore.life.importing import imported
from cryptocore.life.legacy import LegacyCipher
from cryptocore.parts import Parts
from cryptocore.store import cursors
from cryptocore.store.cursors import Progress
from cryptocore.store.key_store import StoreConflict

BATCH: Final = 100
"""Rows whose events are made durable together: what a crash makes somebody do again."""
MAX_NAMED: Final = 1_000

_ROW_FAULTS: Final = frozenset(
    {Reason.PARSE_ERROR, Reason.UNKNOWN_KEY, Reason.OWNER_MISMATCH, Reason.BAD_TAG, Reason.KEY_STATE}
)
"""What is wrong with a row, not with store or vault: the run goes on without it."""


class Reencrypt:
    """One run.

    Args:
        parts: of the core.
        name: of this set of rows; the cursor is kept under it.
        rows: the caller's.
        legacy: opens what is no envelope.
        subject: who acts.
        progress: is told after each batch.
    """

    def __init__(
        self,
        parts: Parts,
        name: str,
        rows: Rows,
        *,
        legacy: LegacyCipher | None,
        subject: Subject,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._parts = parts
        self._name = f"reencrypt/{parts.service}/{name}"
        self._rows = rows
        self._legacy = legacy
        self._subject = subject
        self._tell = progress
        self._progress = Progress()
        self._failed: list[str] = []
        self._granted: dict[bytes, bool] = {}

    async def run(self) -> Reencrypted:
        """Go through the rows behind the cursor; at the end the next run begins from the start.

        Raises:
            Refusal: the store does not answer.
            KeyUnavailable, AccessDenied: store or vault do not answer, or refuse; the event of one row says so, and the
                cursor stays at the last whole batch.
            AuditUnavailable: events are not durable; likewise.
        """
        run, store = self._parts.keyring.run, self._parts.store
        with contextlib.suppress(StoreConflict):
            await run(store.transaction, cursors.begin(self._name))
        begin = await run(store.transaction, cursors.read(self._name))
        batch: list[Row] = []
        async for row in self._rows.after(begin.decode()):
            batch.append(row)
            if len(batch) == BATCH:
                await self._batch(batch)
                batch = []
        if batch:
            await self._batch(batch)
        await run(store.transaction, cursors.move(self._name, cursors.START))
        return Reencrypted(self._progress, tuple(self._failed))

    async def _batch(self, batch: list[Row]) -> None:
        """Move a batch.

        1. Each row is opened and encrypted anew; nothing leaves yet.
        2. The events of all of them are durable.
        3. Each new ciphertext goes to the caller, if its row is still what it was.
        4. The cursor moves.
        """
        self._granted.clear()
        # 1
        made = []
        results = await asyncio.gather(*(self._row(row) for row in batch), return_exceptions=True)
        for row, one in zip(batch, results, strict=True):
            if isinstance(one, Refusal):  # of store or vault: it would be that of every row
                await self._parts.audit.record(self._refused(row, one))
                raise one.public() from None
            if isinstance(one, BaseException):
                raise one
            made.append(one)
        # 2
        await self._parts.audit.record(*(event for one in made for event in one.events))
        # 3
        for row, one in zip(batch, made, strict=True):
            if one.failed:
                self._failed.extend([row.id] if len(self._failed) < MAX_NAMED else [])
                self._count(failed=1)
            elif one.ciphertext is not None and await self._rows.replace(row, one.ciphertext):
                self._count(done=1)
            else:
                self._count(skipped=1)
        # 4
        cursor = cursors.move(self._name, batch[-1].id.encode())
        await self._parts.keyring.run(self._parts.store.transaction, cursor)
        for key_id, granted in self._granted.items():
            if granted:
                self._parts.cache.forget(key_id)  # no DEK of a revoked version stays in memory
        if self._tell is not None:
            self._tell(self._progress)

    async def _row(self, row: Row) -> "_Made":
        to_owner, to_record = row.to_owner or row.owner, row.to_record or row.record
        dek: Dek | None = None
        plaintext = b""
        try:
            source = await self._source(row)
            target = await self._target(to_owner)
            same_place = to_owner == row.owner and to_record == row.record
            if source is not None and _name(source.entry) == _name(target) and same_place:
                return _Made()
            source, plaintext = await self._opened(row, source)
            dek, grace = await self._parts.keyring.dek(target, self._of(to_owner))
            target = await self._still(target)  # the vault took its time
        except Refusal as refusal:
            dek, plaintext = None, b""  # many a tool prints the variables of an error's frames
            refusal.__traceback__ = refusal.__context__ = None
            if refusal.reason not in _ROW_FAULTS or isinstance(refusal, StoreAway):
                raise
            return _Made(events=(self._refused(row, refusal),), failed=True)
        ciphertext = encrypt_envelope(
            dek,
            key_id=target.version.key_id,
            key_version=target.version.number,
            owner=to_owner,
            record=to_record,
            plaintext=plaintext,
        )
        return _Made(ciphertext, (self._read_event(source), self._event(Operation.ENCRYPT, target, grace=grace)))

    async def _source(self, row: Row) -> "_Source | None":
        """Find the version that an envelope names; None where it is none and a legacy cipher may know it."""
        try:
            header = Header.parse(row.ciphertext)
        except EnvelopeInvalid:
            if self._legacy is None:
                raise cannot_open(Outcome.FAILED, Reason.PARSE_ERROR) from None
            return None
        entry = await self._parts.keyring.version(header.key_id, header.key_version)
        if entry is None:
            if self._legacy is None:
                raise cannot_open(Outcome.FAILED, Reason.UNKNOWN_KEY)
            return None  # bytes that only look like an envelope's
        return await self._allowed(entry, row)

    async def _allowed(self, entry: Entry, row: Row) -> "_Source":
        version = entry.version
        if not compare_digest(version.owner.encode(), row.owner.encode()):
            raise cannot_open(Outcome.DENIED, Reason.OWNER_MISMATCH, entry.key)
        recovery = version.record.state is KeyState.REVOKED
        granted = recovery and await self._grant(version.key_id)
        if not permits(version.record.state, version.newest, KeyAct.REENCRYPT, recovery_grant=granted):
            raise state_forbids(entry.key, "let its data be read to re-encrypt it")
        return _Source(entry, recovery=recovery)

    async def _grant(self, key_id: bytes) -> bool:
        if key_id not in self._granted:
            asked = grants.granted(key_id, self._parts.registry)
            self._granted[key_id] = await self._parts.keyring.run(self._parts.store.transaction, asked)
        return self._granted[key_id]

    async def _opened(self, row: Row, source: "_Source | None") -> "tuple[_Source, bytes]":
        if source is None:
            return await self._opened_legacy(row)
        dek, grace = await self._parts.keyring.dek(source.entry, self._of(row.owner))
        source = await self._allowed(await self._parts.keyring.current(source.entry), row)  # the vault took its time
        source = replace(source, grace=grace)
        try:
            return source, decrypt_envelope(dek, row.ciphertext, owner=row.owner, record=row.record)
        except (DecryptionFailed, EnvelopeInvalid):
            raise cannot_open(Outcome.FAILED, Reason.BAD_TAG, source.entry.key) from None

    async def _opened_legacy(self, row: Row) -> "tuple[_Source, bytes]":
        """Try the owner's imported versions, the last one first: only the right key opens an authenticated text."""
        assert self._legacy is not None
        refusal = cannot_open(Outcome.FAILED, Reason.UNKNOWN_KEY)
        for name in await self._parts.keyring.run(self._parts.store.transaction, imported(row.owner)):
            entry = await self._parts.keyring.version(*name)
            if entry is None:
                continue
            try:
                await self._allowed(entry, row)
            except Refusal as denied:
                refusal = denied
                continue
            dek, grace = await self._parts.keyring.dek(entry, self._of(row.owner))
            source = replace(await self._allowed(await self._parts.keyring.current(entry), row), grace=grace)
            try:
                return source, self._legacy.open(dek.reveal(), row.ciphertext, owner=row.owner, record=row.record)
            except EnvelopeInvalid:
                refusal = cannot_open(Outcome.FAILED, Reason.BAD_TAG, entry.key)
        raise refusal

    async def _target(self, owner: Owner) -> Entry:
        entry = await self._parts.keyring.newest(owner)
        if entry is None:
            raise Refusal(Outcome.DENIED, Reason.UNKNOWN_KEY, AccessDenied, "the owner has no key")
        return _encrypting(entry)

    async def _still(self, entry: Entry) -> Entry:
        return _encrypting(await self._parts.keyring.current(entry))

    def _of(self, owner: Owner) -> Subject:
        return Subject(self._subject.actor, self._subject.purpose, owner.ref())

    def _event(self, operation: Operation, entry: Entry, *, grace: bool) -> AuditEvent:
        about = Subject(self._subject.actor, self._subject.purpose, entry.owner, entry.key)
        return self._parts.audit.event(operation, about, outcome=Outcome.SUCCEEDED, outage_grace=grace)

    def _read_event(self, source: "_Source") -> AuditEvent:
        event = self._event(Operation.REENCRYPT, source.entry, grace=source.grace)
        return msgspec.structs.replace(event, recovery=True) if source.recovery else event

    def _refused(self, row: Row, refusal: Refusal) -> AuditEvent:
        subject = self._of(row.owner)
        about = subject if refusal.key is None else subject.about(refusal.key)
        return self._parts.audit.event(Operation.REENCRYPT, about, outcome=refusal.outcome, reason=refusal.reason)

    def _count(self, *, done: int = 0, skipped: int = 0, failed: int = 0) -> None:
        now = self._progress
        self._progress = replace(now, done=now.done + done, skipped=now.skipped + skipped, failed=now.failed + failed)


@dataclass(frozen=True, slots=True)
class _Source:
    entry: Entry
    recovery: bool
    grace: bool = False


@dataclass(frozen=True, slots=True)
class _Made:
    ciphertext: bytes | None = field(default=None, repr=False)
    events: tuple[AuditEvent, ...] = ()
    failed: bool = False


def _name(entry: Entry) -> tuple[bytes, int]:
    return entry.version.key_id, entry.version.number


def _encrypting(entry: Entry) -> Entry:
    if not permits(entry.version.record.state, entry.version.newest, KeyAct.ENCRYPT):
        raise state_forbids(entry.key, "encrypt")
    return entry
