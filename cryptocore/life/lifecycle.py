"""The life of a key: create, activate, rotate, and the acts that restrict it, each with its signed records and events.

A revision, its record and its event are one transaction of the key store; the event is in the outbox and goes to the
spool from there. Restrictive acts need nothing else: no vault, no spool, no Kafka.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sqlalchemy import Connection

from cryptocore.audit import Refusal, Subject, no_arrow
from cryptocore.cache import key_ref
from cryptocore.envelope import KEY_ID_SIZE, Owner
from cryptocore.errors import InvalidTransition
from cryptocore.keyring import Keyring
from cryptocore.keys import KeyAct, KeyReason, KeyState
from cryptocore.life.revisions import Revisions
from cryptocore.life.wraps import Wraps
from cryptocore.store.key_store import Change, KeyStore, KeyVersion, StoreConflict

_ATTEMPTS: Final = 3
LIVE: Final = frozenset({KeyState.PRE_ACTIVATION, KeyState.ACTIVE, KeyState.SUSPENDED})
Beside = Callable[[Connection], None]
"""Something else that is written in the transaction of a change."""


class LifeCycle:
    """Changes key versions.

    Attributes:
        revisions: makes the changes, for those who change key versions in other ways.
        wraps: wraps DEKs for them.
    """

    def __init__(
        self,
        *,
        store: KeyStore,
        keyring: Keyring,
        wraps: Wraps,
        revisions: Revisions,
        ids: Callable[[int], bytes],
    ) -> None:
        self.revisions = revisions
        self.wraps = wraps
        self._store = store
        self._keyring = keyring
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
        if newest is not None and newest.newest and newest.record.state in LIVE:
            raise no_arrow("the owner has a key that lives", key_ref(newest))
        # 2
        self.revisions.check_signer()
        key_id = self._ids(KEY_ID_SIZE)
        wrapped = await self.wraps.new(key_id, 1, owner, kek_alias, subject)
        # 3
        changes = [self.revisions.first(key_id, 1, owner, wrapped, reason=KeyReason.NONE, subject=subject)]
        if activate:
            changes.append(self.revisions.next(changes[0].version, KeyAct.ACTIVATE, KeyReason.NONE, subject))
        await self.apply(changes)
        return changes[-1].version

    async def rotate(
        self,
        owner: Owner,
        reason: KeyReason,
        subject: Subject,
        *,
        retire_at_ms: int = 0,
        beside: Callable[[KeyVersion, KeyVersion], Beside],
    ) -> tuple[KeyVersion, bool]:
        """Give an owner a new newest version; the one before still decrypts until its retirement date.

        1. The owner has a version that encrypts.
        2. A new DEK is wrapped under the same KEK, unwrapped again and compared.
        3. The old version is superseded, the new one made and activated, in one transaction.
        4. When somebody else rotated meanwhile, theirs is the new version.

        Args:
            owner: whose key.
            reason: why.
            subject: who acts.
            retire_at_ms: when the old version stops decrypting; 0: no date.
            beside: of the old and the new version, what else that transaction writes.

        Returns:
            The newest version, and whether it was made here.

        Raises:
            Refusal: there is nothing to rotate, or the vault or store failed.
        """
        # 1
        old = await self.encrypting(owner)
        # 2
        self.revisions.check_signer()
        number = (await self._keyring.run(self._store.versions, old.key_id))[-1].number + 1
        wrapped = await self.wraps.new(old.key_id, number, owner, old.record.kek_alias, subject)
        # 3
        superseded = self.revisions.superseded(old, number, reason, subject, retire_at_ms=retire_at_ms)
        made = self.revisions.first(old.key_id, number, owner, wrapped, reason=reason, subject=subject)
        active = self.revisions.next(made.version, KeyAct.ACTIVATE, reason, subject)
        try:
            await self.apply([superseded, made, active], [beside(superseded.version, active.version)])
        except StoreConflict:
            # 4
            newest = await self._keyring.run(self._store.newest, owner)
            if newest is None or newest.record.state is not KeyState.ACTIVE or newest.number == old.number:
                raise
            return newest, False
        return active.version, True

    async def encrypting(self, owner: Owner) -> KeyVersion:
        """Read the version that encrypts for an owner.

        Raises:
            Refusal: there is none, or the store failed.
        """
        newest = await self._keyring.run(self._store.newest, owner)
        if newest is None or newest.record.state is not KeyState.ACTIVE or not newest.newest:
            raise no_arrow("the owner has no active key to rotate", None if newest is None else key_ref(newest))
        return newest

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
                        changes.append(self.revisions.next(version, act, reason, subject, note))
                    except InvalidTransition:
                        continue
            if not changes:
                raise _nothing_to(act, key_id, versions, number)
            try:
                await self.apply(changes)
            except StoreConflict:
                if attempt + 1 == _ATTEMPTS:
                    raise no_arrow("the owner has another active key, or the key keeps changing") from None
            else:
                return [change.version for change in changes]
        raise AssertionError("the loop returns or raises")

    async def apply(self, changes: Sequence[Change], beside: Sequence[Beside] = ()) -> None:
        """Write changes, and what goes with them, all or nothing; then forget what was remembered of the keys.

        Raises:
            Refusal: the store failed.
            StoreConflict: a key was changed meanwhile.
        """
        await self._keyring.run(partial(self._store.apply, changes, beside=beside))
        self._keyring.changed([change.version for change in changes])


def _nothing_to(act: KeyAct, key_id: bytes, versions: Sequence[KeyVersion], number: int | None) -> Refusal:
    named = [version for version in versions if number is None or version.number == number]
    if not named:
        return no_arrow(f"there is no key {key_id.hex()}" + ("" if number is None else f" version {number}"))
    newest = named[-1]
    return no_arrow(f"a key version that is {newest.record.state} cannot {act}", key_ref(newest))
