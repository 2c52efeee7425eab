"""The declaration file vaults.toml: which vaults there are, which of their keys are KEKs, who uses them for what.

It is reviewed as the registry of signers is. What is declared and silent, and what is seen and not declared, is a
finding: `coverage_findings` says which, and keeps nothing.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from alerts.model import Finding
from alerts.system import system_finding
from alerts.thresholds import DAY_MS, HOUR_MS
from cryptocore import tomlfile
from cryptocore.clock import rfc3339_ms
from cryptocore.errors import FormatError
from streams.vaultlogs.objects import resource
from streams.vaultlogs.rejection import VaultRecordRejected

QUIET_HOURS: Final = 24
"""A vault in use logs something every day: its clients sign in again every hour."""
MAX_QUIET_HOURS: Final = 31 * 24
_NAME: Final = re.compile(r"[a-z0-9-]{1,127}")
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|/[!-~]{1,500}")


class VaultsInvalid(FormatError):
    """The declaration file cannot be used; `field` names the record and the field."""


class DeclaredPrincipal(Struct, frozen=True, kw_only=True):
    """Who is expected to call a vault: an object id (or a managed identity's resource id), and whose it is."""

    id: str
    owner: str
    purpose: str = ""


class DeclaredVault(Struct, frozen=True, kw_only=True):
    """One vault; names and ids are in lower case."""

    name: str
    resource_id: str
    owner: str
    keks: tuple[str, ...] = ()
    principals: tuple[DeclaredPrincipal, ...] = ()
    quiet_ms: int = DAY_MS


class VaultDeclarations(Struct, frozen=True):
    """All declared vaults, by name."""

    vaults: Mapping[str, DeclaredVault]

    @classmethod
    def load(cls, path: Path) -> "VaultDeclarations":
        """Read vaults.toml.

        Raises:
            VaultsInvalid: with the record and the field that is wrong.
        """
        return cls.parse(tomlfile.read(path, VaultsInvalid))

    @classmethod
    def parse(cls, text: str) -> "VaultDeclarations":
        """Read the text of the file.

        Raises:
            VaultsInvalid: with the record and the field that is wrong.
        """
        document = tomlfile.parse(text, VaultsInvalid)
        _known(document, {"vault"}, "file")
        vaults: dict[str, DeclaredVault] = {}
        for number, table in enumerate(_tables(document, "vault", "file"), start=1):
            vault = _vault(table, f"vault {number}")
            if vault.name in vaults:
                raise VaultsInvalid(f"vault {number}.name", f"{vault.name} is declared twice")
            vaults[vault.name] = vault
        if not vaults:
            raise VaultsInvalid("file", "declares no [[vault]]")
        return cls(vaults)


class Seen(Struct, frozen=True):
    """What was seen of a vault: when its own log spoke first and last, by the broker's time."""

    first_ms: int
    last_ms: int


class Acted(Struct, frozen=True):
    """What the Activity Log tells of a vault: when it spoke last, and what became of its diagnostic setting last.

    `setting` is on, off, deleted, written (the record does not say how), or "" where no record is about one.
    """

    last_ms: int
    setting: str = ""
    setting_ms: int = 0


def coverage_findings(
    declared: VaultDeclarations,
    seen: Mapping[str, Seen],
    *,
    since_ms: int,
    now_ms: int,
    acted: Mapping[str, Acted] | None = None,
) -> list[Finding]:
    """Say which declared vaults are silent, and which vaults nobody declared.

    Args:
        declared: the declaration file.
        seen: by vault, what came of its own log (the Activity Log goes on when a vault's is cut).
        since_ms: since when records are looked at; a vault that never spoke is silent since then.
        now_ms: the broker's time.
        acted: by vault, what the Activity Log tells; it never counts as a vault's own log.
    """
    found = []
    for name, vault in declared.vaults.items():
        last_ms = seen[name].last_ms if name in seen else None
        quiet_since_ms = since_ms if last_ms is None else max(last_ms, since_ms)
        if now_ms - quiet_since_ms >= vault.quiet_ms:
            known = (acted or {}).get(name)
            found.append(silent_finding(vault, last_ms, at_ms=quiet_since_ms + vault.quiet_ms, acted=known))
    found += [
        system_finding(
            "vault_undeclared",
            summary=f"{name} logs its use and is not in the declaration file",
            effective_ms=known.first_ms,
            key=name,
        )
        for name, known in seen.items()
        if name not in declared.vaults
    ]
    return found


def silent_finding(vault: DeclaredVault, last_ms: int | None, *, at_ms: int, acted: Acted | None = None) -> Finding:
    """Say that a declared vault's own log stopped, or never began, and what is known of its diagnostic setting."""
    last = "no record has ever come" if last_ms is None else f"the last record came at {rfc3339_ms(last_ms)}"
    setting = _setting(last_ms, acted)
    if setting:
        last = f"{last}; {setting}"
    return system_finding(
        "vault_silent",
        summary=f"{vault.name} of {vault.owner} logged nothing for {vault.quiet_ms // HOUR_MS} h: {last}",
        effective_ms=at_ms,
        key=vault.name,
        facts={"owner": vault.owner, "keks": ", ".join(vault.keks) or "none declared"},
    )


def _setting(last_ms: int | None, acted: Acted | None) -> str:
    """What the Activity Log tells of the diagnostic setting without which a vault logs nothing; "" where nothing."""
    if acted is None:
        return ""
    when = rfc3339_ms(acted.setting_ms)[:19] + "Z"
    if acted.setting == "deleted":
        return f"its diagnostic setting was deleted at {when}, and none was written since"
    if acted.setting == "off":
        return f"its diagnostic setting was written at {when} with the audit log off"
    if acted.setting:
        return f"a diagnostic setting was written at {when}: look at where it leads, and at the feed"
    if last_ms is None:
        return "the Activity Log tells of it: it lacks a diagnostic setting for its audit log, or that leads elsewhere"
    return "the Activity Log goes on: the vault's diagnostic setting, or where it leads, was lost"


def _vault(table: dict[str, Any], where: str) -> DeclaredVault:
    _known(table, {"name", "resource_id", "owner", "keks", "quiet_hours", "principal"}, where)
    name = _text(table, "name", where).lower()
    if not _NAME.fullmatch(name):
        raise VaultsInvalid(f"{where}.name", f"{name!r} is no name of a vault")
    where = f"{where} ({name})"
    principals = tuple(
        _principal(one, f"{where}.principal {number}")
        for number, one in enumerate(_tables(table, "principal", where), start=1)
    )
    _unique([one.id for one in principals], f"{where}.principal")
    return DeclaredVault(
        name=name,
        resource_id=_resource_id(table, name, where),
        owner=_text(table, "owner", where),
        keks=_keks(table, where),
        principals=principals,
        quiet_ms=_quiet_hours(table, where) * HOUR_MS,
    )


def _principal(table: dict[str, Any], where: str) -> DeclaredPrincipal:
    _known(table, {"id", "owner", "purpose"}, where)
    ident = _text(table, "id", where).lower()
    if not _ID.fullmatch(ident):
        raise VaultsInvalid(f"{where}.id", f"{ident!r} is neither an object id nor a resource id")
    purpose = _text(table, "purpose", where) if "purpose" in table else ""
    return DeclaredPrincipal(id=ident, owner=_text(table, "owner", where), purpose=purpose)


def _resource_id(table: dict[str, Any], name: str, where: str) -> str:
    resource_id = _text(table, "resource_id", where)
    try:
        vault = resource(resource_id).vault
    except VaultRecordRejected as refusal:
        raise VaultsInvalid(f"{where}.resource_id", refusal.problem) from refusal
    if vault != name:
        raise VaultsInvalid(f"{where}.resource_id", f"names {vault or 'no vault'}, not {name}")
    return resource_id.lower()


def _keks(table: dict[str, Any], where: str) -> tuple[str, ...]:
    keks = table.get("keks", [])
    if not isinstance(keks, list) or not all(isinstance(one, str) for one in keks):
        raise VaultsInvalid(f"{where}.keks", "must be a list of names")
    names = tuple(one.lower() for one in keks)
    for one in names:
        if not _NAME.fullmatch(one):
            raise VaultsInvalid(f"{where}.keks", f"{one!r} is no name of a key")
    _unique(names, f"{where}.keks")
    return names


def _quiet_hours(table: dict[str, Any], where: str) -> int:
    hours = table.get("quiet_hours", QUIET_HOURS)
    if not isinstance(hours, int) or isinstance(hours, bool) or not 1 <= hours <= MAX_QUIET_HOURS:
        raise VaultsInvalid(f"{where}.quiet_hours", f"must be a whole number from 1 to {MAX_QUIET_HOURS}")
    return hours


def _text(table: dict[str, Any], name: str, where: str) -> str:
    value = table.get(name)
    if not isinstance(value, str) or not value.strip():
        raise VaultsInvalid(f"{where}.{name}", "is missing" if value is None else "must be a text that says something")
    return value.strip()


def _tables(table: dict[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise VaultsInvalid(f"{where}.{name}", f"must be written as [[{name}]]")
    return found


def _known(table: dict[str, Any], names: set[str], where: str) -> None:
    for name in table:
        if name not in names:
            raise VaultsInvalid(f"{where}.{name}", f"is not known; there are {', '.join(sorted(names))}")


def _unique(values: list[str] | tuple[str, ...], where: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise VaultsInvalid(where, f"{value} is there twice")
