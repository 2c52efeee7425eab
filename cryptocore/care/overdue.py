"""What is late: keys past their cryptoperiod, KEKs, rotations, expired tokens that are still there, incidents.

Ages are read from signed records: a key version is as old as its first record. A KEK version is as old as the vault
says where the caller knows, else as the first record that names it, so at least that old.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, RowMapping, func, select, tuple_

from cryptocore.care.classes import KeyLabel, Labels
from cryptocore.care.incidents import Incidents
from cryptocore.care.terms import HOUR_MS, Terms, ThreatLevel
from cryptocore.care.threat import Threats
from cryptocore.envelope import Owner
from cryptocore.errors import CoreError, RecordInvalid
from cryptocore.keys import KeyState
from cryptocore.records import KeyRecord, SignedRecord, verify_record
from cryptocore.store.key_store import database_ms
from cryptocore.store.tables import KEY_HISTORY, KEY_VERSION
from cryptocore.store.token_tables import TOKEN

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore
    from cryptocore.parts import Parts
    from cryptocore.registry import Registry

PAGE: Final = 500


class OverdueKind(StrEnum):
    """What is late."""

    KEY = "key"
    KEK = "kek"
    ROTATION = "rotation"
    TOKENS = "tokens"
    INCIDENT = "incident"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class Overdue:
    """One thing that is late.

    Attributes:
        subject: a key's id and version, a KEK's alias and version, a rotation's or an incident's id.
        due_ms: since when.
        what: for people.
        owner: whose key it is.
        team: who answers for it, by the key's label.
    """

    kind: OverdueKind
    subject: str
    due_ms: int
    what: str
    owner: Owner | None = None
    team: str | None = None


@dataclass(frozen=True, slots=True)
class _Aged:
    """A key version, and when its first and its last record were signed."""

    record: KeyRecord
    first: KeyRecord
    owner: Owner


async def overdue(
    core: "CryptoCore",
    *,
    terms: Terms | None = None,
    now_ms: int | None = None,
    kek_created_ms: Mapping[tuple[str, str], int] | None = None,
    kek_purge_due_ms: Mapping[str, int] | None = None,
) -> list[Overdue]:
    """List what is late, what has been late the longest first.

    Args:
        terms: cryptoperiods and due dates; the packaged ones unless given.
        now_ms: the time to judge by; the database's unless given.
        kek_created_ms: when KEK versions were created, by alias and version, where somebody asked the vault.
        kek_purge_due_ms: when deleted KEKs should be gone, by alias, where somebody asked the vault.

    Raises:
        KeyUnavailable: the store does not answer.
    """
    parts, terms = core.parts, terms or Terms.load()
    now = await parts.ask(database_ms) if now_ms is None else now_ms
    level = (await Threats(parts).now()).level
    labels = await Labels(parts).all()
    found: list[Overdue] = []
    seen: dict[tuple[str, str], int] = {}
    after: tuple[bytes, int] | None = None
    while rows := await parts.ask(lambda connection, after=after: _page(connection, after)):  # type: ignore[misc]
        found += _keys(rows, parts.registry, seen, _Judge(terms, level, labels, now))
        after = (rows[-1]["key_id"], rows[-1]["version"])
    found += _keks(seen | dict(kek_created_ms or {}), terms.kek_ms(level), now)
    found += [
        Overdue(OverdueKind.KEK, alias, due_ms, "deleted and not purged: keytrail keks purge")
        for alias, due_ms in (kek_purge_due_ms or {}).items()
        if now >= due_ms
    ]
    found += [
        Overdue(OverdueKind.ROTATION, late.id, late.due_ms, f"rotation waits for: {late.step}", late.owner)
        for late in await core.rotations(due_before_ms=now)
    ]
    found += await _tokens(parts, now - terms.purged_within_hours * HOUR_MS)
    incidents = Incidents(parts, terms)
    for incident in await incidents.all():
        if late_of := incident.late(now):
            due_ms = incident.facts.report_due_ms or incident.facts.notification.due_ms
            found.append(Overdue(OverdueKind.INCIDENT, incident.id, due_ms, f"owes: {', '.join(late_of)}"))
    for name, unbelieved in (("label", await Labels(parts).unbelieved()), ("incident", await incidents.unbelieved())):
        found += [Overdue(OverdueKind.RECORD, f"{name} {one}", now, "it is not to be believed") for one in unbelieved]
    return sorted(found, key=lambda one: (one.due_ms, one.subject))


@dataclass(frozen=True, slots=True)
class _Judge:
    terms: Terms
    level: ThreatLevel
    labels: dict[str, KeyLabel]
    now_ms: int

    def key(self, aged: _Aged) -> Overdue | None:
        """Judge the version that encrypts; the others are their rotation's matter."""
        record = aged.record
        if record.state not in (KeyState.ACTIVE, KeyState.SUSPENDED) or record.superseded_by:
            return None
        label = self.labels.get(record.key_id.hex())
        classification = None if label is None else label.classification
        due_ms = aged.first.changed_at_ms + self.terms.dek_ms(classification, self.level)
        if self.now_ms < due_ms:
            return None
        named = f"{classification}" if classification else f"unlabelled, so {self.terms.unlabelled}"
        what = f"past its cryptoperiod ({named}, threat {self.level})"
        subject = f"{record.key_id.hex()}/{record.key_version}"
        return Overdue(OverdueKind.KEY, subject, due_ms, what, aged.owner, None if label is None else label.team)


