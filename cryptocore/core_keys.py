"""The life of keys, as a service and an operator see it: the half of CryptoCore that makes keys and restricts them."""

from typing import Final, TypedDict, Unpack

from cryptocore.audit import Refusal, Subject
from cryptocore.envelope import KEY_ID_SIZE, Owner
from cryptocore.errors import AccessDenied, ConfigurationError
from cryptocore.events import Operation
from cryptocore.keyinfo import KeyInfo, key_info
from cryptocore.keys import KeyAct, KeyReason
from cryptocore.life.revisions import OPERATIONS
from cryptocore.parts import Parts
from cryptocore.records import SignedRecord
from cryptocore.store.key_store import KeyVersion


class Told(TypedDict, total=False):
    """What may be said with an act on a key.

    Attributes:
        actor: who acts, `kind:opaque-id`; else from context.
        purpose: what for; else from context.
        version: one version of the key; else all that the act can be done with.
        note: a short text for the trail.
    """

    actor: str | None
    purpose: str | None
    version: int | None
    note: str | None


class KeyCare:
    """Makes keys and changes their state. `parts` is for cryptocore's own rooms."""

    parts: Parts

    async def open(self) -> None:
        """Open what acts need, unless it is open; CryptoCore says how."""
        raise NotImplementedError

    async def create_key(
        self,
        owner: Owner,
        *,
        actor: str | None = None,
        purpose: str | None = None,
        kek_alias: str | None = None,
    ) -> KeyInfo:
        """Make a key in state pre-activation; `activate` lets it encrypt.

        Raises:
            InvalidTransition: the owner has a key that lives.
            KeyUnavailable, AccessDenied: vault or store failed or refused.
            AuditUnavailable: an event is not durable.
        """
        subject = Subject.of(actor, purpose, owner.ref())
        work = self.parts.lifecycle.create(owner, kek_alias or self.parts.kek_alias, subject)
        return key_info(await self.parts.acts.live(Operation.CREATE, subject, work))

    async def activate(self, key_id: str, *, actor: str | None = None, purpose: str | None = None) -> KeyInfo:
        """Let a key encrypt.

        Raises:
            InvalidTransition: it has no version that waits for it, or the owner has another active key.
        """
        told: Told = {"actor": actor, "purpose": purpose}
        return (await self._act(key_id, KeyAct.ACTIVATE, KeyReason.NONE, told))[-1]

    async def revoke(self, key_id: str, *, reason: KeyReason, **told: Unpack[Told]) -> list[KeyInfo]:
        """Take a key, or one version of it, out of service for good. Needs the key store only.

        Args:
            key_id: as `describe` gives it.
            reason: why; `NONE` is none.
            told: see `Told`.

        Raises:
            InvalidTransition: there is nothing to revoke.
            KeyUnavailable: the store does not answer.
        """
        return await self._act(key_id, KeyAct.REVOKE, reason, told)

    async def suspend(self, key_id: str, *, reason: KeyReason, **told: Unpack[Told]) -> list[KeyInfo]:
        """Stop all use of a key until `resume`. Arguments and errors as `revoke`."""
        return await self._act(key_id, KeyAct.SUSPEND, reason, told)

    async def resume(self, key_id: str, *, reason: KeyReason, **told: Unpack[Told]) -> list[KeyInfo]:
        """End a suspension. Arguments and errors as `revoke`."""
        return await self._act(key_id, KeyAct.RESUME, reason, told)

    async def archive(self, key_id: str, *, reason: KeyReason, **told: Unpack[Told]) -> list[KeyInfo]:
        """Take a key out of use and keep it. Arguments and errors as `revoke`."""
        return await self._act(key_id, KeyAct.ARCHIVE, reason, told)

    async def describe(self, owner: Owner) -> KeyInfo:
        """Say which version encrypts for an owner, or which was the last one; no event, since no key is used.

        Raises:
            AccessDenied: the owner has no key.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        try:
            version = await self.parts.keyring.run(self.parts.store.newest, owner)
        except Refusal as refusal:
            raise refusal.public() from None
        if version is None:
            raise AccessDenied("the owner has no key")
        return key_info(version)

    async def versions(self, key_id: str) -> list[KeyInfo]:
        """Describe all versions of a key, the oldest first; no event, since no key is used.

        Raises:
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        return [key_info(version) for version in await self._versions(key_id)]

    async def records(self, key_id: str) -> list[SignedRecord]:
        """Give the signed record of each version of a key, the oldest first: what an approval names.

        Raises:
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        return [version.signed for version in await self._versions(key_id)]

    async def _versions(self, key_id: str) -> list[KeyVersion]:
        try:
            return await self.parts.keyring.run(self.parts.store.versions, raw_key_id(key_id))
        except Refusal as refusal:
            raise refusal.public() from None

    async def _act(self, key_id: str, act: KeyAct, reason: KeyReason, told: Told) -> list[KeyInfo]:
        subject = Subject.of(told.get("actor"), told.get("purpose"))
        raw = raw_key_id(key_id)
        if reason is KeyReason.NONE and act in _WITH_REASON:
            raise ConfigurationError(f"to {act} a key needs a reason")
        work = self.parts.lifecycle.act(
            raw, act, subject, reason=reason, number=told.get("version"), note=told.get("note")
        )
        about, restrictive = subject.claiming(raw), act in _RESTRICTIVE
        changed = await self.parts.acts.live(OPERATIONS[act], about, work, restrictive=restrictive)
        return [key_info(version) for version in changed]


_RESTRICTIVE: Final = frozenset({KeyAct.SUSPEND, KeyAct.REVOKE, KeyAct.ARCHIVE})
_WITH_REASON: Final = frozenset({KeyAct.SUSPEND, KeyAct.RESUME, KeyAct.REVOKE, KeyAct.ARCHIVE})


def raw_key_id(key_id: str) -> bytes:
    """Read a key's id.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        raw = bytes.fromhex(key_id)
    except ValueError:
        raw = b""
    if len(raw) != KEY_ID_SIZE:
        raise ConfigurationError(f"a key id is {2 * KEY_ID_SIZE} hex digits") from None
    return raw
