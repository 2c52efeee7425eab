"""Destruction, as operators see it: two people ask, days pass, the DEKs go, a certificate says what is gone."""

from collections.abc import Mapping, Sequence
from typing import Unpack

from cryptocore.audit import Refusal, Subject
from cryptocore.core_keys import Told
from cryptocore.core_work import WorkCare
from cryptocore.envelope import KEY_ID_SIZE
from cryptocore.errors import ConfigurationError
from cryptocore.events import Operation
from cryptocore.keys import KeyReason
from cryptocore.life.approvals import SignedApproval
from cryptocore.life.certifying import Certifying
from cryptocore.life.copies import UNDECLARED, Copies
from cryptocore.life.destroying import Destroying
from cryptocore.life.destruction import COOLING_OFF_DAYS, MOST_DAYS, Destruction, Disbelieved


class DestructionCare(WorkCare):
    """Destroys key versions for good."""

    async def request_destruction(
        self, approvals: Sequence[SignedApproval], *, cooling_off_days: int = COOLING_OFF_DAYS, **told: Unpack[Told]
    ) -> Destruction:
        """Ask for the destruction of key versions, each approved by two people as its record is now.

        Nothing is overwritten before the cooling-off is over, by the database's clock; until then `restore` calls it
        off. A version that is changed meanwhile (rewrapped, say) must be approved anew.

        Args:
            approvals: action destroy; two for each version, by different people. One request, one certificate.
            cooling_off_days: 1 to 365.
            told: actor, purpose and note; see `Told`.

        Raises:
            AccessDenied: the approvals do not hold, or were used before.
            InvalidTransition: a version is not there, its state does not lead to destroyed, or rows are left under it.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        if not 1 <= cooling_off_days <= MOST_DAYS:
            raise ConfigurationError(f"a cooling-off lasts 1 to {MOST_DAYS} days")
        subject = Subject.of(told.get("actor"), told.get("purpose"))
        work = Destroying(self.parts).request(
            approvals, subject, cooling_off_days=cooling_off_days, note=told.get("note")
        )
        return await self.parts.acts.live(Operation.DESTROY, subject, work)

    async def restore(self, destruction_id: str, **told: Unpack[Told]) -> Destruction:
        """Call a destruction off, as long as nothing is overwritten.

        Raises:
            InvalidTransition: there is none, it has begun, or was called off before.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        subject = Subject.of(told.get("actor"), told.get("purpose"))
        work = Destroying(self.parts).restore(_raw(destruction_id), subject, note=told.get("note"))
        return await self.parts.acts.live(Operation.RESUME, subject, work)

    async def destroy(
        self, destruction_id: str, *, reason: KeyReason = KeyReason.OPERATOR, **told: Unpack[Told]
    ) -> Destruction:
        """Overwrite and remove the wrapped DEKs of a destruction that has cooled off. Cannot be undone.

        May be called again, and must be after a crash: it goes on where it was.

        Raises:
            InvalidTransition: there is none, it was called off, it has not cooled off, or a key was changed since.
            AccessDenied: its approvals do not hold.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        subject = Subject.of(told.get("actor"), told.get("purpose"))
        work = Destroying(self.parts).overwrite(_raw(destruction_id), subject, reason=reason)
        return await self.parts.acts.live(Operation.DESTROY, subject, work)

    async def certify_destruction(
        self,
        destruction_id: str,
        *,
        copies: Copies = UNDECLARED,
        kek_purges: Mapping[tuple[str, str], int] | None = None,
    ) -> Destruction:
        """Issue the certificate of a destruction, once every instance is past it; again when more is known.

        Args:
            destruction_id: as `request_destruction` gave it.
            copies: of the key store, as declared and reviewed.
            kek_purges: when KEK versions were purged elsewhere, by alias and version, in milliseconds since 1970; what
                `keks.purge` saw is known (`keks.ends`) and counts before it. Purges tell nothing of an imported DEK,
                which other software had wrapped before.

        Raises:
            InvalidTransition: there is none, not all is overwritten yet, or a KEK is still to be purged, or was not
                purged at the time that is named, by what was seen.
            KeyUnavailable: an instance may still use what it remembers (try again), or the store is not to be believed.
        """
        try:
            return await Certifying(self.parts).certify(_raw(destruction_id), copies, kek_purges or {})
        except Refusal as refusal:
            raise refusal.public() from None

    async def destructions(self) -> list[Destruction]:
        """List destructions that are neither called off nor certified, those due first in front.

        A row that is not believed is left out, so that it hides no other: `disbelieved_destructions` names it.

        Raises:
            KeyUnavailable: the store does not answer.
        """
        return (await self._listed())[0]

    async def disbelieved_destructions(self) -> list[Disbelieved]:
        """Name the destructions that are neither called off nor certified, and whose rows are not to be believed.

        Raises:
            KeyUnavailable: the store does not answer.
        """
        return (await self._listed())[1]

    async def _listed(self) -> tuple[list[Destruction], list[Disbelieved]]:
        try:
            return await Destroying(self.parts).listed()
        except Refusal as refusal:
            raise refusal.public() from None


def _raw(destruction_id: str) -> bytes:
    try:
        raw = bytes.fromhex(destruction_id)
    except ValueError:
        raw = b""
    if len(raw) != KEY_ID_SIZE:
        raise ConfigurationError("a destruction id is 32 hex digits") from None
    return raw