_FIRST: Final = KEY_HISTORY.alias("first")
_SELECT: Final[Any] = (
    select(
        KEY_VERSION.c.key_id,
        KEY_VERSION.c.version,
        KEY_VERSION.c.owner,
        KEY_VERSION.c.record,
        KEY_VERSION.c.signature,
        _FIRST.c.record.label("first_record"),
        _FIRST.c.signature.label("first_signature"),
    )
    .outerjoin(
        _FIRST,
        (_FIRST.c.key_id == KEY_VERSION.c.key_id)
        & (_FIRST.c.version == KEY_VERSION.c.version)
        & (_FIRST.c.revision == 1),
    )
    .order_by(KEY_VERSION.c.key_id, KEY_VERSION.c.version)
    .limit(PAGE)
)


def _page(connection: Connection, after: tuple[bytes, int] | None) -> list[RowMapping]:
    query = _SELECT
    if after is not None:
        query = query.where(tuple_(KEY_VERSION.c.key_id, KEY_VERSION.c.version) > tuple_(*after))
    return list(connection.execute(query).mappings())


def _keys(
    rows: list[RowMapping], registry: "Registry", seen: dict[tuple[str, str], int], judge: _Judge
) -> Iterator[Overdue]:
    """Judge a page of key versions, and note since when KEK versions are known."""
    for row in rows:
        try:
            aged = _aged(row, registry)
        except (CoreError, TypeError):
            subject = f"{bytes(row['key_id']).hex()}/{row['version']}"
            yield Overdue(OverdueKind.RECORD, subject, judge.now_ms, "its record is not to be believed")
            continue
        for record in (aged.first, aged.record):
            kek = (record.kek_alias, record.kek_version)
            seen[kek] = min(seen.get(kek, record.changed_at_ms), record.changed_at_ms)
        late = judge.key(aged)
        if late is not None:
            yield late


def _aged(row: RowMapping, registry: "Registry") -> _Aged:
    record = _verified(row["record"], row["signature"], registry)
    first = _verified(row["first_record"], row["first_signature"], registry)
    owner = Owner.decode(row["owner"])
    is_first = (first.key_id, first.key_version, first.revision) == (record.key_id, record.key_version, 1)
    if not is_first or record.owner_sha256 != owner.digest():
        raise RecordInvalid("record", "the row does not agree with it")
    return _Aged(record, first, owner)


def _verified(record: bytes, signature: bytes, registry: "Registry") -> KeyRecord:
    at_ms = KeyRecord.decode(record).changed_at_ms
    return verify_record(SignedRecord(record=record, signature=signature), registry, at_ms=at_ms)


def _keks(created_ms: Mapping[tuple[str, str], int], period_ms: int, now_ms: int) -> Iterator[Overdue]:
    """Judge the newest version of each KEK."""
    newest: dict[str, tuple[int, str]] = {}
    for (alias, version), since_ms in created_ms.items():
        newest[alias] = max(newest.get(alias, (since_ms, version)), (since_ms, version))
    for alias, (since_ms, version) in newest.items():
        if now_ms >= since_ms + period_ms:
            yield Overdue(OverdueKind.KEK, f"{alias}/{version}", since_ms + period_ms, "no newer version is in use")


async def _tokens(parts: "Parts", before_ms: int) -> list[Overdue]:
    query = select(func.count(), func.min(TOKEN.c.expires_ms)).where(
        TOKEN.c.ended_ms.is_(None), TOKEN.c.expires_ms <= before_ms
    )
    row = await parts.ask(lambda connection: connection.execute(query).one())
    count, oldest_ms = row[0], row[1]
    what = f"{count} expired and not erased: keytrail tokens purge-expired"
    return [Overdue(OverdueKind.TOKENS, "tokens", oldest_ms, what)] if count else []
