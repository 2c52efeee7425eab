"""DEKs under KEKs for acts on keys: wrapped, unwrapped again and compared, before any row is written.

A vault may wrap under a KEK version that it will not unwrap with any more; only the comparison shows it.
"""

import os

from cryptocore.audit import Subject
from cryptocore.dek import DEK_SIZE
from cryptocore.envelope import Owner, Suite
from cryptocore.events import KeyRef, Reason
from cryptocore.keyring import Keyring
from cryptocore.life.revisions import WrappedDek
from cryptocore.vaultcalls import VaultCalls, vault_refusal
from cryptocore.wrapping import KeyWrapper, Secret, VaultCallFailed, algorithm_of, commitment


class Wraps:
    """Wraps the DEKs of new versions, and those of old versions anew."""

    def __init__(self, keyring: Keyring, calls: VaultCalls) -> None:
        self._keyring = keyring
        self._calls = calls

    async def new(self, key_id: bytes, number: int, owner: Owner, kek_alias: str, subject: Subject) -> WrappedDek:
        """Draw a DEK and wrap it; arguments and errors as `wrap`."""
        dek = Secret(os.urandom(DEK_SIZE))
        return await self.wrap(dek, key_id, number, owner, kek_alias=kek_alias, subject=subject)

    async def wrap(
        self,
        dek: Secret,
        key_id: bytes,
        number: int,
        owner: Owner,
        *,
        kek_alias: str,
        subject: Subject,
        kek_version: str | None = None,
    ) -> WrappedDek:
        """Wrap a DEK under a KEK, and see that it comes back.

        Args:
            dek: of this key version and owner.
            key_id: with `number`, the version that wrap and events name.
            number: of the version.
            owner: whose it is.
            kek_alias: the KEK.
            subject: who acts.
            kek_version: of the KEK; None asks the vault which one new wraps use.

        Raises:
            Refusal: the vault refused or failed, or gave back something else.
            AuditUnavailable: an event is not durable.
        """
        wrapper = self._keyring.wrapper(kek_alias)
        if kek_version is None:
            kek_version = await self.current_version(wrapper)
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
        return WrappedDek(wrapped_dek, kek_alias, kek_version, committed, algorithm_of(wrapper))

    async def current_version(self, wrapper: KeyWrapper) -> str:
        """Ask which KEK version new wraps use.

        Raises:
            Refusal: the vault does not say.
        """
        try:
            return await wrapper.current_version()
        except VaultCallFailed as failed:
            raise vault_refusal(failed.reason, retryable=failed.retryable) from None
