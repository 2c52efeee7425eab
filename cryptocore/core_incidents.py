"""What goes wrong with keys, as operators see it: what hangs on one, what is late, a compromise, a tenant's end."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from cryptocore.audit import Subject
from cryptocore.care import compromise as compromising
from cryptocore.care import impact
from cryptocore.care import overdue as lateness
from cryptocore.care.classes import KeyLabel, Labels
from cryptocore.care.compromise import Compromise
from cryptocore.care.impact import BlastRadius, UseHistory
from cryptocore.care.incidents import Incidents
from cryptocore.care.overdue import Overdue
from cryptocore.care.terms import Classification, Terms
from cryptocore.care.threat import Threats
from cryptocore.core_destruction import DestructionCare
from cryptocore.errors import ConfigurationError
from cryptocore.life import offboarding
from cryptocore.life.approvals import SignedApproval
from cryptocore.life.destruction import COOLING_OFF_DAYS
from cryptocore.life.offboarding import Offboarding
from cryptocore.tokens.vault import TokenVault

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore


class IncidentCare(DestructionCare):
    """Looks after keys that are in danger, late, or nobody's any more."""

    @property
    def tokens(self) -> TokenVault:
        """The tokens kept beside the keys."""
        return TokenVault(cast("CryptoCore", self))

    @property
    def threats(self) -> Threats:
        """The threat level, which shortens cryptoperiods."""
        return Threats(self.parts)

    def incidents(self, terms: Terms | None = None) -> Incidents:
        """Give the incidents of this store; `terms` are the packaged ones unless given."""
        return Incidents(self.parts, terms)

    async def label(
        self,
        key_id: str,
        classification: Classification,
        team: str,
        *,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> KeyLabel:
        """Say how sensitive a key's data is and which team answers for it; raises as `Labels.label`."""
        return await Labels(self.parts).label(key_id, classification, team, actor=actor, purpose=purpose)

    async def labels(self) -> dict[str, KeyLabel]:
        """Read the labels of all keys, by key id; raises as `Labels.of`."""
        return await Labels(self.parts).all()

    async def overdue(
        self,
        *,
        terms: Terms | None = None,
        now_ms: int | None = None,
        kek_created_ms: Mapping[tuple[str, str], int] | None = None,
        kek_purge_due_ms: Mapping[str, int] | None = None,
    ) -> list[Overdue]:
        """List what is late: keys, KEKs, rotations, expired tokens, incidents. See `cryptocore.care.overdue`.

        Raises:
            KeyUnavailable: the store does not answer.
        """
        core = cast("CryptoCore", self)
        return await lateness.overdue(
            core, terms=terms, now_ms=now_ms, kek_created_ms=kek_created_ms, kek_purge_due_ms=kek_purge_due_ms
        )

    async def blast_radius(
        self,
        key_id: str | None = None,
        *,
        kek: str | None = None,
        kek_version: str | None = None,
        history: UseHistory | None = None,
    ) -> BlastRadius:
        """Say what hangs on a key, or on a KEK by its alias; uses are established only with a `history`.

        Raises:
            AccessDenied: there is no such key.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        if (key_id is None) == (kek is None):
            raise ConfigurationError("either a key id or the alias of a KEK")
        if key_id is not None:
            return await impact.of_key(self.parts, key_id, history)
        assert kek is not None
        return await impact.of_kek(self.parts, kek, kek_version, history)

    async def compromise(
        self,
        key_id: str,
        summary: str,
        *,
        occurred_ms: int | None = None,
        detected_ms: int | None = None,
        versions: Sequence[int] | None = None,
        history: UseHistory | None = None,
        terms: Terms | None = None,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> Compromise:
        """Revoke a compromised key, end its owner's tokens, open an incident; a new version if the vault answers.

        Needs the database only, but for the new version. Repeat the call when it was cut off: it goes on where it was.
        As long as the incident is open, its versions are those in question; give `versions` when another one is, too.

        Raises:
            InvalidTransition: there is no such key.
            KeyUnavailable: the database does not answer.
        """
        return await compromising.compromise(
            cast("CryptoCore", self),
            key_id,
            summary=summary,
            subject=Subject.of(actor, purpose),
            occurred_ms=occurred_ms,
            detected_ms=detected_ms,
            versions=versions,
            history=history,
            incidents=Incidents(self.parts, terms),
        )

    async def offboard(
        self,
        tenant_id: str,
        *,
        approvals: Sequence[SignedApproval] = (),
        cooling_off_days: int = COOLING_OFF_DAYS,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> Offboarding:
        """End a tenant's tokens, archive its keys and, once two people approved, ask for their destruction.

        The first call, without approvals, says which versions are to be approved. One certificate covers them all; it
        is issued as that of any destruction (`destroy`, `certify_destruction`).

        Raises:
            InvalidTransition: the tenant has no key, or the approvals leave versions out.
            AccessDenied: the approvals do not hold.
            KeyUnavailable: the store does not answer, or is not to be believed; repeat the call.
        """
        return await offboarding.offboard(
            cast("CryptoCore", self),
            tenant_id,
            subject=Subject.of(actor, purpose),
            approvals=approvals,
            cooling_off_days=cooling_off_days,
        )
