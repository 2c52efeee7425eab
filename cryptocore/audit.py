"""The events of one process: who did what to which key, made and committed in one place."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

from cryptocore.clock import rfc3339
from cryptocore.context import who_acts
from cryptocore.emitter import Emitter
from cryptocore.errors import (
    AccessDenied,
    CoreError,
    DecryptionFailed,
    InvalidTransition,
    KeyRecordRollback,
    KeyUnavailable,
)
from cryptocore.events import (
    AuditEvent,
    Count,
    KekRef,
    KeyRef,
    Operation,
    Outcome,
    OwnerRef,
    Phase,
    Reason,
    VaultAttempt,
)
from cryptocore.lines.vocabulary import TOKEN_ACTS
from cryptocore.purposes import Purposes
from cryptocore.spool.entries import new_id


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about, as far as it is known."""

    actor: str
    purpose: str
    owner: OwnerRef | None = None
    key: KeyRef | None = None
    claimed_key_id: str | None = None
    token_id: str | None = None

    @classmethod
    def of(cls, actor: str | None, purpose: str | None, owner: OwnerRef | None = None) -> "Subject":
        """Take who acts from the call or from context.

        Raises:
            MissingActor: neither says who.
            MissingPurpose: neither says what for.
        """
        given_actor, given_purpose = who_acts(actor, purpose)
        return cls(actor=given_actor, purpose=given_purpose, owner=owner)

    def about(self, key: KeyRef) -> "Subject":
        """Name the key version, now that it is known."""
        return replace(self, key=key, claimed_key_id=None)

    def claiming(self, key_id: bytes) -> "Subject":
        """Name the key that an unauthenticated envelope, or an unbelieved row, claims."""
        return replace(self, key=None, claimed_key_id=key_id.hex())


