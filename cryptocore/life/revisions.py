"""Revisions of key versions: each with its event, and the signed record that holds the event's digest. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from cryptocore.audit import Audit, Subject
from cryptocore.clock import Clock
from cryptocore.envelope import Owner, Suite
from cryptocore.errors import ConfigurationError
from cryptocore.events import KeyRef, Operation, Outcome, Reason, encode_line
from cryptocore.keys import KeyAct, KeyReason, KeyState, transition
from cryptocore.records import NO_PREVIOUS, KeyRecord, sign_record
from cryptocore.registry import Registry, Role
from cryptocore.signing import Signer
from cryptocore.store.key_store import Change, KeyVersion
from cryptocore.wrapping import WrapAlgorithm

OPERATIONS = {
    KeyAct.ACTIVATE: Operation.ACTIVATE,
    KeyAct.SUSPEND: Operation.SUSPEND,
    KeyAct.RESUME: Operation.RESUME,
    KeyAct.REVOKE: Operation.REVOKE,
    KeyAct.ARCHIVE: Operation.ARCHIVE,
    KeyAct.DESTROY: Operation.DESTROY,
}


@dataclass(frozen=True, slots=True)
class WrappedDek:
    """A DEK that came back from the vault as it went there."""

    wrapped_dek: bytes = field(repr=False)
    kek_alias: str
    kek_version: str
    commitment: bytes = field(repr=False)
    wrap_alg: WrapAlgorithm


class Revisions:
    """Makes the changes that the store is to write."""

    def __init__(self, registry: Registry, signer: Signer, audit: Audit, clock: Clock) -> None:
        self._registry = registry
        self._signer = signer
        self._audit = audit
        self._clock = clock

    def check_signer(self) -> None:
        """Refuse to write a record that every reader would refuse.

        Raises:
            ConfigurationError: the registry does not let this process's signer sign key records now.
        """
        entry = self._registry.get(self._signer.signer_id)
        problem = (
            f"signer {self._signer.signer_id.hex()} is unknown to it"
            if entry is None
            else entry.problem(Role.KEYS, self._now_ms())
        )
        if entry is None or problem is not None:
            raise ConfigurationError(f"the registry lets this process sign no key records: {problem}")
        service = self._audit.emitter.service
        if entry.source != service:  # no relay would believe the events
            raise ConfigurationError(f"{self._signer!r} signs key records for {entry.source}, not for {service}")

    def first(
        self,
        key_id: bytes,
        number: int,
        owner: Owner,
        wrapped: WrappedDek,
        *,
        reason: KeyReason,
        subject: Subject,
        superseded_by: int = 0,
    ) -> Change:
        """Begin a version: pre-activation; or active at once when it is superseded from its beginning."""
        record = KeyRecord(
            deployment=self._registry.deployment,
            key_id=key_id,
            key_version=number,
            revision=1,
            state=KeyState.ACTIVE if superseded_by else KeyState.PRE_ACTIVATION,
            reason=reason,
            suite=Suite.XAES_256_GCM,
            owner_sha256=owner.digest(),
            kek_alias=wrapped.kek_alias,
            kek_version=wrapped.kek_version,
            wrap_alg=wrapped.wrap_alg,
            wrapped_dek_sha256=sha256(wrapped.wrapped_dek).digest(),
            commitment=wrapped.commitment,
            changed_at_ms=self._now_ms(),
            superseded_by=superseded_by,
            retire_at_ms=0,
            previous_record_sha256=NO_PREVIOUS,
            event_sha256=NO_PREVIOUS,
            signer_id=self._signer.signer_id,
        )
        return self._signed(record, owner, wrapped.wrapped_dek, Operation.CREATE, subject, motive=reason)

    def next(
        self, version: KeyVersion, act: KeyAct, reason: KeyReason, subject: Subject, note: str | None = None
    ) -> Change:
        """Follow an arrow of the life cycle.

        Raises:
            InvalidTransition: the version's state does not have it.
        """
        after = {"state": transition(version.record.state, act), "reason": reason}
        return self.change(version, after, OPERATIONS[act], subject, note=note)

    def superseded(
        self, version: KeyVersion, by: int, reason: KeyReason, subject: Subject, *, retire_at_ms: int = 0
    ) -> Change:
        """Let a version encrypt no more, since a later one does."""
        after = {"superseded_by": by, "retire_at_ms": retire_at_ms, "reason": reason}
        return self.change(version, after, Operation.ROTATE, subject)

    def rewrapped(self, version: KeyVersion, wrapped: WrappedDek, motive: KeyReason, subject: Subject) -> Change:
        """Put the same DEK under another KEK version. Its state, and why it has it, stay."""
        after = {
            "kek_alias": wrapped.kek_alias,
            "kek_version": wrapped.kek_version,
            "wrap_alg": wrapped.wrap_alg,
        }
        return self.change(version, after, Operation.REWRAP, subject, wrapped_dek=wrapped.wrapped_dek, motive=motive)

    def change(
        self,
        before: KeyVersion,
        after: Mapping[str, Any],
        operation: Operation,
        subject: Subject,
        *,
        wrapped_dek: bytes | None = None,
        motive: KeyReason | None = None,
        note: str | None = None,
    ) -> Change:
        """Write the revision that follows.

        Args:
            before: as it is stored.
            after: the fields of its record that are to be different; what links it to `before` is filled in here.
            operation: of the event.
            subject: who acts.
            wrapped_dek: the new one; None keeps it.
            motive: what the event gives as reason; None takes the record's.
            note: of a person, for the event.
        """
        blob = before.wrapped_dek if wrapped_dek is None else wrapped_dek
        linked: dict[str, Any] = {
            "revision": before.record.revision + 1,
            "wrapped_dek_sha256": sha256(blob).digest(),
            "changed_at_ms": self._now_ms(),
            "previous_record_sha256": sha256(before.signed.record).digest(),
            "signer_id": self._signer.signer_id,
        }
        record = replace(before.record, **after, **linked)
        why = record.reason if motive is None else motive
        return self._signed(record, before.owner, blob, operation, subject, motive=why, note=note)

    def _signed(
        self,
        record: KeyRecord,
        owner: Owner,
        wrapped_dek: bytes,
        operation: Operation,
        subject: Subject,
        *,
        motive: KeyReason,
        note: str | None = None,
    ) -> Change:
        """Make the event of a revision, then the record that holds its digest."""
        key = KeyRef(
            id=record.key_id.hex(),
            version=record.key_version,
            revision=record.revision,
            kind="dek",
            state=record.state,
        )
        about = Subject(actor=subject.actor, purpose=subject.purpose, owner=owner.ref(), key=key)
        reason = None if motive is KeyReason.NONE else Reason(motive.value)
        event = self._audit.event(operation, about, outcome=Outcome.SUCCEEDED, reason=reason, note=note)
        line = encode_line(event)
        signed = sign_record(replace(record, event_sha256=sha256(line).digest()), self._signer)
        version = KeyVersion(KeyRecord.decode(signed.record), signed, owner, wrapped_dek)
        return Change(version=version, event_id=event.id, service=event.service, line=line)

    def _now_ms(self) -> int:
        return self._clock.now_us() // 1000
