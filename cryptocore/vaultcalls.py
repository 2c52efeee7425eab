"""Calls to the vault with their two events: an intent that is durable before, an outcome that is durable after.

If the intent cannot be committed the vault is not called; if the outcome cannot be, what the vault gave is dropped.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, TypeVar, runtime_checkable

from cryptocore.audit import Audit, Refusal, Subject
from cryptocore.dek import DEK_SIZE
from cryptocore.envelope import Owner, Suite
from cryptocore.errors import AccessDenied, KeyUnavailable
from cryptocore.events import KekRef, Operation, Outcome, Phase, Reason, VaultAttempt
from cryptocore.keks.vault import VaultAnswer
from cryptocore.life.bare import BareWrap
from cryptocore.stats import Counts
from cryptocore.throttle import VaultBudget
from cryptocore.wrapping import (
    BlobInvalid,
    KeyWrapper,
    Secret,
    Unwrapped,
    VaultCallFailed,
    Wrapped,
    build_blob,
    check_commitment,
    open_blob,
)

A = TypeVar("A", Wrapped, Unwrapped, VaultAnswer)
R = TypeVar("R")

OUTAGE: Final = frozenset({Reason.VAULT_UNREACHABLE, Reason.VAULT_THROTTLED, Reason.VAULT_ERROR})
"""The vault did not say no: it did not answer."""


class _KidMismatch(Exception):
    """The vault answered with another KEK version than the one asked for."""


NO_DEK: Final = "the DEK could not be had"


def vault_refusal(reason: Reason, *, retryable: bool, says: str = NO_DEK) -> Refusal:
    """Say what a failed vault call means to whoever needed it."""
    if reason is Reason.VAULT_DENIED:
        message = "the vault refused the key" if says == NO_DEK else f"{says}: the vault refused it"
        return Refusal(Outcome.DENIED, reason, AccessDenied, message)
    return Refusal(Outcome.FAILED, reason, KeyUnavailable, f"{says}: {reason}", retryable=retryable)


@runtime_checkable
class BareUnwrapper(KeyWrapper, Protocol):
    """A KEK that also unwraps what other software wrapped: a bare DEK, which says nothing of where it belongs."""

    async def unwrap_bare(
        self, wrapped_dek: bytes, *, algorithm: BareWrap, version: str, call_ids: tuple[str, ...]
    ) -> Unwrapped:
        """Unwrap with exactly this KEK version.

        Raises:
            VaultCallFailed: it could not be had.
        """


class VaultCalls:
    """Wraps and unwraps DEKs, with events.

    Args:
        budget: of requests to vaults; None sets no limit.
    """

    def __init__(self, audit: Audit, budget: VaultBudget | None = None, counts: Counts | None = None) -> None:
        self._audit = audit
        self._budget = budget
        self._counts = counts or Counts()

    async def wrap(
        self, wrapper: KeyWrapper, dek: Secret, *, kek_version: str, owner: Owner, subject: Subject
    ) -> bytes:
        """Wrap a DEK under exactly this KEK version, always a control act; the subject names the DEK's key version.

        Raises:
            Refusal: the vault refused or failed, or has no requests left for us.
            AuditUnavailable: an event is not durable.
        """
        key_id, number = _named(subject)
        blob = Secret(build_blob(dek.reveal(), Suite.XAES_256_GCM, key_id, number, owner))

        def check(answer: Wrapped) -> bytes:
            if answer.kek_version != kek_version:
                raise _KidMismatch
            return answer.wrapped_dek

        async def perform(call_ids: tuple[str, ...]) -> Wrapped:
            return await wrapper.wrap(blob.reveal(), version=kek_version, call_ids=call_ids)

        await self._afford(wrapper.vault, control=True)
        return await self._call(Operation.WRAP, wrapper, kek_version, subject, perform=perform, check=check)

    async def unwrap(
        self,
        wrapper: KeyWrapper,
        wrapped_dek: bytes,
        *,
        kek_version: str,
        owner: Owner,
        commitment: bytes,
        subject: Subject,
        control: bool = False,
    ) -> Secret:
        """Unwrap a DEK and check that it is the one committed to, for this key version and owner.

        Args:
            control: for an act on the key (create, rotate, rewrap), which may use the reserve of the vault's budget.

        Raises:
            Refusal: the vault refused or failed, or gave something else, or has no requests left for us.
            AuditUnavailable: an event is not durable.
        """
        key_id, number = _named(subject)

        def check(answer: Unwrapped) -> Secret:
            dek = open_blob(answer.blob, Suite.XAES_256_GCM, key_id, number, owner)
            check_commitment(commitment, dek, Suite.XAES_256_GCM, key_id, number)
            return Secret(dek)

        async def perform(call_ids: tuple[str, ...]) -> Unwrapped:
            return await wrapper.unwrap(wrapped_dek, version=kek_version, call_ids=call_ids)

        await self._afford(wrapper.vault, control=control)
        return await self._call(Operation.UNWRAP, wrapper, kek_version, subject, perform=perform, check=check)

    async def unwrap_bare(
        self, wrapper: BareUnwrapper, wrapped_dek: bytes, *, algorithm: BareWrap, kek_version: str, subject: Subject
    ) -> Secret:
        """Unwrap a DEK that other software wrapped; all that can be checked is that it has the size of one.

        Raises:
            Refusal: the vault refused or failed, or gave something else, or has no requests left for us.
            AuditUnavailable: an event is not durable.
        """

        def check(answer: Unwrapped) -> Secret:
            if len(answer.blob) != DEK_SIZE:
                raise BlobInvalid("dek", f"not {DEK_SIZE} bytes") from None
            return Secret(answer.blob)

        async def perform(call_ids: tuple[str, ...]) -> Unwrapped:
            return await wrapper.unwrap_bare(wrapped_dek, algorithm=algorithm, version=kek_version, call_ids=call_ids)

        await self._afford(wrapper.vault, control=True)
        return await self._call(Operation.UNWRAP, wrapper, kek_version, subject, perform=perform, check=check)

    async def administer(
        self,
        operation: Operation,
        wrapper: KeyWrapper,
        perform: Callable[[tuple[str, ...]], Awaitable[VaultAnswer]],
        *,
        kek_version: str | None,
        subject: Subject,
        note: str | None = None,
    ) -> VaultAnswer:
        """Change the life of a KEK; the subject names the KEK itself.

        Args:
            operation: of both events.
            wrapper: the KEK.
            perform: makes the call, with these ids for its attempts.
            kek_version: the version that is meant; the one that was made is taken from the answer.
            subject: who acts, on which KEK.
            note: of a person, for the intent.

        Raises:
            Refusal: the vault refused or failed; its outcome is in the trail.
            AuditUnavailable: an event is not durable.
        """
        await self._afford(wrapper.vault, control=True)
        return await self._call(
            operation,
            wrapper,
            kek_version,
            subject,
            perform=perform,
            check=lambda answer: answer,
            made=lambda answer: answer.made,
            says=f"the KEK {wrapper.vault}/{wrapper.name} was not changed",
            note=note,
        )

    async def _afford(self, vault: str, *, control: bool) -> None:
        """Take a request out of the budget, before anything is said of it: without one there is no call."""
        if self._budget is not None and not await self._budget.take(vault, control=control):
            self._counts.vault_over_budget += 1
            raise vault_refusal(Reason.VAULT_THROTTLED, retryable=True)

    def _tell(self, operation: Operation, refusal: Refusal | None) -> None:
        if refusal is not None:
            self._counts.vault_failures += 1
            self._counts.vault_throttled += refusal.reason is Reason.VAULT_THROTTLED
        else:
            self._counts.vault_unwraps += operation is Operation.UNWRAP
            self._counts.vault_wraps += operation is Operation.WRAP

    def _count(self, vault: str, attempts: tuple[VaultAttempt, ...], retry_after_s: float | None) -> None:
        if self._budget is not None:
            self._budget.used(vault, max(0, len(attempts) - 1))
            if retry_after_s is not None:
                self._budget.told_to_wait(vault, retry_after_s)

    async def _call(
        self,
        operation: Operation,
        wrapper: KeyWrapper,
        kek_version: str | None,
        subject: Subject,
        *,
        perform: Callable[[tuple[str, ...]], Awaitable[A]],
        check: Callable[[A], R],
        made: Callable[[R], str | None] = lambda _: None,
        says: str = NO_DEK,
        note: str | None = None,
    ) -> R:
        # 1. The intent, with the id of every request the call may make.
        kek = KekRef(vault=wrapper.vault, name=wrapper.name, version=kek_version)
        call_ids = wrapper.draw_call_ids()
        intent = self._audit.event(
            operation, subject, outcome=None, phase=Phase.INTENT, kek=kek, call_ids=call_ids, note=note
        )
        conclude = partial(self._conclude, operation, subject, kek=kek, intent_id=intent.id)
        await self._audit.intend(intent, partial(conclude, attempts=(), outcome=Outcome.UNKNOWN))
        # 2. The call. Whatever it raises is reduced to a reason: it may hold the request's body.
        result: R | None = None
        attempts: tuple[VaultAttempt, ...] = ()
        refusal: Refusal | None = None
        retry_after_s: float | None = None
        try:
            answer = await perform(call_ids)
            attempts = answer.attempts
            result = check(answer)
            del answer
        except VaultCallFailed as failed:
            attempts, retry_after_s = failed.attempts, failed.retry_after_s
            refusal = vault_refusal(failed.reason, retryable=failed.retryable, says=says)
        except _KidMismatch:
            refusal = vault_refusal(Reason.KID_MISMATCH, retryable=False)
        except BlobInvalid:
            refusal = vault_refusal(Reason.COMMITMENT_MISMATCH, retryable=False)
        except asyncio.CancelledError:
            await conclude(attempts=attempts, outcome=Outcome.UNKNOWN)
            raise
        except Exception:  # noqa: BLE001 - an adapter's fault must not leave the intent without its outcome
            refusal = vault_refusal(Reason.VAULT_ERROR, retryable=False, says=says)
        self._count(wrapper.vault, attempts, retry_after_s)
        self._tell(operation, refusal)
        # 3. The outcome.
        if refusal is not None:
            await conclude(attempts=attempts, outcome=refusal.outcome, reason=refusal.reason)
            raise refusal from None
        assert result is not None
        version = made(result)
        named = kek if version is None else KekRef(vault=kek.vault, name=kek.name, version=version)
        await conclude(attempts=attempts, outcome=Outcome.SUCCEEDED, kek=named)
        return result

    async def _conclude(
        self,
        operation: Operation,
        subject: Subject,
        *,
        intent_id: str,
        kek: KekRef,
        attempts: tuple[VaultAttempt, ...],
        outcome: Outcome,
        reason: Reason | None = None,
    ) -> None:
        await self._audit.record(
            self._audit.event(
                operation,
                subject,
                outcome=outcome,
                phase=Phase.OUTCOME,
                reason=reason,
                kek=kek,
                intent_id=intent_id,
                attempts=attempts,
            ),
        )


def _named(subject: Subject) -> tuple[bytes, int]:
    assert subject.key is not None
    assert subject.key.version is not None
    return bytes.fromhex(subject.key.id), subject.key.version