class Refusal(Exception):
    """An act that was denied or failed: what its event says, and what its caller hears.

    One refusal may be heard by many callers, each of whom gets an error of his own.
    """

    def __init__(
        self,
        outcome: Outcome,
        reason: Reason,
        error: type[CoreError],
        message: str,
        *,
        retryable: bool = False,
        key: KeyRef | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.reason = reason
        self.key = key
        self._error = error
        self._message = message
        self._retryable = retryable

    def __copy__(self) -> "Refusal":
        """Make a refusal without this one's traceback, to be raised for another caller."""
        fresh = type(self).__new__(type(self))
        fresh.args = self.args
        fresh.__dict__.update(self.__dict__)
        return fresh

    def public(self) -> CoreError:
        """Make the error for one caller."""
        if self._error is KeyUnavailable:
            return KeyUnavailable(self._message, retryable=self._retryable)
        return self._error(self._message)


class StoreAway(Refusal):
    """The key store did not answer, so whether the key may be used is not known."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(Outcome.FAILED, Reason.KEY_STATE, KeyUnavailable, message, retryable=retryable)


CANNOT_OPEN = "the ciphertext cannot be opened"


def cannot_open(outcome: Outcome, reason: Reason, key: KeyRef | None = None) -> Refusal:
    """Refuse with the one error that does not say why."""
    return Refusal(outcome, reason, DecryptionFailed, CANNOT_OPEN, key=key)


def state_forbids(key: KeyRef, act: str) -> Refusal:
    """Refuse because of the key's state."""
    message = f"key {key.id} version {key.version} is {key.state} and does not {act}"
    return Refusal(Outcome.DENIED, Reason.KEY_STATE, AccessDenied, message, key=key)


def no_arrow(message: str, key: KeyRef | None = None) -> Refusal:
    """Refuse an act that the life cycle does not have."""
    return Refusal(Outcome.DENIED, Reason.KEY_STATE, InvalidTransition, message, key=key)


def not_believed(problem: str) -> Refusal:
    """Refuse a row that its record does not bear out."""
    message = f"the key store's row is not to be trusted: {problem}"
    return Refusal(Outcome.FAILED, Reason.RECORD_INVALID, KeyUnavailable, message)


def rolled_back(message: str) -> Refusal:
    """Refuse a revision older than one already seen."""
    return Refusal(Outcome.DENIED, Reason.RECORD_ROLLBACK, KeyRecordRollback, message)


_OURS: Final = frozenset({("process:relay", "relay"), ("process:token-cleanup", "token-cleanup")})
"""What cryptocore does by itself, whose purposes nobody declares; no caller's actor excuses another purpose."""


class Audit:
    """Makes events and commits them."""

    def __init__(self, emitter: Emitter, ids: Callable[[int], bytes], *, purposes: Purposes | None = None) -> None:
        self.emitter = emitter
        self._clock = emitter.clock
        self._ids = ids
        self._purposes = purposes
        self._declared = None if purposes is None else purposes.of(emitter.service)

    def who_acts(self, actor: str | None, purpose: str | None) -> tuple[str, str]:
        """Take who acts and what for from the call or from context.

        Raises:
            MissingActor: neither says who.
            MissingPurpose: neither says what for.
            UnknownPurpose: the purpose is not declared for this service.
        """
        given_actor, given_purpose = who_acts(actor, purpose)
        if self._declared is not None and given_purpose not in self._declared:
            self._refuse(given_purpose)
        return given_actor, given_purpose

    def _refuse(self, purpose: str) -> NoReturn:
        assert self._purposes is not None
        self._purposes.refuse(purpose, self.emitter.service)

    def event(
        self,
        operation: Operation,
        subject: Subject,
        *,
        outcome: Outcome | None,
        phase: Phase = Phase.SINGLE,
        reason: Reason | None = None,
        kek: KekRef | None = None,
        intent_id: str | None = None,
        call_ids: tuple[str, ...] = (),
        attempts: tuple[VaultAttempt, ...] = (),
        counts: tuple[Count, ...] = (),
        outage_grace: bool = False,
        note: str | None = None,
    ) -> AuditEvent:
        """Make an event of now.

        Raises:
            EventInvalid: actor, purpose or note are not of the format's form.
            UnknownPurpose: the purpose is not declared for this service.
        """
        if self._declared is not None and subject.purpose not in self._declared:
            ours = operation is Operation.SUMMARY or (subject.actor, subject.purpose) in _OURS
            if not ours:
                self._refuse(subject.purpose)
        return AuditEvent(
            id=new_id(self._ids),
            phase=phase,
            operation=operation,
            outcome=outcome,
            reason=reason,
            occurred_at=rfc3339(self._clock.now_us()),
            service=self.emitter.service,
            key=subject.key,
            claimed_key_id=subject.claimed_key_id if subject.key is None else None,
            owner=subject.owner,
            kek=kek,
            token_id=subject.token_id if operation in TOKEN_ACTS else None,
            actor=subject.actor,
            purpose=subject.purpose,
            intent_id=intent_id,
            call_ids=call_ids,
            vault_attempts=attempts,
            counts=counts,
            outage_grace=outage_grace,
            host=self.emitter.host,
            note=note,
        )

    async def record(self, *events: AuditEvent) -> None:
        """Commit events; also when the caller is cancelled meanwhile.

        Raises:
            AuditUnavailable: they are not durable.
        """
        await despite_cancellation(self.emitter.record(*events))

    async def intend(self, intent: AuditEvent, conclude: Callable[[], Awaitable[None]]) -> None:
        """Commit an intent; when the caller is cancelled just then, `conclude` it at once, since nobody else will.

        Raises:
            AuditUnavailable: it is not durable: do not act.
        """
        durable = False

        async def commit() -> None:
            nonlocal durable
            await self.emitter.record(intent)
            durable = True

        try:
            await despite_cancellation(commit())
        except asyncio.CancelledError:
            if durable:
                await conclude()
            raise

    async def refuse(self, operation: Operation, subject: Subject, refusal: Refusal) -> NoReturn:
        """Leave the event of a refusal, then raise its error.

        Raises:
            CoreError: the refusal's.
            AuditUnavailable: the event is not durable.
        """
        refusal.__traceback__ = refusal.__context__ = None  # their frames saw what nobody is to see
        about = subject if refusal.key is None else subject.about(refusal.key)
        await self.record(self.event(operation, about, outcome=refusal.outcome, reason=refusal.reason))
        raise refusal.public() from None


async def despite_cancellation(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work to its end, however often the caller is cancelled; a cancellation is passed on after that."""
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as err:
            cancelled = err
    if cancelled is not None:
        raise cancelled
    await task
