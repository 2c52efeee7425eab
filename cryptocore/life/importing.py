"""The import of DEKs that other software wrapped: unwrapped by the vault, wrapped again in our form, recorded.

An imported DEK was used with another cipher, and who knows by whom. So its version is superseded from its beginning: it
encrypts nothing, is read by `reencrypt` with a `LegacyCipher`, and has an open rotation towards the owner's own key,
which is made when the owner has none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, insert, select

from cryptocore.audit import Subject, no_arrow
from cryptocore.cache import key_ref
from cryptocore.envelope import KEY_ID_SIZE, Owner
from cryptocore.errors import ConfigurationError
from cryptocore.events import KeyRef, Reason
from cryptocore.keys import KeyAct, KeyReason, KeyState
from cryptocore.life import rotations
from cryptocore.life.bare import BareWrap
from cryptocore.life.lifecycle import LIVE
from cryptocore.parts import Parts
from cryptocore.store.key_store import Change, KeyVersion, StoreConflict, database_ms
from cryptocore.store.rotation_tables import IMPORTED_DEK
from cryptocore.vaultcalls import BareUnwrapper, vault_refusal

FIRST: Final = 1
_NEVER: Final = 2
"""What an imported version is superseded by: a number that its key never has."""


@dataclass(frozen=True, slots=True)
class BareDek:
    """A DEK as other software wrapped it.

    Attributes:
        wrapped_dek: RSA-OAEP ciphertext of 32 bytes.
        kek_alias: of the KEK that wrapped it, as configured here.
        kek_version: of that KEK.
        algorithm: how it was wrapped; Node's `publicEncrypt` means RSA-OAEP unless told `sha256`.
    """

    wrapped_dek: bytes = field(repr=False)
    kek_alias: str
    kek_version: str
    algorithm: BareWrap = BareWrap.RSA_OAEP

    def digest(self, owner: Owner) -> bytes:
        """Name it beside its owner, so that it is imported once."""
        return sha256(owner.encode() + self.wrapped_dek).digest()


class Importing:
    """Imports one DEK."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self, bare: BareDek, owner: Owner, kek_alias: str, reason: KeyReason, subject: Subject) -> KeyVersion:
        """Import a DEK; one that was imported for this owner before is found again.

        1. It is new here, and the owner has an active key or none that lives.
        2. The vault unwraps it; it has 32 bytes.
        3. It is wrapped in our form, unwrapped again and compared; so is a DEK of the owner's own, where there is none.
        4. Records, events, the rotation that is open now, and what makes it known again: one transaction.

        Raises:
            Refusal: the owner's key is in the way, or the vault or store failed or refused.
            AuditUnavailable: an event is not durable.
        """
        parts = self._parts
        digest = bare.digest(owner)
        # 1
        known = await self._known(digest)
        if known is not None:
            return known
        parts.lifecycle.revisions.check_signer()
        newest = await parts.keyring.run(parts.store.newest, owner)
        lives = newest is not None and newest.newest and newest.record.state in LIVE
        encrypts = newest is not None and lives and newest.record.state is KeyState.ACTIVE
        if newest is not None and lives and not encrypts:
            raise no_arrow("the owner has a key that lives and does not encrypt", key_ref(newest))
        # 2
        key_id = parts.ids(KEY_ID_SIZE)
        wrapper = parts.keyring.wrapper(bare.kek_alias)
        if not isinstance(wrapper, BareUnwrapper):
            raise vault_refusal(Reason.VAULT_ERROR, retryable=False)
        dek = await parts.calls.unwrap_bare(
            wrapper,
            bare.wrapped_dek,
            algorithm=bare.algorithm,
            kek_version=bare.kek_version,
            subject=subject.about(KeyRef(id=key_id.hex(), version=FIRST, kind="dek")),
        )
        # 3
        wrapped = await parts.lifecycle.wraps.wrap(dek, key_id, FIRST, owner, kek_alias=kek_alias, subject=subject)
        changes = [
            parts.lifecycle.revisions.first(
                key_id, FIRST, owner, wrapped, reason=reason, subject=subject, superseded_by=_NEVER
            )
        ]
        if not encrypts or newest is None:
            own = await self._own(owner, kek_alias, reason, subject)
            changes += own
            newest = own[-1].version
        # 4
        beside = (
            rotations.opening(changes[0].version, newest, reason, parts.ids),
            _knowing(digest, changes[0].version),
        )
        try:
            await parts.lifecycle.apply(changes, beside)
        except StoreConflict:  # somebody else imported it, or made the owner's key, meanwhile
            known = await self._known(digest)
            if known is None:
                raise
            return known
        return changes[0].version

    async def _own(self, owner: Owner, kek_alias: str, reason: KeyReason, subject: Subject) -> list[Change]:
        parts = self._parts
        key_id = parts.ids(KEY_ID_SIZE)
        wrapped = await parts.lifecycle.wraps.new(key_id, FIRST, owner, kek_alias, subject)
        made = parts.lifecycle.revisions.first(key_id, FIRST, owner, wrapped, reason=reason, subject=subject)
        return [made, parts.lifecycle.revisions.next(made.version, KeyAct.ACTIVATE, reason, subject)]

    async def _known(self, digest: bytes) -> KeyVersion | None:
        parts = self._parts
        query = select(IMPORTED_DEK.c.key_id, IMPORTED_DEK.c.version).where(IMPORTED_DEK.c.blob_sha256 == digest)
        row = await parts.keyring.run(parts.store.transaction, lambda connection: connection.execute(query).first())
        return None if row is None else await parts.keyring.run(parts.store.version, *row)


def imported(owner: Owner) -> Callable[[Connection], list[tuple[bytes, int]]]:
    """List the versions imported for an owner, the last one first."""
    query = select(IMPORTED_DEK.c.key_id, IMPORTED_DEK.c.version).where(IMPORTED_DEK.c.owner == owner.encode())
    query = query.order_by(IMPORTED_DEK.c.imported_ms.desc())
    return lambda connection: [(key_id, version) for key_id, version in connection.execute(query)]


def check_bare(bare: BareDek) -> None:
    """Refuse what no RSA key wraps.

    Raises:
        ConfigurationError: it has another size than a ciphertext of RSA with 2048 to 4096 bits.
    """
    if not MIN_WRAPPED <= len(bare.wrapped_dek) <= MAX_WRAPPED:
        raise ConfigurationError(f"a wrapped DEK has {MIN_WRAPPED} to {MAX_WRAPPED} bytes; decode it before")


MIN_WRAPPED: Final = 256
MAX_WRAPPED: Final = 512


def _knowing(digest: bytes, version: KeyVersion) -> Callable[[Connection], None]:
    def write(connection: Connection) -> None:
        connection.execute(
            insert(IMPORTED_DEK).values(
                blob_sha256=digest,
                owner=version.owner.encode(),
                key_id=version.key_id,
                version=version.number,
                imported_ms=database_ms(connection),
            ),
        )

    return write
