"""How a KEK is acted on: the request to its vault between two events, run to its end whatever becomes of the caller."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptocore.audit import Refusal, Subject
from cryptocore.errors import KeyUnavailable
from cryptocore.events import Operation, Outcome, Reason
from cryptocore.keks.ends import Ends, Sight
from cryptocore.keks.looking import Kek, KekLooking, key_of
from cryptocore.keks.vault import KekPresence, KekState, KekVault, VaultAnswer
from cryptocore.lines.texts import PERSON
from cryptocore.store.key_store import StoreConflict, database_ms

LOOKS_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Waits before each look for a KEK whose purge its vault has taken: it may show it for a moment more."""


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
        self, operation: Operation, alias: str, told: Told, work: Callable[[KekVault], Awaitable[object]]
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

    async def _list_before(self, vault: KekVault, state: KekState, told: Told) -> None:
        """State which versions the vault lists, before they are deleted and it lists them no more."""
        versions = [one.version for one in state.versions]
        await Ends(self._parts).say(Sight.LISTED, vault, told.subject.actor, versions=versions)

    async def _is_taken(self, vault: KekVault) -> bool:
        """Say whether the vault took a purge of this deleted KEK before, and nobody has seen its end yet."""
        taken = await Ends(self._parts).taken(vault)
        if taken is None:
            return False
        state = await self._state(vault)
        if state.presence is KekPresence.DELETED:
            return state.deleted_ms == taken.deleted_ms
        return state.presence is KekPresence.ABSENT

    async def _purge(self, vault: KekVault, state: KekState, told: Told) -> None:
        """Purge a deleted KEK, and state it: that the vault took it, and that the KEK is gone, once a look shows so."""
        had_ms = await self._parts.keyring.run(self._parts.store.transaction, database_ms)
        await self._call(Operation.DESTROY, vault, told, ("DELETE", f"deletedkeys/{vault.name}", None))
        newest = () if state.current is None else (state.current,)
        try:
            await Ends(self._parts).say(
                Sight.TAKEN, vault, told.subject.actor, versions=newest, had_ms=had_ms, deleted_ms=state.deleted_ms
            )
        except (Refusal, StoreConflict) as problem:
            raise _purged_but(vault, f"its certificates need --purged, since that was not stated: {problem}") from None
        await self._see_gone(vault, told)

    async def _see_gone(self, vault: KekVault, told: Told) -> None:
        """Look until the vault has neither the key nor a deleted one, and state that."""
        try:
            for wait_s in LOOKS_S:
                await asyncio.sleep(wait_s)
                if (await self._state(vault)).presence is KekPresence.ABSENT:
                    await Ends(self._parts).say(Sight.GONE, vault, told.subject.actor)
                    return
            problem = "its vault still shows it"
        except (Refusal, StoreConflict) as err:
            problem = str(err)
        raise _purged_but(vault, f"that it is gone was not stated: {problem}; call again") from None


def _purged_but(vault: KekVault, problem: str) -> "_Answered":
    """Tell of a purge that was done, and its outcome with it, and of what then failed."""
    says = f"the vault took the purge of the KEK {vault.kek_alias}; {problem}"
    return _Answered(Refusal(Outcome.FAILED, Reason.VAULT_ERROR, KeyUnavailable, says, retryable=True))


class _Answered(Exception):
    """The vault refused or failed, and its outcome is in the trail already."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
