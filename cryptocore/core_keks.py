"""KEKs, the list of all keys, and records signed anew, as operators see them."""

from cryptocore.audit import Subject
from cryptocore.care.inventory import Inventory
from cryptocore.core_incidents import IncidentCare
from cryptocore.keks.life import Keks
from cryptocore.life.resign import Resign, Resigned, Trail


class KekCare(IncidentCare):
    """Looks after KEKs, and after the store as a whole."""

    @property
    def keks(self) -> Keks:
        """The configured KEKs, whose life is in a vault."""
        return Keks(self.parts)

    @property
    def inventory(self) -> Inventory:
        """All key versions and their histories."""
        return Inventory(self.parts)

    async def resign(
        self,
        trail: Trail | None,
        *,
        key_id: str | None = None,
        apply: bool = True,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> Resigned:
        """Sign key records anew that another signer signed: a new revision in the same state, by this core's signer.

        Done when a signer is replaced. Each record is first compared with what the monitor was told, since whoever had
        the old signer's key could have written records of his own. May be run again. Destroyed versions are left.

        Args:
            trail: what the monitor knows; None compares with nothing, which is only for a store that nobody monitored.
            key_id: one key; None: all.
            apply: False looks only.
            actor: who acts, `kind:opaque-id`; else from context.
            purpose: what for; else from context.

        Raises:
            ConfigurationError: this core's signer may sign no key records.
            KeyUnavailable: the store does not answer.
        """
        return await Resign(self.parts, trail, Subject.of(actor, purpose)).run(key_id, apply=apply)
