"""Rotations, as who runs them sees them: opened with a new version, reported on, retired; and changes of owner."""

from functools import partial
from typing import Any, Unpack

from sqlalchemy import Select

from cryptocore.audit import Refusal, Subject, no_arrow, not_believed
from cryptocore.cache import key_ref
from cryptocore.core_keys import KeyCare, Told, raw_key_id
from cryptocore.envelope import KEY_ID_SIZE, Owner
from cryptocore.errors import AccessDenied, ConfigurationError
from cryptocore.events import KeyRef, Operation, Outcome
from cryptocore.keyinfo import KeyInfo, key_info
from cryptocore.keys import KeyAct, KeyReason, KeyState
from cryptocore.life import rotations
from cryptocore.life.lifecycle import LIVE, Beside
from cryptocore.life.rotations import Rotation, RotationStep
from cryptocore.lines.texts import PERSON
from cryptocore.store.key_store import KeyVersion, outbox_row


class RotationCare(KeyCare):
    """Rotates keys, and sees rotations to their end."""

    async def rotate(
        self,
        owner: Owner,
        *,
        reason: KeyReason,
        actor: str | None = None,
        purpose: str | None = None,
        retire_at_ms: int = 0,
    ) -> KeyInfo:
        """Give an owner a new version for new data, and open the rotation of the one before (`rotation`).

        The version before decrypts until `retire_at_ms` (0: no date) or until it is retired. Two rotations at once give
        one new version, which both return.

        Raises:
            InvalidTransition: the owner has no active key.
            KeyUnavailable, AccessDenied: vault or store failed or refused.
        """
        subject = Subject.of(actor, purpose, owner.ref())
        work = self._rotate(owner, reason, subject, retire_at_ms)
        return key_info(await self.parts.acts.live(Operation.ROTATE, subject, work))

    async def change_owner(
        self,
        owner: Owner,
        to: Owner,
        *,
        actor: str | None = None,
        purpose: str | None = None,
        kek_alias: str | None = None,
    ) -> KeyInfo:
        """Move an integration to another owner: a key of its own for `to`, and a rotation that leads there.

        A key belongs to one owner for good, so this makes a new one, or takes the one that `to` has. From then on
        nothing is encrypted for the old owner any more; what was, can be read until it is re-encrypted for `to`
        (`reencrypt` with `Row.to_owner`) and the old versions are retired.

        Returns:
            The version that encrypts for `to`.

        Raises:
            InvalidTransition: the old owner has no active key, or `to` has one that lives and is not active.
            KeyUnavailable, AccessDenied: vault or store failed or refused.
        """
        subject = Subject.of(actor, purpose, owner.ref())
        work = self._change_owner(owner, to, kek_alias or self.parts.kek_alias, subject)
        return key_info(await self.parts.acts.live(Operation.ROTATE, subject, work))

    async def rotation(self, of: Owner | str) -> Rotation:
        """Find a rotation by its id, or the one of an owner that is due first.

        Raises:
            AccessDenied: there is none.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        query = rotations.listed(owner=of, due_before_ms=None, finished=False) if isinstance(of, Owner) else _by(of)
        found = await self._rotations(query.limit(1))
        if not found:
            raise AccessDenied("there is no such rotation")
        return found[0]

    async def rotations(
        self, *, owner: Owner | None = None, due_before_ms: int | None = None, finished: bool = False
    ) -> list[Rotation]:
        """List rotations, those due first in front.

        Args:
            owner: of one owner only.
            due_before_ms: only those due by then; with the time it is now, those that are `rotation_unfinished`.
            finished: those that are finished, too.

        Raises:
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        return await self._rotations(rotations.listed(owner=owner, due_before_ms=due_before_ms, finished=finished))

    async def report_reencrypted(
        self, rotation_id: str, rows_left: int, *, actor: str | None = None, purpose: str | None = None
    ) -> Rotation:
        """Say how many ciphertexts are still under the old version; 0: done.

        keytrail does not see the rows of its owners, so this is the owner's word, and the event says whose.

        Raises:
            AccessDenied: there is no such rotation.
            InvalidTransition: its old version is gone already.
            KeyUnavailable: the store does not answer.
        """
        if rows_left < 0:
            raise ConfigurationError("rows left are 0 or more")
        subject = Subject.of(actor, purpose)
        rotation = await self.rotation(rotation_id)
        return await self.parts.acts.live(Operation.ROTATE, subject, self._report(rotation, rows_left, subject))

    async def retire(self, rotation_id: str, **told: Unpack[Told]) -> Rotation:
        """Archive the old version: it decrypts no more. Its wrapped DEK is overwritten by `request_destruction`.

        Args:
            rotation_id: as `rotation` gives it.
            told: actor, purpose and note; see `Told`.

        Raises:
            AccessDenied: there is no such rotation.
            InvalidTransition: rows are left, or nobody reported that none are.
            KeyUnavailable: the store does not answer.
        """
        rotation = await self.rotation(rotation_id)
        subject = Subject.of(told.get("actor"), told.get("purpose"), rotation.owner.ref())
        work = self._retire(rotation, subject, told.get("note"))
        return await self.parts.acts.live(Operation.ARCHIVE, subject, work)

    async def _rotate(self, owner: Owner, reason: KeyReason, subject: Subject, retire_at_ms: int) -> KeyVersion:
        version, made = await self.parts.lifecycle.rotate(
            owner,
            reason,
            subject,
            retire_at_ms=retire_at_ms,
            beside=lambda old, new: rotations.opening(old, new, reason, self.parts.ids),
        )
        if not made:  # the caller gets what it asked for, and the trail says that it was not made twice
            denied = no_arrow("somebody else rotated meanwhile", key_ref(version))
            event = self.parts.audit.event(
                Operation.ROTATE, subject.about(key_ref(version)), outcome=denied.outcome, reason=denied.reason
            )
            await self.parts.audit.record(event)
        return version

    async def _change_owner(self, owner: Owner, to: Owner, kek_alias: str, subject: Subject) -> KeyVersion:
        """Make the new owner's key, and supersede the old one, in one transaction.

        1. The old owner has a version that encrypts; the new one is another, with an active key or none that lives.
        2. The new owner's DEK, unless it has one.
        3. The old newest version is superseded by a number that never exists; every version that still decrypts gets a
           rotation towards the new owner's.
        """
        parts, reason = self.parts, KeyReason.OWNERSHIP_CHANGED
        # 1
        old = await parts.lifecycle.encrypting(owner)
        theirs = await parts.keyring.run(parts.store.newest, to)
        if owner == to:
            raise no_arrow("the key is this owner's already", key_ref(old))
        lives = theirs is not None and theirs.newest and theirs.record.state in LIVE
        if theirs is not None and lives and theirs.record.state is not KeyState.ACTIVE:
            raise no_arrow("the new owner has a key that lives and does not encrypt", key_ref(theirs))
        # 2
        changes = []
        if theirs is None or not lives:
            parts.lifecycle.revisions.check_signer()
            key_id, about = parts.ids(KEY_ID_SIZE), Subject(subject.actor, subject.purpose, to.ref())
            wrapped = await parts.lifecycle.wraps.new(key_id, 1, to, kek_alias, about)
            changes.append(parts.lifecycle.revisions.first(key_id, 1, to, wrapped, reason=reason, subject=about))
            changes.append(parts.lifecycle.revisions.next(changes[0].version, KeyAct.ACTIVATE, reason, about))
            theirs = changes[-1].version
        # 3
        versions = await parts.keyring.run(parts.store.versions, old.key_id)
        beside: list[Beside] = [
            rotations.opening(version, theirs, reason, parts.ids)
            for version in versions
            if version.record.state in (KeyState.ACTIVE, KeyState.SUSPENDED)
        ]
        changes.append(parts.lifecycle.revisions.superseded(old, versions[-1].number + 1, reason, subject))
        await parts.lifecycle.apply(changes, beside)
        return theirs

    async def _report(self, rotation: Rotation, rows_left: int, subject: Subject) -> Rotation:
        about = Subject(
            subject.actor, subject.purpose, rotation.owner.ref(), KeyRef(id=rotation.key_id, version=rotation.version)
        )
        if rotation.step is RotationStep.FINISHED:
            raise no_arrow("the rotation is finished", about.key)
        note = f"rotation {rotation.id}: {rows_left} rows left"
        event = self.parts.audit.event(
            Operation.ROTATE, about, outcome=Outcome.SUCCEEDED, note=note if subject.actor.startswith(PERSON) else None
        )
        told = outbox_row(event, self.parts.signer)
        report = rotations.reporting(bytes.fromhex(rotation.id), rows_left)
        await self.parts.keyring.run(partial(self.parts.store.apply, (), beside=(report, told)))
        return await self._again(rotation)

    async def _retire(self, rotation: Rotation, subject: Subject, note: str | None) -> Rotation:
        key = KeyRef(id=rotation.key_id, version=rotation.version)
        if rotation.step is RotationStep.REENCRYPT:
            raise no_arrow("rows are left under the old version, or nobody reported that none are", key)
        if rotation.step is RotationStep.RETIRE:
            await self.parts.lifecycle.act(
                raw_key_id(rotation.key_id),
                KeyAct.ARCHIVE,
                subject,
                reason=rotation.reason,
                number=rotation.version,
                note=note,
            )
        return await self._again(rotation)

    async def _again(self, rotation: Rotation) -> Rotation:
        return (await self._read(rotations.by_id(bytes.fromhex(rotation.id))))[0]

    async def _rotations(self, query: Select[Any]) -> list[Rotation]:
        try:
            return await self._read(query)
        except Refusal as refusal:
            raise refusal.public() from None

    async def _read(self, query: Select[Any]) -> list[Rotation]:
        parts = self.parts
        found = []
        for row in await parts.keyring.run(parts.store.transaction, rotations.rows(query)):
            old = await parts.keyring.run(parts.store.version, row["key_id"], row["version"])
            if old is None:
                raise not_believed("rotation: its version is gone")
            try:
                found.append(rotations.rotation_of(row, old))
            except ValueError:
                raise not_believed("rotation: not of its form") from None
        return found


def _by(rotation_id: str) -> Select[Any]:
    try:
        return rotations.by_id(bytes.fromhex(rotation_id))
    except ValueError:
        raise ConfigurationError("a rotation id is 32 hex digits") from None
