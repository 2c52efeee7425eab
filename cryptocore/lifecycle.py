"""The life of a key: create, activate, rotate, and the acts that restrict it, each with its signed records and events.

A revision, its record and its event are one transaction of the key store; the event is in the outbox and goes to the
spool from there. Restrictive acts need nothing else: no vault, no spool, no Kafka.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from cryptocore.audit import Audit, Refusal, Subject, no_arrow
from cryptocore.cache import key_ref
from cryptocore.clock import Clock
from cryptocore.envelope import DEK_SIZE, KEY_ID_SIZE, Owner, Suite
from cryptocore.errors import ConfigurationError, InvalidTransition
from cryptocore.events import KeyRef, Operation, Outcome, Reason, encode_line
from cryptocore.keyring import Keyring
from cryptocore.keys import KeyAct, KeyReason, KeyState, transition
from cryptocore.records import NO_PREVIOUS, KeyRecord, sign_record
from cryptocore.registry import Registry, Role
from cryptocore.signing import Signer
from cryptocore.store import Change, KeyStore, KeyVersion, StoreConflict
from cryptocore.vaultcalls import VaultCalls, vault_refusal
from cryptocore.wrapping import Secret, VaultCallFailed, WrapAlgorithm, algorithm_of, commitment

_ATTEMPTS: Final = 3
_LIVE: Final = frozenset({KeyState.PRE_ACTIVATION, KeyState.ACTIVE, KeyState.SUSPENDED})
OPERATIONS: Final = {
    KeyAct.ACTIVATE: Operation.ACTIVATE,
    KeyAct.SUSPEND: Operation.SUSPEND,
    KeyAct.RESUME: Operation.RESUME,
    KeyAct.REVOKE: Operation.REVOKE,
    KeyAct.ARCHIVE: Operation.ARCHIVE,
}


@dataclass(frozen=True, slots=True)
class _Wrapped:
    """A new DEK that came back from the vault as it went there."""

    wrapped_dek: bytes = field(repr=False)
    kek_alias: str
    kek_version: str
    commitment: bytes
    wrap_alg: WrapAlgorithm


class LifeCycle:
    """Changes key versions."""

    def __init__(
        self,
        *,
        registry: Registry,
        store: KeyStore,
        keyring: Keyring,
        calls: VaultCalls,
        audit: Audit,
        signer: Signer,
        clock: Clock,
        ids: Callable[[int], bytes],
    ) -> None:
        self._registry = registry
        self._store = store
        self._keyring = keyring
        self._calls = calls
        self._audit = audit
        self._signer = signer
        self._clock = clock
        self._ids = ids

    async def create(self, owner: Owner, kek_alias: str, subject: Subject, *, activate: bool = False) -> KeyVersion:
        """Make version 1 of a new key.

        1. The owner has no key that lives.
        2. The DEK is wrapped, unwrapped again and compared.
        3. Record and event are written; with `activate`, the second revision with them.

        Raises:
            Refusal: the owner has a key already, or the vault or store failed.
            StoreConflict: somebody else made the owner's key meanwhile.
        """
        # 1
        newest = await self._keyring.run(self._store.newest, owner)
        if newest is not None and newest.record.state in _LIVE:
            raise no_arrow("the owner has a key that lives", key_ref(newest))
        # 2
        key_id = self._ids(KEY_ID_SIZE)
        wrapped = await self._new_dek(key_id, 1, owner, kek_alias, subject)
        # 3
        changes = [self._first(key_id, 1, owner, wrapped, reason=KeyReason.NONE, subject=subject)]
        if activate:
            changes.append(self._next(changes[0].version, KeyAct.ACTIVATE, KeyReason.NONE, subject))
        await self._apply(changes)
        return changes[-1].version

    async def rotate(
        self, owner: Owner, reason: KeyReason, subject: Subject, *, retire_at_ms: int
    ) -> tuple[KeyVersion, bool]:
        """Give an owner a new newest version; the one before still decrypts until its retirement date.

        1. The owner has a version that encrypts.
        2. A new DEK is wrapped under the same KEK, unwrapped again and compared.
        3. The old version is superseded, the new one made and activated, in one transaction.
        4. When somebody else rotated meanwhile, theirs is the new version.

        Returns:
            The newest version, and whether it was made here.

        Raises:
            Refusal: there is nothing to rotate, or the vault or store failed.
        """
        # 1
        old = await self._keyring.run(self._store.newest, owner)
        if old is None or old.record.state is not KeyState.ACTIVE or not old.newest:
            raise no_arrow("the owner has no active key to rotate", None if old is None else key_ref(old))
        # 2
        number = (await self._keyring.run(self._store.versions, old.key_id))[-1].number + 1
        wrapped = await self._new_dek(old.key_id, number, owner, old.record.kek_alias, subject)
        # 3
        superseded = self._change(
            old,
            replace(old.record, superseded_by=number, retire_at_ms=retire_at_ms, reason=reason),
            Operation.ROTATE,
            subject,
        )
        made = self._first(old.key_id, number, owner, wrapped, reason=reason, subject=subject)
        active = self._next(made.version, KeyAct.ACTIVATE, reason, subject)
        try:
            await self._apply([superseded, made, active])
        except StoreConflict:
            # 4
            newest = await self._keyring.run(self._store.newest, owner)
            if newest is None or newest.record.state is not KeyState.ACTIVE or newest.number == old.number:
                raise
            return newest, False
        return active.version, True

    async def act(
        self,
        key_id: bytes,
        act: KeyAct,
        subject: Subject,
        *,
        reason: KeyReason,
        number: int | None = None,
        note: str | None = None,
    ) -> list[KeyVersion]:
        """Follow an arrow of the life cycle with every version of a key that has it, or with one version.

        Raises:
            Refusal: no version has the arrow, or the store failed.
        """
        for attempt in range(_ATTEMPTS):
            versions = await self._keyring.run(self._store.versions, key_id)
            changes = []
            for version in versions:
                if number is None or version.number == number:
                    try:
                        changes.append(self._next(version, act, reason, subject, note))
                    except InvalidTransition:
                        continue
            if not changes:
                raise _nothing_to(act, key_id, versions, number)
            try:
                await self._apply(changes)
            except StoreConflict:
                if attempt + 1 == _ATTEMPTS:
                    raise no_arrow("the owner has another active key, or the key keeps changing") from None
            else:
                return [change.version for change in changes]
        raise AssertionError("the loop returns or raises")

    async def _new_dek(self, key_id: bytes, number: int, owner: Owner, kek_alias: str, subject: Subject) -> _Wrapped:
        self._check_signer()
        wrapper = self._keyring.wrapper(kek_alias)
        try:
            kek_version = await wrapper.current_version()
        except VaultCallFailed as failed:
            raise vault_refusal(failed.reason, retryable=failed.retryable) from None
        dek = Secret(os.urandom(DEK_SIZE))
        committed = commitment(dek.reveal(), Suite.XAES_256_GCM, key_id, number)
        named = subject.about(KeyRef(id=key_id.hex(), version=number, kind="dek"))
        wrapped_dek = await self._calls.wrap(wrapper, dek, kek_version=kek_version, owner=owner, subject=named)
        unwrapped = await self._calls.unwrap(
            wrapper,
            wrapped_dek,
            kek_version=kek_version,
            owner=owner,
            commitment=committed,
            subject=named,
            control=True,
        )
        if not unwrapped.same_as(dek):
            raise vault_refusal(Reason.COMMITMENT_MISMATCH, retryable=False)
        return _Wrapped(wrapped_dek, kek_alias, kek_version, committed, algorithm_of(wrapper))

    async def _apply(self, changes: Sequence[Change]) -> None:
        await self._keyring.run(self._store.apply, changes)
        self._keyring.changed([change.version for change in changes])

    def _first(
        self, key_id: bytes, number: int, owner: Owner, wrapped: _Wrapped, *, reason: KeyReason, subject: Subject
    ) -> Change:
        record = KeyRecord(
            deployment=self._registry.deployment,
            key_id=key_id,
            key_version=number,
            revision=1,
            state=KeyState.PRE_ACTIVATION,
            reason=reason,
            suite=Suite.XAES_256_GCM,
            owner_sha256=owner.digest(),
            kek_alias=wrapped.kek_alias,
            kek_version=wrapped.kek_version,
            wrap_alg=wrapped.wrap_alg,
            wrapped_dek_sha256=sha256(wrapped.wrapped_dek).digest(),
            commitment=wrapped.commitment,
            changed_at_ms=self._clock.now_us() // 1000,
            superseded_by=0,
            retire_at_ms=0,
            previous_record_sha256=NO_PREVIOUS,
            event_sha256=NO_PREVIOUS,
            signer_id=self._signer.signer_id,
        )
        return self._signed(record, owner, wrapped.wrapped_dek, Operation.CREATE, subject=subject, note=None)

    def _next(
        self, version: KeyVersion, act: KeyAct, reason: KeyReason, subject: Subject, note: str | None = None
    ) -> Change:
        state = transition(version.record.state, act)
        return self._change(
            version, replace(version.record, state=state, reason=reason), OPERATIONS[act], subject, note
        )

    def _change(
        self, before: KeyVersion, after: KeyRecord, operation: Operation, subject: Subject, note: str | None = None
    ) -> Change:
        record = replace(
            after,
            revision=before.record.revision + 1,
            changed_at_ms=self._clock.now_us() // 1000,
            previous_record_sha256=sha256(before.signed.record).digest(),
            signer_id=self._signer.signer_id,
        )
        return self._signed(record, before.owner, before.wrapped_dek, operation, subject=subject, note=note)

    def _check_signer(self) -> None:
        """Refuse to write a record that every reader would refuse.

        Raises:
            ConfigurationError: the registry does not let this process's signer sign key records now.
        """
        entry = self._registry.get(self._signer.signer_id)
        if entry is None or not entry.usable(Role.KEYS, self._clock.now_us() // 1000):
            raise ConfigurationError(f"the registry lets {self._signer!r} sign no key records: it lacks the role keys")

    def _signed(
        self,
        record: KeyRecord,
        owner: Owner,
        wrapped_dek: bytes,
        operation: Operation,
        *,
        subject: Subject,
        note: str | None,
    ) -> Change:
        """Make the event of a revision, then the record that holds its digest."""
        self._check_signer()
        key = KeyRef(
            id=record.key_id.hex(),
            version=record.key_version,
            revision=record.revision,
            kind="dek",
            state=record.state,
        )
        about = Subject(actor=subject.actor, purpose=subject.purpose, owner=owner.ref(), key=key)
        reason = None if record.reason is KeyReason.NONE else Reason(record.reason.value)
        event = self._audit.event(operation, about, outcome=Outcome.SUCCEEDED, reason=reason, note=note)
        line = encode_line(event)
        signed = sign_record(replace(record, event_sha256=sha256(line).digest()), self._signer)
        version = KeyVersion(KeyRecord.decode(signed.record), signed, owner, wrapped_dek)
        return Change(version=version, event_id=event.id, service=event.service, line=line)


def _nothing_to(act: KeyAct, key_id: bytes, versions: Sequence[KeyVersion], number: int | None) -> Refusal:
    named = [version for version in versions if number is None or version.number == number]
    if not named:
        return no_arrow(f"there is no key {key_id.hex()}" + ("" if number is None else f" version {number}"))
    newest = named[-1]
    return no_arrow(f"a key version that is {newest.record.state} cannot {act}", key_ref(newest))
