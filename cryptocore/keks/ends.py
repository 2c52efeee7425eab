"""The end of KEKs as keytrail saw it: signed statements, on which certificates of destruction stand.

A vault lists the versions of a key that is there, and none of one that is deleted. So what it listed is stated before
keytrail deletes the key; that it took a purge, once it did; and that it has neither the key nor a deleted one, once a
later look shows that. Only the last says that a version is gone. A version that a vault shows again, brought back from
a backup say, is not gone from then on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from sqlalchemy import Connection

from cryptocore.audit import no_arrow
from cryptocore.care.statements import Statement, Statements
from cryptocore.clock import rfc3339_ms
from cryptocore.errors import RecordInvalid
from cryptocore.events import kek_key_id
from cryptocore.keks.vault import KekVault
from cryptocore.store.key_store import database_ms

if TYPE_CHECKING:
    from cryptocore.parts import Parts

KIND: Final = "kek"
LEEWAY_MS: Final = 60_000
"""Clocks of vaults, databases and people agree no better than this."""


class Sight(StrEnum):
    """What was seen of a KEK."""

    LISTED = "listed"
    TAKEN = "purge_taken"
    GONE = "gone"


class KekSight(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One revision of what was seen of a KEK.

    Attributes:
        versions: that the vault showed at that moment: all of a key that is there, the newest of a deleted one.
        had_ms: when the vault last showed the deleted key, before it took the purge.
        deleted_ms: when that one was deleted, as the vault says.
        by: who acted.
    """

    saw: Sight
    alias: str
    vault: str
    name: str
    by: str
    versions: tuple[str, ...] = ()
    had_ms: int | None = None
    deleted_ms: int | None = None


@dataclass(frozen=True, slots=True)
class KekEnd:
    """A KEK version: when its vault last had it, and by when it was gone (None: nobody saw that)."""

    alias: str
    version: str
    had_ms: int
    gone_ms: int | None


@dataclass(frozen=True, slots=True)
class KekEnds:
    """What is known of the ends of KEK versions, and the KEKs (`key.id`) whose statements are not to be believed."""

    known: tuple[KekEnd, ...]
    unbelieved: tuple[str, ...]


class Ends:
    """States and reads what was seen of KEKs' ends."""

    def __init__(self, parts: "Parts") -> None:
        self._parts = parts
        self._statements = Statements(KIND, parts.registry, parts.signer)

    async def say(
        self,
        saw: Sight,
        vault: KekVault,
        by: str,
        *,
        versions: Iterable[str] = (),
        had_ms: int | None = None,
        deleted_ms: int | None = None,
    ) -> None:
        """State what was seen, now by the database's time.

        Raises:
            Refusal: the store does not answer, or is not to be believed.
            StoreConflict: somebody else stated something meanwhile.
        """
        body = KekSight(
            saw=saw,
            alias=vault.kek_alias,
            vault=vault.vault,
            name=vault.name,
            by=by,
            versions=tuple(versions),
            had_ms=had_ms,
            deleted_ms=deleted_ms,
        )
        subject = _subject(vault)

        def write(connection: Connection) -> None:
            before = self._statements.latest(connection, subject)
            self._statements.append(connection, subject, body, before=before, now_ms=database_ms(connection))

        await self._parts.keyring.run(self._parts.store.transaction, write)

    async def taken(self, vault: KekVault) -> KekSight | None:
        """Give the purge that the vault took last, if nobody has seen its end yet; raises `Refusal`."""

        def read(connection: Connection) -> KekSight | None:
            last = self._statements.latest(connection, _subject(vault))
            return None if last is None else last.read(KekSight)

        last = await self._parts.keyring.run(self._parts.store.transaction, read)
        return last if last is not None and last.saw is Sight.TAKEN else None

    async def all(self) -> KekEnds:
        """Read all that is known; raises `Refusal` when the store does not answer."""
        found = await self._parts.keyring.run(self._parts.store.transaction, self._statements.histories)
        known: list[KekEnd] = []
        unbelieved = list(found.unbelieved)
        for history in found.found:
            try:
                known += _ends(history)
            except RecordInvalid:
                unbelieved.append(history[0].subject)
        return KekEnds(tuple(known), tuple(unbelieved))


def _subject(vault: KekVault) -> str:
    return kek_key_id(vault.vault, vault.name)


def _ends(history: list[Statement]) -> list[KekEnd]:
    """Follow the versions of one KEK; each counts under every alias that the KEK had."""
    had: dict[str, int] = {}
    gone: dict[str, int] = {}
    aliases: dict[str, None] = {}
    for statement in history:
        seen = statement.read(KekSight)
        aliases[seen.alias] = None
        for version in seen.versions:
            had[version] = statement.stated_ms if seen.had_ms is None else seen.had_ms
            gone.pop(version, None)
        if seen.saw is Sight.GONE:
            gone |= {version: statement.stated_ms for version in had if version not in gone}
    return [KekEnd(alias, version, ms, gone.get(version)) for alias in aliases for version, ms in had.items()]


def agreed(given: Mapping[tuple[str, str], int], known: Iterable[KekEnd]) -> dict[tuple[str, str], int]:
    """Put the purges that somebody names together with those that were seen, which count.

    Raises:
        Refusal: what is named cannot be, by what was seen.
    """
    moments = dict(given)
    for end in known:
        named, kek = given.get((end.alias, end.version)), f"{end.alias}/{end.version}"
        if named is not None and named + LEEWAY_MS < end.had_ms:
            raise no_arrow(f"{kek} was not purged at {rfc3339_ms(named)}: its vault had it at {rfc3339_ms(end.had_ms)}")
        if end.gone_ms is None:
            continue
        if named is not None and named - LEEWAY_MS > end.gone_ms:
            raise no_arrow(f"{kek} was not purged at {rfc3339_ms(named)}: it was gone by {rfc3339_ms(end.gone_ms)}")
        moments[end.alias, end.version] = end.gone_ms
    return moments
