"""The purposes that may be named: declared in one reviewed file, for each the services that have it.

    [[purpose]]
    id = "crm-sync"
    services = ["billing", "crm-worker"]
    batch = true          # many uses at once are its nature; false where left out

Without a file any well-formed purpose is taken. Whether a use fits its purpose is the monitor's to judge.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from cryptocore import tomlfile
from cryptocore.errors import PurposesInvalid, UnknownPurpose
from cryptocore.lines.texts import purposes as is_purpose
from cryptocore.lines.texts import services as is_service

MAX_PURPOSES: Final = 10_000
_FIELDS: Final = frozenset({"id", "services", "batch"})


@dataclass(frozen=True, slots=True)
class Purpose:
    """Why keys are used, by whom, and whether in batches."""

    id: str
    services: frozenset[str]
    batch: bool = False


class Purposes:
    """All declared purposes of a deployment."""

    def __init__(self, declared: tuple[Purpose, ...]) -> None:
        self._by_id: Final = {purpose.id: purpose for purpose in declared}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            PurposesInvalid: it cannot be read, or breaks a rule.
        """
        return cls.parse(tomlfile.read(path, PurposesInvalid))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of the file.

        Raises:
            PurposesInvalid: names the purpose, counted from 0, and the field.
        """
        document = tomlfile.parse(text, PurposesInvalid)
        if document.keys() - {"purpose"}:
            raise PurposesInvalid(min(document.keys() - {"purpose"})[:64], "unknown field")
        entries = document.get("purpose", [])
        if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_PURPOSES:
            raise PurposesInvalid("purpose", f"not 1 to {MAX_PURPOSES} [[purpose]]")
        declared = tuple(_purpose(f"purpose[{place}]", entry) for place, entry in enumerate(entries))
        if len({purpose.id for purpose in declared}) != len(declared):
            raise PurposesInvalid("purpose", "one of them is declared twice")
        return cls(declared)

    def get(self, purpose: str) -> Purpose | None:
        """Find what is declared of a purpose."""
        return self._by_id.get(purpose)

    def of(self, service: str) -> frozenset[str]:
        """Name the purposes that a service may give."""
        return frozenset(purpose.id for purpose in self._by_id.values() if service in purpose.services)

    def refuse(self, purpose: str, service: str) -> NoReturn:
        """Say what is wrong with a purpose that the service may not give.

        Raises:
            UnknownPurpose: always.
        """
        shown = repr(purpose[:64])
        if purpose in self._by_id:
            raise UnknownPurpose(f"the purpose {shown} is declared, but not for the service {service}")
        raise UnknownPurpose(f"the purpose {shown} is not declared")


def _purpose(field: str, entry: Any) -> Purpose:
    if not isinstance(entry, dict):
        raise PurposesInvalid(field, "not a table")
    if entry.keys() - _FIELDS:
        raise PurposesInvalid(f"{field}.{min(entry.keys() - _FIELDS)[:64]}", "unknown field")
    ident, services, batch = entry.get("id"), entry.get("services"), entry.get("batch", False)
    if not isinstance(ident, str) or not is_purpose[ident]:
        raise PurposesInvalid(f"{field}.id", "not a purpose: [a-z0-9][a-z0-9._-]{0,63}")
    if not isinstance(services, list) or not services:
        raise PurposesInvalid(f"{field}.services", "not a list of at least one source name")
    if not all(isinstance(name, str) and is_service[name] for name in services):
        raise PurposesInvalid(f"{field}.services", "one of them is not a source name")
    if not isinstance(batch, bool):
        raise PurposesInvalid(f"{field}.batch", "neither true nor false")
    return Purpose(ident, frozenset(services), batch)
