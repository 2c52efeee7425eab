"""KEKs as configured and as their vaults show them; nothing here changes one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from cryptocore.audit import Refusal, no_arrow
from cryptocore.errors import ConfigurationError
from cryptocore.events import KeyRef, Reason, kek_key_id
from cryptocore.keks.dependence import Dependence, dependence
from cryptocore.keks.ends import Ends, KekEnds
from cryptocore.keks.vault import (
    KekPresence,
    KekState,
    KekVault,
    deleted,
    present,
    versions_of,
)
from cryptocore.keys import KeyState
from cryptocore.life.copies import UNDECLARED, Copies
from cryptocore.store.key_store import database_ms
from cryptocore.store.tables import KEY_VERSION
from cryptocore.vaultcalls import vault_refusal
from cryptocore.wrapping import KeyWrapper, VaultCallFailed

if TYPE_CHECKING:
    from cryptocore.parts import Parts

LOCAL: Final = "the KEK {} is in this process and in no vault"
IS: Final = {
    KekPresence.PRESENT: "is in its vault",
    KekPresence.DELETED: "is deleted and not purged",
    KekPresence.ABSENT: "is not in its vault",
}


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


class KekLooking:
    """Looks at the configured KEKs, by alias."""

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

    async def ends(self) -> KekEnds:
        """Say what keytrail saw of the ends of KEK versions, those of other configurations too.

        Raises:
            KeyUnavailable: the store does not answer.
        """
        try:
            return await Ends(self._parts).all()
        except Refusal as refusal:
            raise refusal.public() from None

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
            raise no_arrow(f"the KEK {alias} {IS[state.presence]}", key_of(vault))
        return state

    async def _deleted(self, vault: KekVault, alias: str) -> KekState:
        state = await self._state(vault)
        if state.presence is not KekPresence.DELETED:
            raise no_arrow(f"the KEK {alias} {IS[state.presence]}, and not deleted", key_of(vault))
        return state


def key_of(vault: KekVault) -> KeyRef:
    """Name a KEK as events do."""
    return KeyRef(id=kek_key_id(vault.vault, vault.name), kind="kek")


def _not_seen(vault: KekVault, failed: VaultCallFailed) -> Refusal:
    says = f"the state of the KEK {vault.vault}/{vault.name} is not known"
    return vault_refusal(failed.reason, retryable=failed.retryable, says=says)
