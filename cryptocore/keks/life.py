"""The life of KEKs: looked at, made, renewed, disabled, deleted, purged; each act in our trail and in the vault's log.

A KEK has no key record: its life is in the vault. So an act is an intent before the call and an outcome after it, as a
wrap is, and the monitor joins both with the vault's own record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection

from cryptocore.audit import Refusal, no_arrow
from cryptocore.envelope import KEY_ID_SIZE
from cryptocore.events import KeyRef, Operation
from cryptocore.keks.acting import KekActing, Told
from cryptocore.keks.dependence import dependence, loss_statement, purge_statement
from cryptocore.keks.looking import IS, Kek, key_of
from cryptocore.keks.vault import (
    KEY_OPERATIONS,
    KEY_SIZE,
    KekPresence,
    KekVault,
    VaultAnswer,
)
from cryptocore.life import approval_desk
from cryptocore.life.approvals import Action, Approval, ApprovalInvalid, SignedApproval
from cryptocore.life.copies import UNDECLARED, Copies
from cryptocore.store.key_store import database_ms


@dataclass(frozen=True, slots=True)
class Giving:
    """What allows an act on a KEK that something may depend on.

    Attributes:
        copies: of the key store, as declared; without them nobody can say that nothing depends on it.
        accept_loss: the very bytes of the statement that two people approved (`loss_statement`).
        approvals: of two people each: of the loss (accept_loss), and of a purge (purge).
    """

    copies: Copies = UNDECLARED
    accept_loss: bytes | None = None
    approvals: Sequence[SignedApproval] = ()


class Keks(KekActing):
    """Acts on the configured KEKs, by alias."""

    async def create(
        self,
        alias: str,
        *,
        hsm: bool = False,
        actor: str | None = None,
        purpose: str | None = None,
        note: str | None = None,
    ) -> Kek:
        """Make the key of an alias in its vault; it may wrap and unwrap and nothing else.

        Raises:
            InvalidTransition: it is there, or deleted and not purged.
            KeyUnavailable, AccessDenied: the vault failed or refused.
        """
        told, kind = Told.of(actor, purpose, note), "RSA-HSM" if hsm else "RSA"
        body = {"kty": kind, "key_size": KEY_SIZE, "key_ops": list(KEY_OPERATIONS)}

        async def work(vault: KekVault) -> VaultAnswer:
            state = await self._state(vault)
            if state.presence is not KekPresence.ABSENT:
                raise no_arrow(f"the KEK {alias} {IS[state.presence]}", key_of(vault))
            return await self._call(Operation.CREATE, vault, told, ("POST", f"keys/{vault.name}/create", body))

        return await self._act(Operation.CREATE, alias, told, work)

    async def rotate(
        self, alias: str, *, actor: str | None = None, purpose: str | None = None, note: str | None = None
    ) -> Kek:
        """Make a new version of a KEK. DEKs stay under the old one until `rewrap`.

        Raises:
            InvalidTransition: it is not there.
            KeyUnavailable, AccessDenied: the vault failed or refused.
        """
        told = Told.of(actor, purpose, note)

        async def work(vault: KekVault) -> VaultAnswer:
            await self._present(vault, alias)
            return await self._call(Operation.ROTATE, vault, told, ("POST", f"keys/{vault.name}/rotate", {}))

        return await self._act(Operation.ROTATE, alias, told, work)

    async def enable(
        self, alias: str, version: str, *, actor: str | None = None, purpose: str | None = None, note: str | None = None
    ) -> Kek:
        """Let a KEK version be used again.

        Raises:
            InvalidTransition: it is not there, or enabled.
            KeyUnavailable, AccessDenied: the vault failed or refused.
        """
        told = Told.of(actor, purpose, note)

        async def work(vault: KekVault) -> VaultAnswer:
            found = (await self._present(vault, alias)).version(version)
            if found is None or found.enabled:
                raise no_arrow(f"version {version} of the KEK {alias} is {'enabled' if found else 'not there'}")
            return await self._update(Operation.RESUME, vault, version, told, enabled=True)

        return await self._act(Operation.RESUME, alias, told, work)

    async def disable(
        self,
        alias: str,
        version: str,
        *,
        giving: Giving | None = None,
        actor: str | None = None,
        purpose: str | None = None,
        note: str | None = None,
    ) -> Kek:
        """Stop all use of a KEK version on which nothing depends.

        1. It is there, enabled, and not the one that new keys are wrapped under.
        2. Nothing depends on it, or two people accept the loss.

        Raises:
            InvalidTransition: something of this does not hold.
            AccessDenied: approvals do not hold, or the vault refused.
            KeyUnavailable: store or vault do not answer.
        """
        told, given = Told.of(actor, purpose, note), giving or Giving()

        async def work(vault: KekVault) -> VaultAnswer:
            # 1
            state = await self._present(vault, alias)
            found = state.version(version)
            if found is None or not found.enabled:
                raise no_arrow(f"version {version} of the KEK {alias} is {'disabled' if found else 'not there'}")
            if alias == self._parts.kek_alias and version == state.current:
                raise no_arrow(f"new keys are wrapped under version {version} of the KEK {alias}: rotate it first")
            # 2
            await self._let_go(vault, alias, version, "disable", giving=given)
            return await self._update(Operation.SUSPEND, vault, version, told, enabled=False)

        return await self._act(Operation.SUSPEND, alias, told, work)

    async def delete(
        self,
        alias: str,
        *,
        giving: Giving | None = None,
        actor: str | None = None,
        purpose: str | None = None,
        note: str | None = None,
    ) -> Kek:
        """Delete a KEK, all of its versions; it can be recovered until it is purged. Errors as `disable`."""
        told, given = Told.of(actor, purpose, note), giving or Giving()

        async def work(vault: KekVault) -> VaultAnswer:
            self._parts.lifecycle.revisions.check_signer()
            state = await self._present(vault, alias)
            self._not_for_new_keys(alias)
            await self._let_go(vault, alias, None, "delete", giving=given)
            await self._list_before(vault, state, told)
            return await self._call(Operation.DESTROY, vault, told, ("DELETE", f"keys/{vault.name}", None))

        return await self._act(Operation.DESTROY, alias, told, work)

    async def purge(
        self,
        alias: str,
        *,
        giving: Giving,
        actor: str | None = None,
        purpose: str | None = None,
        note: str | None = None,
    ) -> Kek:
        """Purge a deleted KEK, for good: two people approve it (`purge_statement`). Errors as `disable`.

        That it is gone is stated for certificates of destruction (`ends`). Call again when that could not be done.
        """
        told = Told.of(actor, purpose, note)

        async def work(vault: KekVault) -> None:
            self._parts.lifecycle.revisions.check_signer()
            if await self._is_taken(vault):
                await self._see_gone(vault, told)
                return
            state = await self._deleted(vault, alias)
            self._not_for_new_keys(alias)
            await self._let_go(vault, alias, None, "purge", giving=giving, deleted_ms=state.deleted_ms)
            await self._purge(vault, state, told)

        return await self._act(Operation.DESTROY, alias, told, work)

    async def recover(
        self, alias: str, *, actor: str | None = None, purpose: str | None = None, note: str | None = None
    ) -> Kek:
        """Bring a deleted KEK back.

        Raises:
            InvalidTransition: it is not deleted.
            KeyUnavailable, AccessDenied: the vault failed or refused.
        """
        told = Told.of(actor, purpose, note)

        async def work(vault: KekVault) -> VaultAnswer:
            await self._deleted(vault, alias)
            return await self._call(Operation.RESUME, vault, told, ("POST", f"deletedkeys/{vault.name}/recover", {}))

        return await self._act(Operation.RESUME, alias, told, work)

    async def loss_statement(self, alias: str, act: str, version: str | None, copies: Copies) -> bytes | None:
        """Write what is lost by `disable`, `delete` or `purge`, for two people to approve; None: nothing is."""
        vault = self._vault(alias)
        lost = await self.dependence(alias, version, copies=copies)
        return None if lost.none else loss_statement(self._parts, _named(vault, version), act, lost)

    async def purge_statement(self, alias: str) -> bytes:
        """Write what a purge ends, for two people to approve.

        Raises:
            InvalidTransition: the KEK is not deleted.
        """
        vault = self._vault(alias)
        try:
            state = await self._deleted(vault, alias)
        except Refusal as refusal:
            raise refusal.public() from None
        return purge_statement(self._parts, _named(vault, None), state.deleted_ms)

    async def _let_go(
        self,
        vault: KekVault,
        alias: str,
        version: str | None,
        act: str,
        *,
        giving: Giving,
        deleted_ms: int | None = None,
    ) -> None:
        """See that nothing depends on a KEK or that two people accept it, and that two approve a purge.

        The nonces of approvals count from here on, also when the vault then refuses.

        Raises:
            Refusal: it is not so.
        """
        parts, named = self._parts, _named(vault, version)
        now_ms = await parts.keyring.run(parts.store.transaction, database_ms)
        lost = await dependence(parts, alias, version, giving.copies, now_ms=now_ms)
        statements: dict[Action, bytes] = {}
        if act == "purge":
            statements[Action.PURGE] = purge_statement(parts, named, deleted_ms)
        if not lost.none:
            statement = loss_statement(parts, named, act, lost)
            if giving.accept_loss is None:
                raise no_arrow(f"the KEK {alias} cannot be {_DONE[act]}: {lost}", key_of(vault))
            if giving.accept_loss != statement:
                raise no_arrow("what would be lost now is not what was approved", key_of(vault))
            statements[Action.ACCEPT_LOSS] = statement
        if not statements:
            return
        pairs = {action: _of(giving.approvals, action, key_of(vault)) for action in statements}

        def use(connection: Connection) -> None:
            for action, statement in statements.items():
                names = (action, bytes(KEY_ID_SIZE), 0, 0, sha256(statement).digest())
                approval_desk.use(connection, pairs[action], parts.registry, names, key=key_of(vault))

        await parts.keyring.run(parts.store.transaction, use)

    def _not_for_new_keys(self, alias: str) -> None:
        if alias == self._parts.kek_alias:
            raise no_arrow(f"new keys are wrapped under the KEK {alias}: configure another one for them first")


_DONE: Final = {"disable": "disabled", "delete": "deleted", "purge": "purged"}


def _named(vault: KekVault, version: str | None) -> dict[str, str]:
    named = {"alias": vault.kek_alias, "vault": vault.vault, "name": vault.name}
    return named if version is None else {**named, "version": version}


def _of(approvals: Sequence[SignedApproval], action: Action, key: KeyRef) -> list[SignedApproval]:
    try:
        return [signed for signed in approvals if Approval.decode(signed.approval).action is action]
    except ApprovalInvalid as err:
        raise approval_desk.not_approved(err, key) from None
