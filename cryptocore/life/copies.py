"""Declared copies of the key store: how long an overwritten DEK can still be found somewhere else.

    complete = true                     # every copy there is stands below
    reviewed = 2026-11-01
    reviewed_by = "user:lena"

    [[copy]]
    name = "wal-archive"
    retention_days = 35

A reviewed file. What nobody declared cannot be waited for: unless the list is complete, nobody can say when a DEK is
gone, and the certificate says "not established".
"""

from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

from cryptocore import tomlfile
from cryptocore.errors import FormatError

MAX_COPIES: Final = 1_000
MAX_DAYS: Final = 36_500
MAX_NAME: Final = 128
_DAY_MS: Final = 24 * 3600 * 1000
_FIELDS: Final = frozenset({"complete", "reviewed", "reviewed_by", "copy"})


class CopiesInvalid(FormatError):
    """The file of declared copies cannot be used."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A backup, a log archive, a replica: whatever keeps what the key store held."""

    name: str
    retention_days: int


@dataclass(frozen=True, slots=True)
class Copies:
    """All that is declared.

    Attributes:
        complete: somebody states that there are no others.
        sha256: of the file, so that a certificate says which one it stands on.
    """

    declared: tuple[Copy, ...] = ()
    complete: bool = False
    reviewed: str = ""
    reviewed_by: str = ""
    sha256: str = ""

    @property
    def retention_ms(self) -> int | None:
        """For how long the last copy outlives the store's own; None: not known."""
        if not self.complete:
            return None
        return max((copy.retention_days for copy in self.declared), default=0) * _DAY_MS

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            CopiesInvalid: it cannot be read, or breaks a rule.
        """
        return cls.parse(tomlfile.read(path, CopiesInvalid))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of the file.

        Raises:
            CopiesInvalid: names the copy, counted from 0, and the field.
        """
        document = tomlfile.parse(text, CopiesInvalid)
        if document.keys() != _FIELDS and document.keys() != _FIELDS - {"copy"}:
            odd = (document.keys() ^ _FIELDS) - {"copy"}
            raise CopiesInvalid(min(odd)[:64], "missing, or an unknown field")
        if not isinstance(document["complete"], bool):
            raise CopiesInvalid("complete", "not true or false")
        reviewed, by = document["reviewed"], document["reviewed_by"]
        if type(reviewed) is not date:
            raise CopiesInvalid("reviewed", "not a date such as 2026-11-01")
        if not isinstance(by, str) or not 1 <= len(by) <= MAX_NAME:
            raise CopiesInvalid("reviewed_by", "not who reviewed it")
        entries = document.get("copy", [])
        if not isinstance(entries, list) or len(entries) > MAX_COPIES:
            raise CopiesInvalid("copy", f"not at most {MAX_COPIES} [[copy]]")
        declared = tuple(_copy(f"copy[{place}]", entry) for place, entry in enumerate(entries))
        if len({copy.name for copy in declared}) != len(declared):
            raise CopiesInvalid("copy", "one of them is declared twice")
        digest = sha256(text.encode()).hexdigest()
        return cls(declared, document["complete"], reviewed.isoformat(), by, digest)


UNDECLARED: Final = Copies()
"""Nobody declared anything."""


def _copy(field: str, entry: Any) -> Copy:
    if not isinstance(entry, dict) or entry.keys() != {"name", "retention_days"}:
        raise CopiesInvalid(field, "not a name and retention_days")
    name, days = entry["name"], entry["retention_days"]
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
        raise CopiesInvalid(f"{field}.name", f"not 1 to {MAX_NAME} characters")
    if isinstance(days, bool) or not isinstance(days, int) or not 0 <= days <= MAX_DAYS:
        raise CopiesInvalid(f"{field}.retention_days", f"not 0 to {MAX_DAYS}")
    return Copy(name, days)
