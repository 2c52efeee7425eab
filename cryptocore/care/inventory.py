"""All key versions of a store and what became of them, each read from its signed records."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, LargeBinary, func, literal, select, tuple_

from cryptocore.core_keys import raw_key_id
from cryptocore.errors import AccessDenied, RecordInvalid
from cryptocore.events import AuditEvent, decode_line
from cryptocore.records import KeyRecord, SignedRecord, verify_record
from cryptocore.store.key_store import KeyVersion
from cryptocore.store.tables import AUDIT_OUTBOX, KEY_HISTORY

if TYPE_CHECKING:
    from cryptocore.parts import Parts
    from cryptocore.registry import Registry

PAGE: Final = 500
Name = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Held:
    """A key version of the store.

    Attributes:
        version: None when its row is not to be believed.
        history: its records, the first one first; empty when they are not to be believed.
        problem: why something is not.
    """

    key_id: str
    number: int
    version: KeyVersion | None
    history: tuple[KeyRecord, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """One revision of a key version, and its event.

    Attributes:
        event: None when the outbox does not have it any more; the record names it by its digest.
    """

    record: KeyRecord
    event: AuditEvent | None


class Inventory:
    """Reads a store from its beginning to its end; no event, since no key is used."""

    def __init__(self, parts: "Parts") -> None:
        self._parts = parts

    async def each(self, *, histories: bool = False) -> AsyncIterator[Held]:
        """Go through all key versions in the order of their ids.

        Args:
            histories: read and verify their earlier records, too.

        Raises:
            KeyUnavailable: the store does not answer.
        """
        parts, after = self._parts, None
        while page := await parts.read(parts.store.listed, after, PAGE):
            after = page[-1][0]
            past = await self._histories(page[0][0], after) if histories else {}
            for name, found in page:
                key_id, number = name[0].hex(), name[1]
                if not isinstance(found, KeyVersion):
                    yield Held(key_id, number, None, problem=str(found))
                    continue
                try:
                    history = _in_order(past.get(name, ()), found) if histories else ()
                except RecordInvalid as problem:
                    yield Held(key_id, number, found, problem=str(problem))
                    continue
                yield Held(key_id, number, found, history)

    async def history(self, key_id: str) -> list[KeyRecord]:
        """Give every record of all versions of a key, in the order in which they were written.

        Raises:
            AccessDenied: there is no such key.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        parts, raw = self._parts, raw_key_id(key_id)
        versions = await parts.read(parts.store.versions, raw)
        if not versions:
            raise AccessDenied(f"there is no key {key_id}")
        past = await self._histories((raw, 0), (raw, versions[-1].number))

        def verified() -> list[KeyRecord]:
            return [
                record for version in versions for record in _in_order(past.get((raw, version.number), ()), version)
            ]

        records = await parts.read(verified)
        return sorted(records, key=lambda one: (one.changed_at_ms, one.key_version, one.revision))

    async def timeline(self, key_id: str) -> list[Moment]:
        """Give the history of a key, each record with its event as the outbox kept it; errors as `history`."""
        records = await self.history(key_id)
        needle = literal(bytes.fromhex(key_id).hex().encode(), LargeBinary)

        def read(connection: Connection) -> dict[bytes, bytes]:
            line = AUDIT_OUTBOX.c.line
            at = (
                func.instr(line, needle)
                if connection.dialect.name == "sqlite"
                else func.position(needle.op("IN")(line))
            )
            lines = connection.execute(select(line).where(at > 0)).scalars()
            return {sha256(one).digest(): one for one in lines if isinstance(one, bytes)}

        lines = await self._parts.ask(read)
        return [Moment(record, _event(lines.get(record.event_sha256))) for record in records]

    async def _histories(self, first: Name, last: Name) -> dict[Name, list[KeyRecord | RecordInvalid]]:
        name = tuple_(KEY_HISTORY.c.key_id, KEY_HISTORY.c.version)
        query = (
            select(KEY_HISTORY)
            .where((name >= tuple_(*first)) & (name <= tuple_(*last)))
            .order_by(KEY_HISTORY.c.key_id, KEY_HISTORY.c.version, KEY_HISTORY.c.revision)
        )

        def read(connection: Connection) -> dict[Name, list[KeyRecord | RecordInvalid]]:
            found: dict[Name, list[KeyRecord | RecordInvalid]] = {}
            for row in connection.execute(query).mappings():
                name = (bytes(row["key_id"]), int(row["version"]))
                found.setdefault(name, []).append(_record(row, self._parts.registry))
            return found

        return await self._parts.ask(read)


def _event(line: bytes | None) -> AuditEvent | None:
    """Read a line whose digest a believed record holds."""
    event = None if line is None else decode_line(line)
    return event if isinstance(event, AuditEvent) else None


def _record(row: Any, registry: "Registry") -> KeyRecord | RecordInvalid:
    try:
        signed = SignedRecord(row["record"], row["signature"])
        return verify_record(signed, registry, at_ms=KeyRecord.decode(signed.record).changed_at_ms)
    except RecordInvalid as problem:
        return problem
    except TypeError:
        return RecordInvalid("record", "not bytes")


def _in_order(records: Iterable[KeyRecord | RecordInvalid], version: KeyVersion) -> tuple[KeyRecord, ...]:
    """Check that these are all revisions of a version.

    Raises:
        RecordInvalid: one is missing, or not to be believed.
    """
    found: list[KeyRecord] = []
    for record in records:
        if isinstance(record, RecordInvalid):
            raise record
        if (record.key_id, record.key_version, record.revision) != (version.key_id, version.number, len(found) + 1):
            raise RecordInvalid("revision", "the history has gaps")
        found.append(record)
    if len(found) != version.record.revision:
        raise RecordInvalid("revision", "the history has gaps")
    return tuple(found)
