"""The file allowed.toml: principals that are no application of ours and may use a KEK all the same, for a while.

A backup job, a storage account that encrypts under the KEK, an inventory. Each entry is explicit, has an owner and a
reason, was approved by two persons, and ends within a year; what it lets pass is counted, in the trail and the report.
An entry never explains the identity of a registered source: that one's uses are its events' to explain.
"""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from alerts.model import KekUse
from cryptocore import tomlfile
from cryptocore.errors import FormatError
from cryptocore.registry import Registry

LONGEST: Final = timedelta(days=366)
"""A year, whichever: who still needs it then says so again."""
APPROVALS: Final = 2
OPERATIONS: Final = frozenset(
    {"KeyWrap", "KeyUnwrap", "KeyEncrypt", "KeyDecrypt", "KeySign", "KeyVerify"},
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OBJECT: Final = re.compile(r"[a-z0-9-]{1,127}")
_PRINCIPAL: Final = re.compile(r"[!-~]{1,512}")
_TEXTS: Final = ("id", "principal", "vault", "key", "reason", "owner")
_FIELDS: Final = {*_TEXTS, "operations", "approved_by", "from", "until"}


class AllowedInvalid(FormatError):
    """The file cannot be used; `field` names the entry and the field."""


class Entry(Struct, frozen=True, kw_only=True):
    """One principal, one KEK, some operations, from a moment (inclusive) to another (exclusive)."""

    id: str
    principal: str
    vault: str
    key: str
    operations: frozenset[str]
    reason: str
    owner: str
    approved_by: tuple[str, ...]
    from_us: int
    until_us: int

    def covers(self, use: KekUse) -> bool:
        """Say whether the entry allows this use, at the time that the vault gives for it."""
        return (
            (use.principal_id or "").lower() == self.principal
            and (use.vault, use.name) == (self.vault, self.key)
            and use.operation in self.operations
            and self.from_us <= use.time_us < self.until_us
        )


class Allowed(Struct, frozen=True):
    """All entries of the file."""

    entries: tuple[Entry, ...]

    @classmethod
    def load(cls, path: Path) -> "Allowed":
        """Read allowed.toml.

        Raises:
            AllowedInvalid: with the entry and the field that is wrong.
        """
        return cls.parse(tomlfile.read(path, AllowedInvalid))

    @classmethod
    def parse(cls, text: str) -> "Allowed":
        """Read the text of the file; one without entries allows nothing.

        Raises:
            AllowedInvalid: with the entry and the field that is wrong.
        """
        document = tomlfile.parse(text, AllowedInvalid)
        tables = document.pop("allowed", [])
        if document or not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            raise AllowedInvalid("file", "holds [[allowed]] tables and nothing else")
        entries = tuple(_entry(table, f"allowed {number}") for number, table in enumerate(tables, start=1))
        for number, entry in enumerate(entries, start=1):
            if any(entry.id == earlier.id for earlier in entries[: number - 1]):
                raise AllowedInvalid(f"allowed {number}.id", f"{entry.id} is there twice")
        return cls(entries)

    def entry_for(self, use: KekUse) -> Entry | None:
        """Return the first entry that allows the use of a principal of no source; None where there is none."""
        if use.source is not None:
            return None
        return next((entry for entry in self.entries if entry.covers(use)), None)

    def check(self, registry: Registry) -> None:
        """Refuse entries for identities of our services.

        Raises:
            AllowedInvalid: an entry names the vault principal of a source.
        """
        for number, entry in enumerate(self.entries, start=1):
            source = registry.source_of_principal(entry.principal)
            if source is not None:
                problem = f"is the identity of {source}, whose uses are explained by its events alone"
                raise AllowedInvalid(f"allowed {number}.principal", problem)


def _entry(table: dict[str, Any], where: str) -> Entry:
    for name in (*table, *sorted(_FIELDS - set(table))):
        if name not in _FIELDS:
            raise AllowedInvalid(f"{where}.{name}", f"is not known; there are {', '.join(sorted(_FIELDS))}")
        if name not in table:
            raise AllowedInvalid(f"{where}.{name}", "is missing")
    texts = {name: _text(table[name], f"{where}.{name}") for name in _TEXTS}
    _match(_NAME, texts["id"], f"{where}.id")
    first, end = _day(table["from"], f"{where}.from"), _day(table["until"], f"{where}.until")
    if not first < end <= first + LONGEST:
        raise AllowedInvalid(f"{where}.until", "must be after `from`, by a year at most")
    return Entry(
        id=texts["id"],
        principal=_match(_PRINCIPAL, texts["principal"].lower(), f"{where}.principal"),
        vault=_match(_OBJECT, texts["vault"].lower(), f"{where}.vault"),
        key=_match(_OBJECT, texts["key"].lower(), f"{where}.key"),
        operations=frozenset(_operations(table["operations"], f"{where}.operations")),
        reason=texts["reason"],
        owner=texts["owner"],
        approved_by=_approvals(table["approved_by"], f"{where}.approved_by"),
        from_us=_us(first),
        until_us=_us(end),
    )


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise AllowedInvalid(where, "must be a text that says something")
    return value.strip()


def _match(pattern: re.Pattern[str], text: str, where: str) -> str:
    if not pattern.fullmatch(text):
        raise AllowedInvalid(where, f"{text!r} has another form than such names have")
    return text


def _texts(value: Any, where: str) -> Iterable[str]:
    if not isinstance(value, list) or not value:
        raise AllowedInvalid(where, "must be a list of texts")
    return [_text(one, where) for one in value]


def _operations(value: Any, where: str) -> Iterable[str]:
    for operation in _texts(value, where):
        if operation not in OPERATIONS:
            raise AllowedInvalid(where, f"{operation!r} is none of {', '.join(sorted(OPERATIONS))}")
        yield operation


def _approvals(value: Any, where: str) -> tuple[str, ...]:
    persons = tuple(_texts(value, where))
    if len({person.lower() for person in persons}) < APPROVALS:
        raise AllowedInvalid(where, "needs two different persons")
    return persons


def _day(value: Any, where: str) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise AllowedInvalid(where, "must be a date, such as 2026-12-31; it begins at midnight UTC")
    return value


def _us(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
