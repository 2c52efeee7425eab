"""What can be asked of a vault about a KEK's life, and how its answers read. Whoever makes the requests is a port.

The requests are those of Key Vault's REST interface; cryptocore/azure.py sends them. Nothing here holds key material:
a vault shows the public half of a key and its attributes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

from cryptocore.lines.values import VaultAttempt
from cryptocore.wrapping import KeyWrapper

KEY_SIZE: Final = 3072
"""Bits of a KEK that is made here."""
KEY_OPERATIONS: Final = ("wrapKey", "unwrapKey")
_MOST_PAGES: Final = 400


@dataclass(frozen=True, slots=True)
class NamedKek:
    """A key of a vault, as settings name it."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    vault_url: str
    name: str


@dataclass(frozen=True, slots=True)
class VaultAnswer:
    """The answer to an administrative request, and every request it took."""

    document: dict[str, Any] = field(repr=False)
    attempts: tuple[VaultAttempt, ...] = ()

    @property
    def made(self) -> str | None:
        """The key version that the answer shows."""
        key = self.document.get("key")
        return _version_of(key.get("kid")) if isinstance(key, dict) else None


@runtime_checkable
class KekVault(KeyWrapper, Protocol):
    """A KEK whose life is in a vault."""

    async def administer(
        self, method: str, path: str, body: dict[str, Any] | None, *, call_ids: tuple[str, ...]
    ) -> VaultAnswer:
        """Make one administrative request.

        Raises:
            VaultCallFailed: it could not be had.
        """


class KekPresence(StrEnum):
    """Whether the vault has the KEK."""

    PRESENT = "present"
    DELETED = "deleted"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class KekVersionInfo:
    """One version of a KEK, as the vault shows it."""

    version: str
    enabled: bool
    created_ms: int | None
    expires_ms: int | None


@dataclass(frozen=True, slots=True)
class KekState:
    """A KEK, as the vault shows it.

    Attributes:
        current: the version that new wraps use.
        versions: the oldest first; of a deleted KEK the vault lists none.
        deleted_ms: when it was deleted.
        purge_due_ms: when the vault will purge it.
    """

    presence: KekPresence
    current: str | None = None
    versions: tuple[KekVersionInfo, ...] = ()
    deleted_ms: int | None = None
    purge_due_ms: int | None = None

    def version(self, ident: str) -> KekVersionInfo | None:
        """Find a version."""
        return next((one for one in self.versions if one.version == ident), None)


async def versions_of(vault: KekVault) -> tuple[KekVersionInfo, ...]:
    """List the versions of a KEK that is there, the oldest first; raises `VaultCallFailed`."""
    found: list[KekVersionInfo] = []
    path: str | None = f"keys/{vault.name}/versions"
    for _ in range(_MOST_PAGES):
        if not path:
            break
        page = (await vault.administer("GET", path, None, call_ids=vault.draw_call_ids())).document
        found += _listed(page)
        link = page.get("nextLink")
        path = link if isinstance(link, str) else None
    return tuple(sorted(found, key=lambda one: (one.created_ms or 0, one.version)))


def present(document: dict[str, Any], versions: tuple[KekVersionInfo, ...]) -> KekState:
    """Read the bundle of a KEK that is there."""
    current = VaultAnswer(document).made
    return KekState(KekPresence.PRESENT, current=current, versions=versions)


def deleted(document: dict[str, Any]) -> KekState:
    """Read the bundle of a KEK that is deleted."""
    return KekState(
        KekPresence.DELETED,
        current=VaultAnswer(document).made,
        deleted_ms=_ms(document.get("deletedDate")),
        purge_due_ms=_ms(document.get("scheduledPurgeDate")),
    )


def _listed(page: dict[str, Any]) -> Iterator[KekVersionInfo]:
    for item in page.get("value") or ():
        version = _version_of(item.get("kid")) if isinstance(item, dict) else None
        if version is not None:
            attributes = item.get("attributes") or {}
            yield KekVersionInfo(
                version=version,
                enabled=attributes.get("enabled") is not False,
                created_ms=_ms(attributes.get("created")),
                expires_ms=_ms(attributes.get("exp")),
            )


def _version_of(kid: object) -> str | None:
    parts = kid.rsplit("/", 2) if isinstance(kid, str) else []
    return parts[-1].lower() if len(parts) == 3 and parts[-1] else None  # noqa: PLR2004 - …/name/version


def _ms(seconds: object) -> int | None:
    return seconds * 1000 if isinstance(seconds, int) else None
