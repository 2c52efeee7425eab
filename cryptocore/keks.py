"""The life of KEKs: looked at, made, renewed, disabled, deleted, purged; each act in our trail and in the vault's log.

A KEK has no key record: its life is in the vault. So an act is an intent before the call and an outcome after it, as a
wrap is, and the monitor joins both with the vault's own record.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Connection, func, select

from cryptocore import approval_desk
from cryptocore.approvals import Action, Approval, ApprovalInvalid, SignedApproval
from cryptocore.audit import Refusal, Subject, no_arrow
from cryptocore.copies import UNDECLARED, Copies
from cryptocore.envelope import KEY_ID_SIZE
from cryptocore.errors import ConfigurationError
from cryptocore.event_texts import PERSON
from cryptocore.events import KeyRef, Operation, Reason, kek_key_id
from cryptocore.kek_dependence import Dependence, dependence, loss_statement, purge_statement
from cryptocore.kek_vault import (
    KEY_OPERATIONS,
    KEY_SIZE,
    KekPresence,
    KekState,
    KekVault,
    VaultAnswer,
    deleted,
    present,
    versions_of,
)
from cryptocore.keys import KeyState
from cryptocore.store import database_ms
from cryptocore.store_tables import KEY_VERSION
from cryptocore.vaultcalls import vault_refusal
from cryptocore.wrapping import KeyWrapper, VaultCallFailed

if TYPE_CHECKING:
    from cryptocore.parts import Parts

T = TypeVar("T")

LOCAL: Final = "the KEK {} is in this process and in no vault"


@dataclass(frozen=True, slots=True)
class Kek:
    """A KEK as configured, as its vault shows it, and how many key versions are under each of its versions.

    Attributes:
        state: None when the vault does not say; `problem` says why.
        deks: by KEK version; destroyed key versions do not count. Read from columns: see `Keks.dependence`.
        for_new_keys: new keys are wrapped under it.
    """

    alias: str
    vault: str
    name: str
    state: KekState | None
    deks: dict[str, int]
    for_new_keys: bool
    problem: str | None = None


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


class Keks:
    """Acts on the configured KEKs, by alias."""

    def __init__(self, parts: "Parts") -> None:
        self._parts = parts

    async def all(self) -> list[Kek]:
        """Look at every configured KEK; one whose vault does not answer says so.

        Raises:
            KeyUnavailable: the store does not answer.
        """
        return [await self._look(alias, strict=False) for alias in self._parts.wrappers]

    async def get(self, alias: str) -> Kek:
        """Look at a KEK.

        Raises:
            KeyUnavailable, AccessDenied: store or vault do not answer, or refuse.
        """
        return await self._look(alias, strict=True)

    async def dependence(self, alias: str, version: str | None = None, *, copies: Copies = UNDECLARED) -> Dependence:
        """Say what depends on a KEK, or on one of its versions, by every signed record.

        Raises:
            KeyUnavailable: the store does not answer.
        """
        self.wrapper(alias)
        now_ms = await self._parts.ask(database_ms)
        return await dependence(self._parts, alias, version, copies, now_ms=now_ms)

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
                raise no_arrow(f"the KEK {alias} {_IS[state.presence]}", _key(vault))
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
            await self._present(vault, alias)
            self._not_for_new_keys(alias)
            await self._let_go(vault, alias, None, "delete", giving=given)
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
        """Purge a deleted KEK, for good: two people approve it (`purge_statement`). Errors as `disable`."""
        told = Told.of(actor, purpose, note)

        async def work(vault: KekVault) -> VaultAnswer:
            state = await self._deleted(vault, alias)
            self._not_for_new_keys(alias)
            await self._let_go(vault, alias, None, "purge", giving=giving, deleted_ms=state.deleted_ms)
            return await self._call(Operation.DESTROY, vault, told, ("DELETE", f"deletedkeys/{vault.name}", None))

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

    # How each is done

    async def _act(
        self, operation: Operation, alias: str, told: Told, work: Callable[[KekVault], Awaitable[VaultAnswer]]
    ) -> Kek:
        """Run an act to its end. What we refuse leaves one event; what the vault refuses has left its outcome."""
        vault = self._vault(alias)
        about = told.subject.about(_key(vault))

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

        subject = told.subject.about(_key(vault))
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
                raise no_arrow(f"the KEK {alias} cannot be {_DONE[act]}: {lost}", _key(vault))
            if giving.accept_loss != statement:
                raise no_arrow("what would be lost now is not what was approved", _key(vault))
            statements[Action.ACCEPT_LOSS] = statement
        if not statements:
            return
        pairs = {action: _of(giving.approvals, action, _key(vault)) for action in statements}

        def use(connection: Connection) -> None:
            for action, statement in statements.items():
                names = (action, bytes(KEY_ID_SIZE), 0, 0, sha256(statement).digest())
                approval_desk.use(connection, pairs[action], parts.registry, names, key=_key(vault))

        await parts.keyring.run(parts.store.transaction, use)

    def _not_for_new_keys(self, alias: str) -> None:
        if alias == self._parts.kek_alias:
            raise no_arrow(f"new keys are wrapped under the KEK {alias}: configure another one for them first")

    async def _look(self, alias: str, *, strict: bool) -> Kek:
        parts, wrapper = self._parts, self.wrapper(alias)
        query = (
            select(KEY_VERSION.c.kek_version, func.count())
            .where((KEY_VERSION.c.kek_alias == alias) & (KEY_VERSION.c.state != KeyState.DESTROYED.value))
            .group_by(KEY_VERSION.c.kek_version)
        )
        deks = {row[0]: row[1] for row in await parts.ask(lambda connection: list(connection.execute(query)))}
        state, problem = None, None
        if isinstance(wrapper, KekVault):
            try:
                state = await self._state(wrapper)
            except Refusal as refusal:
                if strict:
                    raise refusal.public() from None
                problem = str(refusal)
        else:
            problem = LOCAL.format(alias)
        return Kek(alias, wrapper.vault, wrapper.name, state, deks, alias == parts.kek_alias, problem)

    async def _state(self, vault: KekVault) -> KekState:
        """Ask the vault.

        Raises:
            Refusal: it does not say.
        """
        try:
            bundle = await vault.administer("GET", f"keys/{vault.name}", None, call_ids=vault.draw_call_ids())
            return present(bundle.document, await versions_of(vault))
        except VaultCallFailed as failed:
            if failed.reason is Reason.VAULT_DENIED:
                return await self._unshown(vault, failed)
            if failed.reason is not Reason.VAULT_NOT_FOUND:
                raise _not_seen(vault, failed) from None
        try:
            gone = await vault.administer("GET", f"deletedkeys/{vault.name}", None, call_ids=vault.draw_call_ids())
        except VaultCallFailed as failed:
            if failed.reason is not Reason.VAULT_NOT_FOUND:
                raise _not_seen(vault, failed) from None
            return KekState(KekPresence.ABSENT)
        return deleted(gone.document)

    async def _unshown(self, vault: KekVault, refused: VaultCallFailed) -> KekState:
        """Go by the list of versions where the vault does not show the newest one, which may be disabled."""
        try:
            versions = await versions_of(vault)
        except VaultCallFailed:
            versions = ()
        if not versions:
            raise _not_seen(vault, refused) from None
        return KekState(KekPresence.PRESENT, current=versions[-1].version, versions=versions)

    async def _present(self, vault: KekVault, alias: str) -> KekState:
        state = await self._state(vault)
        if state.presence is not KekPresence.PRESENT:
            raise no_arrow(f"the KEK {alias} {_IS[state.presence]}", _key(vault))
        return state

    async def _deleted(self, vault: KekVault, alias: str) -> KekState:
        state = await self._state(vault)
        if state.presence is not KekPresence.DELETED:
            raise no_arrow(f"the KEK {alias} {_IS[state.presence]}, and not deleted", _key(vault))
        return state

    def wrapper(self, alias: str) -> KeyWrapper:
        """Find the KEK of an alias.

        Raises:
            ConfigurationError: none is configured.
        """
        wrapper = self._parts.wrappers.get(alias)
        if wrapper is None:
            raise ConfigurationError(f"no KEK {alias} is configured: there are {', '.join(self._parts.wrappers)}")
        return wrapper

    def _vault(self, alias: str) -> KekVault:
        wrapper = self.wrapper(alias)
        if not isinstance(wrapper, KekVault):
            raise ConfigurationError(LOCAL.format(alias))
        return wrapper


_IS: Final = {
    KekPresence.PRESENT: "is in its vault",
    KekPresence.DELETED: "is deleted and not purged",
    KekPresence.ABSENT: "is not in its vault",
}
_DONE: Final = {"disable": "disabled", "delete": "deleted", "purge": "purged"}


class _Answered(Exception):
    """The vault refused or failed, and its outcome is in the trail already."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def _key(vault: KekVault) -> KeyRef:
    return KeyRef(id=kek_key_id(vault.vault, vault.name), kind="kek")


def _named(vault: KekVault, version: str | None) -> dict[str, str]:
    named = {"alias": vault.kek_alias, "vault": vault.vault, "name": vault.name}
    return named if version is None else {**named, "version": version}


def _not_seen(vault: KekVault, failed: VaultCallFailed) -> Refusal:
    says = f"the state of the KEK {vault.vault}/{vault.name} is not known"
    return vault_refusal(failed.reason, retryable=failed.retryable, says=says)


def _of(approvals: Sequence[SignedApproval], action: Action, key: KeyRef) -> list[SignedApproval]:
    try:
        return [signed for signed in approvals if Approval.decode(signed.approval).action is action]
    except ApprovalInvalid as err:
        raise approval_desk.not_approved(err, key) from None
