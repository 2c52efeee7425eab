"""Long work on many keys and rows, as who runs it sees it: rewrap, re-encrypt, and the import of what was before."""

from collections.abc import Callable

from cryptocore.audit import Refusal, Subject
from cryptocore.core_rotation import RotationCare
from cryptocore.cursors import Progress
from cryptocore.keys import KeyReason
from cryptocore.rewrap import CONCURRENCY, Rewrap


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
            raise refusal.public() from None
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
