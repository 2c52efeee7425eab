"""How a KEK is acted on: the request to its vault between two events, run to its end whatever becomes of the caller."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from cryptocore.audit import Refusal, Subject
from cryptocore.events import Operation
from cryptocore.keks.looking import Kek, KekLooking, key_of
from cryptocore.keks.vault import (
    KekVault,
    VaultAnswer,
)
from cryptocore.lines.texts import PERSON


@dataclass(frozen=True, slots=True)
class Told:
    """Who acts on a KEK, what for, and a word for the trail."""

    subject: Subject
    note: str | None

    @classmethod
    def of(cls, actor: str | None, purpose: str | None, note: str | None) -> "Told":
        """Take who acts from the call or from context."""
        subject = Subject.of(actor, purpose)
        return cls(subject, note if subject.actor.startswith(PERSON) else None)


class KekActing(KekLooking):
    """Acts on KEKs, one request each."""

    async def _act(
        self, operation: Operation, alias: str, told: Told, work: Callable[[KekVault], Awaitable[VaultAnswer]]
    ) -> Kek:
        """Run an act to its end. What we refuse leaves one event; what the vault refuses has left its outcome."""
        vault = self._vault(alias)
        about = told.subject.about(key_of(vault))

        async def act() -> Refusal | None:
            try:
                await work(vault)
            except _Answered as answered:
                return answered.refusal
            return None

        refusal = await self._parts.acts.live(operation, about, act())
        if refusal is not None:
            raise refusal.public()
        return await self._look(alias, strict=False)

    async def _call(
        self,
        operation: Operation,
        vault: KekVault,
        told: Told,
        request: tuple[str, str, dict[str, Any] | None],
        *,
        version: str | None = None,
    ) -> VaultAnswer:
        async def perform(call_ids: tuple[str, ...]) -> VaultAnswer:
            return await vault.administer(*request, call_ids=call_ids)

        subject = told.subject.about(key_of(vault))
        try:
            return await self._parts.calls.administer(
                operation, vault, perform, kek_version=version, subject=subject, note=told.note
            )
        except Refusal as refusal:
            raise _Answered(refusal) from None

    async def _update(
        self, operation: Operation, vault: KekVault, version: str, told: Told, *, enabled: bool
    ) -> VaultAnswer:
        body = {"attributes": {"enabled": enabled}}
        return await self._call(
            operation, vault, told, ("PATCH", f"keys/{vault.name}/{version}", body), version=version
        )


class _Answered(Exception):
    """The vault refused or failed, and its outcome is in the trail already."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
