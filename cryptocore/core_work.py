"""Long work on many keys and rows, as who runs it sees it: rewrap, re-encrypt, and the import of what was before."""

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection

from cryptocore.audit import Refusal, Subject, no_arrow
from cryptocore.core_rotation import RotationCare
from cryptocore.envelope import KEY_ID_SIZE, Owner
from cryptocore.errors import ConfigurationError
from cryptocore.events import KeyRef, Operation, Outcome
from cryptocore.keyinfo import KeyInfo, key_info
from cryptocore.keys import KeyReason
from cryptocore.life import approval_desk, grants
from cryptocore.life.approval_pairs import by_key
from cryptocore.life.approvals import ApprovalInvalid, SignedApproval
from cryptocore.life.callers_rows import Reencrypted, Rows
from cryptocore.life.grants import RecoveryGrant
from cryptocore.life.importing import BareDek, Importing, check_bare
from cryptocore.life.legacy import LegacyCipher
from cryptocore.life.reencrypt import Reencrypt
from cryptocore.life.rewrap import CONCURRENCY, Rewrap
from cryptocore.lines.texts import PERSON
from cryptocore.store.cursors import Progress
from cryptocore.store.key_store import outbox_row


class WorkCare(RotationCare):
    """Moves DEKs under other KEKs, and data under other DEKs."""

    async def rewrap(
        self,
        kek_alias: str | None = None,
        *,
        to_alias: str | None = None,
        reason: KeyReason = KeyReason.SCHEDULED,
        concurrency: int = CONCURRENCY,
        per_second: float | None = None,
        progress: Callable[[Progress], None] | None = None,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> Progress:
        """Put every DEK that is under a KEK under its newest version, or under another KEK.

        Each new wrap is unwrapped and compared before its row is written. May be run again, by several processes at
        once, and after a crash: it goes on where it was. Failures are counted, each with its event.

        Args:
            kek_alias: the KEK the DEKs are under; None: that of new keys.
            to_alias: another KEK to put them under; None: the same one.
            reason: why, for the events.
            concurrency: DEKs under way at once.
            per_second: at most so many begun in a second.
            progress: is told after each page.
            actor: who acts, `kind:opaque-id`; else from context.
            purpose: what for; else from context.

        Raises:
            KeyUnavailable, AccessDenied: store or vault do not answer, or refused too often in a row.
            AuditUnavailable: an event is not durable.
        """
        subject = Subject.of(actor, purpose)
        await self.open()
        alias = kek_alias or self.parts.kek_alias
        target = to_alias or alias
        try:
            self.parts.lifecycle.revisions.check_signer()
            kek_version = await self.parts.lifecycle.wraps.current_version(self.parts.keyring.wrapper(target))
        except Refusal as refusal:
            return await self.parts.relay.refuse(Operation.REWRAP, subject, refusal)
        run = Rewrap(
            self.parts,
            alias=alias,
            to_alias=target,
            kek_version=kek_version,
            reason=reason,
            subject=subject,
            concurrency=concurrency,
            per_second=per_second,
            progress=progress,
        )
        return await run.run()

    async def reencrypt(
        self,
        name: str,
        rows: Rows,
        *,
        legacy: LegacyCipher | None = None,
        progress: Callable[[Progress], None] | None = None,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> Reencrypted:
        """Move a caller's rows to the newest version of their owner, from wherever they are.

        Rows under the newest version are left alone. Superseded versions are read; revoked ones under a recovery grant
        only (`grant_recovery`), and the events say so; suspended and archived ones are not. May be run again, and after
        a crash: it goes on where it was. A row that cannot be moved is counted, leaves its event, and is named.

        Args:
            name: of this set of rows, the same in each run; 1 to 200 characters.
            rows: lists them, and writes by compare-and-set.
            legacy: opens what is no envelope with DEKs that were imported (`import_key`).
            progress: is told after each batch.
            actor: who acts, `kind:opaque-id`; else from context.
            purpose: what for; else from context.

        Raises:
            KeyUnavailable, AccessDenied: store or vault do not answer, or refused.
            AuditUnavailable: events are not durable; no new ciphertext was given to `rows`.
        """
        if not 1 <= len(name) <= MAX_NAME:
            raise ConfigurationError(f"the name of a set of rows has 1 to {MAX_NAME} characters")
        subject = Subject.of(actor, purpose)
        await self.open()
        run = Reencrypt(self.parts, name, rows, legacy=legacy, subject=subject, progress=progress)
        try:
            return await run.run()
        except Refusal as refusal:
            raise refusal.public() from None

    async def grant_recovery(
        self, approvals: Sequence[SignedApproval], *, actor: str | None = None, purpose: str | None = None
    ) -> RecoveryGrant:
        """Let `reencrypt` read the revoked versions of an owner's key until the approvals expire, 24 hours at most.

        Args:
            approvals: two, action recovery_grant, by different people, of the record of one of the revoked versions.
            actor: who acts, `kind:opaque-id`; else from context.
            purpose: what for; else from context.

        Raises:
            AccessDenied: the approvals do not hold, last too long, or were used before.
            InvalidTransition: there is no such version, or it is not revoked.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        subject = Subject.of(actor, purpose)
        return await self.parts.acts.live(Operation.RESUME, subject, self._granted(approvals, subject))

    async def import_key(
        self,
        bare: BareDek,
        owner: Owner,
        *,
        kek_alias: str | None = None,
        reason: KeyReason = KeyReason.SCHEDULED,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> KeyInfo:
        """Bring in a DEK that other software wrapped. It encrypts nothing here; `reencrypt` moves its data.

        The owner's own key is made when there is none, and the rotation towards it is open. To import the same DEK for
        the same owner again changes nothing.

        Args:
            bare: the wrapped DEK, and the KEK that wrapped it.
            owner: whose data it encrypted.
            kek_alias: the KEK to wrap it under in our form; None: that of new keys.
            reason: why, for records and events.
            actor: who acts, `kind:opaque-id`; else from context.
            purpose: what for; else from context.

        Returns:
            The imported version.

        Raises:
            InvalidTransition: the owner has a key that lives and does not encrypt.
            KeyUnavailable, AccessDenied: vault or store failed or refused, or what came out is no DEK.
            AuditUnavailable: an event is not durable.
        """
        check_bare(bare)
        subject = Subject.of(actor, purpose, owner.ref())
        work = Importing(self.parts).run(bare, owner, kek_alias or self.parts.kek_alias, reason, subject)
        return key_info(await self.parts.acts.live(Operation.CREATE, subject, work))

    async def _granted(self, approvals: Sequence[SignedApproval], subject: Subject) -> RecoveryGrant:
        parts = self.parts
        try:
            named = by_key(approvals)
        except ApprovalInvalid as err:
            raise approval_desk.not_approved(err) from None
        if len(named) != 1:
            raise no_arrow("a recovery grant names one key version")
        [(key_id, number)] = named
        version = await parts.keyring.run(parts.store.version, key_id, number)
        if version is None:
            raise no_arrow(f"there is no key {key_id.hex()} version {number}")
        about = Subject(subject.actor, subject.purpose, version.owner.ref(), KeyRef(id=key_id.hex(), kind="dek"))
        note = "recovery grant" if subject.actor.startswith(PERSON) else None
        event = parts.audit.event(Operation.RESUME, about, outcome=Outcome.SUCCEEDED, note=note)
        grant = grants.granting(version, approvals, parts.registry, parts.ids(KEY_ID_SIZE))

        def write(connection: Connection) -> RecoveryGrant:
            granted = grant(connection)
            outbox_row(event, parts.signer)(connection)
            return granted

        return await parts.keyring.run(parts.store.transaction, write)


MAX_NAME: Final = 200
