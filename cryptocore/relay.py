"""What goes to the spool by and by: life-cycle events from the outbox, and summaries of failures that were counted."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final, NoReturn

from cryptocore.audit import Audit, Refusal, Subject
from cryptocore.clock import Clock
from cryptocore.errors import CoreError, EventInvalid
from cryptocore.events import AuditEvent, Operation, Outcome, Reason, decode_line
from cryptocore.failures import UNTOUCHED, FailureMeter
from cryptocore.keyring import Keyring
from cryptocore.keystate import KeyStates
from cryptocore.lines.vocabulary import LIFE_CYCLE
from cryptocore.partitions import partition_key, partition_of
from cryptocore.spool.entries import Entry, manner_of
from cryptocore.store.key_store import KeyStore, OutboxRow, StoreConflict
from cryptocore.store.outbox_marks import OutboxMarks

_log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
LOOK_S: Final = 60.0
"""Between looks into an outbox that this process did not write to: what a process that is gone left there."""
ROWS: Final = 200
_ACTOR: Final = "process:relay"
_PURPOSE: Final = "relay"


class Relay:
    """Empties the outbox of one service; any of its processes may."""

    def __init__(
        self, store: KeyStore, keyring: Keyring, audit: Audit, states: KeyStates, *, marks: OutboxMarks, clock: Clock
    ) -> None:
        self._store = store
        self._marks = marks
        self._states = states
        self._keyring = keyring
        self._audit = audit
        self._clock = clock
        self._failures = FailureMeter()
        self._running = asyncio.Lock()
        self._written = asyncio.Event()
        self._next_look = self._next_search = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Say that the outbox has something."""
        self._written.set()

    async def refuse(self, operation: Operation, subject: Subject, refusal: Refusal) -> NoReturn:
        """Leave the event of a refusal, or count it when the caller floods us with those that touch no DEK.

        Raises:
            CoreError: the refusal's.
            AuditUnavailable: the event is not durable.
        """
        if refusal.reason in UNTOUCHED and not self._failures.allows(subject.actor, self._clock.monotonic()):
            what = (operation, refusal.outcome, refusal.reason)
            self._failures.count(subject.actor, subject.purpose, what)
            raise refusal.public() from None
        await self._audit.refuse(operation, subject, refusal)

    async def run(self, *, everything: bool = False) -> None:
        """Do what is due.

        Raises:
            KeyUnavailable: the store does not answer.
            AuditUnavailable: the spool cannot be written; what was not taken stays.
        """
        async with self._running:
            now = self._clock.monotonic()
            if self._written.is_set() or now >= self._next_look:
                self._written.clear()
                self._next_look = now + LOOK_S
                try:
                    await self._empty_outbox()
                except BaseException:
                    self._written.set()
                    raise
            await self._summarise(everything=everything)

    def start(self) -> None:
        """Run in the background."""
        self._task = asyncio.get_running_loop().create_task(self._keep_running())

    async def stop(self) -> None:
        """End the background task, then do everything once more, as far as it goes."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        try:
            await self.run(everything=True)
        except CoreError as err:
            _log.warning("events wait in the outbox for the next process: %s", err)

    async def _empty_outbox(self) -> None:
        service = self._audit.emitter.service
        try:
            while await self._relay_some(service):
                pass
            if (now := self._clock.monotonic()) >= self._next_search:
                self._next_search = now + LOOK_S
                await self._relay_lost()
        except Refusal as refusal:
            raise refusal.public() from None

    async def _relay_some(self, service: str) -> bool:
        """Take a few rows to the spool, mark them, and tell of the states that they brought."""
        claim = await self._keyring.run(self._store.claim, service, ROWS)
        if not claim.rows:
            return False
        try:
            await self._commit(claim.rows)
            now_ms = self._clock.now_us() // 1000
            await self._keyring.run(claim.sent, now_ms, self._marks.writing(claim.rows, now_ms))
        except BaseException:
            await self._keyring.run(claim.release)
            raise
        self._tell(claim.rows, now_ms)
        return True

    async def _relay_lost(self) -> None:
        """Take what is marked as sent, but not by us, to the spool and mark it: somebody else may set `sent_ms`."""
        lost = await self._keyring.run(self._store.unmarked, self._marks)
        if lost:
            _log.warning("%d events in the outbox are relayed: no signer of ours marked them as sent", len(lost))
        for first in range(0, len(lost), ROWS):
            rows = lost[first : first + ROWS]
            await self._commit(rows)
            now_ms = self._clock.now_us() // 1000
            await self._keyring.run(self._store.transaction, self._marks.writing(rows, now_ms))
            self._tell(rows, now_ms)
        with contextlib.suppress(StoreConflict):  # another process has begun the same work
            await self._keyring.run(self._store.transaction, self._marks.settling(self._clock.now_us() // 1000))

    async def _commit(self, rows: Sequence[OutboxRow]) -> None:
        await self._audit.emitter.commit([self._entry(row.line) for row in rows if row.vouched])
        await self._audit.record(*(self._disowned(row.line) for row in rows if not row.vouched))

    def _tell(self, rows: Sequence[OutboxRow], now_ms: int) -> None:
        self._marks.took(rows, now_ms)
        self._states.tell([row.stated for row in rows if row.stated is not None])

    def _entry(self, raw: bytes) -> Entry:
        """Send the very bytes whose digest the key record holds."""
        event = decode_line(raw)
        assert isinstance(event, AuditEvent)
        identity = self._audit.emitter.identity
        partition = partition_of(partition_key(event, identity.instance), identity.partitions)
        return Entry(raw + b"\n", partition, event.occurred_at, manner_of(event))

    def _disowned(self, raw: bytes) -> AuditEvent:
        """Tell of a row that no signed record bears out: who writes the store must not speak under our seal."""
        operation, claimed = Operation.CREATE, None
        with contextlib.suppress(EventInvalid):
            event = decode_line(raw)
            if isinstance(event, AuditEvent):
                claimed = event.key.id if event.key is not None else event.claimed_key_id
                operation = event.operation if event.operation in LIFE_CYCLE else operation
        subject = Subject(_ACTOR, _PURPOSE, claimed_key_id=claimed)
        return self._audit.event(operation, subject, outcome=Outcome.FAILED, reason=Reason.RECORD_INVALID)

    async def _summarise(self, *, everything: bool) -> None:
        for actor, purpose, counts in self._failures.due(self._clock.monotonic(), everything=everything):
            event = self._audit.event(
                Operation.SUMMARY,
                Subject(actor, purpose),
                outcome=Outcome.DENIED,
                reason=Reason.RATE_LIMITED,
                counts=counts,
            )
            await self._audit.emitter.record(event)
            self._failures.summarised(actor, counts)

    async def _keep_running(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._written.wait()
            run = asyncio.ensure_future(self.run())
            try:
                await asyncio.shield(run)  # stopped between spool and mark, it would send the same events again
            except CoreError as err:
                _log.warning("life-cycle events wait in the outbox: %s", err)
                await asyncio.sleep(EVERY_S)
            except asyncio.CancelledError:
                await asyncio.wait((run,))
                raise
