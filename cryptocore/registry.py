"""The registry of signers: who may say what, for which source, from when to when.

It is a reviewed file that is shipped with a service's or the monitor's configuration; nothing read from a topic or a
store ever changes it.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from cryptocore.clock import parse_rfc3339, rfc3339_ms
from cryptocore.errors import RegistryInvalid
from cryptocore.lines.texts import SERVICE
from cryptocore.signing import KEY_SIZE, SIGNER_ID_SIZE, signer_id_of

DEPLOYMENT_SIZE: Final = 16
MAX_FILE: Final = 1024 * 1024
MAX_SIGNERS: Final = 4096
MAX_PRINCIPALS: Final = 256

_SOURCE = re.compile(SERVICE)
_PRINCIPAL = re.compile("[0-9a-z][0-9a-z._@-]{0,127}")
_PERSON = re.compile("[^\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]{1,128}")


class Role(StrEnum):
    """What a signer's word counts for."""

    EVENTS = "events"
    KEYS = "keys"
    APPROVE = "approve"


@dataclass(frozen=True, slots=True)
class RegisteredSigner:
    """One entry: a public key, the source it speaks for, and the limits of that."""

    signer_id: bytes
    public_key: bytes
    source: str
    roles: frozenset[Role]
    vault_principals: tuple[str, ...]
    person: str | None
    valid_from_ms: int
    valid_until_ms: int
    compromised_from_ms: int | None = None

    def usable(self, role: Role, at_ms: int) -> bool:
        """Say whether it had this role at that time, from `valid_from` inclusive to `valid_until` exclusive."""
        return role in self.roles and self.valid_from_ms <= at_ms < self.valid_until_ms

    def problem(self, role: Role, at_ms: int) -> str | None:
        """Say why it has not this role at that time, with whose it is and the times; None when it has."""
        who = f"signer {self.signer_id.hex()} of {self.source}"
        if role not in self.roles:
            return f"{who} lacks the role {role}"
        if at_ms < self.valid_from_ms:
            return f"{who} is not valid yet: from {rfc3339_ms(self.valid_from_ms)}, and now it is {rfc3339_ms(at_ms)}"
        if at_ms >= self.valid_until_ms:
            ended = rfc3339_ms(self.valid_until_ms)
            return f"{who} is no longer valid: it ended at {ended}, and now it is {rfc3339_ms(at_ms)}"
        return None

    def suspect(self, at_ms: int) -> bool:
        """Say whether its key was in other hands at that time; what it said then is kept but proves nothing."""
        return self.compromised_from_ms is not None and at_ms >= self.compromised_from_ms


_FIELDS: Final = (
    "signer_id",
    "public_key",
    "source",
    "roles",
    "vault_principals",
    "person",
    "valid_from",
    "valid_until",
    "compromised_from",
)


@dataclass(frozen=True)
class Registry:
    """All signers of one deployment, in the order of the file."""

    deployment: bytes
    signers: tuple[RegisteredSigner, ...] = ()

    def __post_init__(self) -> None:
        _check_together(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read the registry file.

        Raises:
            RegistryInvalid: it cannot be read or breaks a rule.
        """
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_FILE + 1)
        except OSError as err:
            raise RegistryInvalid("file", f"{path}: {err.strerror}") from err
        return cls.parse(data)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the bytes of a registry file.

        Raises:
            RegistryInvalid: names the signer, counted from 0, and the field.
        """
        if len(data) > MAX_FILE:
            raise RegistryInvalid("file", f"longer than {MAX_FILE} bytes")
        try:
            document = json.loads(data.decode("utf-8"), object_pairs_hook=_members)
        except (ValueError, RecursionError) as err:
            raise RegistryInvalid("file", "not JSON in UTF-8") from err
        _check_names("file", document, ("v", "deployment", "signers"))
        if document["v"] != 1 or document["v"] is True:
            raise RegistryInvalid("v", "not 1")
        if not isinstance(document["signers"], list) or len(document["signers"]) > MAX_SIGNERS:
            raise RegistryInvalid("signers", f"not a list of at most {MAX_SIGNERS}")
        return cls(
            deployment=_hex("deployment", document["deployment"], DEPLOYMENT_SIZE),
            signers=tuple(_signer(f"signers[{place}]", item) for place, item in enumerate(document["signers"])),
        )

    def encode(self) -> bytes:
        """Write the file as `parse` reads it."""
        document = {
            "v": 1,
            "deployment": self.deployment.hex(),
            "signers": [_entry(signer) for signer in self.signers],
        }
        return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"

    def get(self, signer_id: bytes) -> RegisteredSigner | None:
        """Find an entry."""
        return self._by_id.get(signer_id)

    def sources(self) -> frozenset[str]:
        """Name every source that somebody may speak for with events."""
        return frozenset(signer.source for signer in self.signers if Role.EVENTS in signer.roles)

    def principals_of(self, source: str) -> frozenset[str]:
        """Name the vault principals that act for a source."""
        return frozenset(name for name, owner in self._source_by_principal.items() if owner == source)

    def source_of_principal(self, principal_id: str) -> str | None:
        """Find the source that a vault principal acts for."""
        return self._source_by_principal.get(principal_id.lower())

    def with_signer(self, entry: RegisteredSigner) -> "Registry":
        """Add an entry.

        Raises:
            RegistryInvalid: it contradicts another one.
        """
        return Registry(self.deployment, (*self.signers, entry))

    @cached_property
    def _by_id(self) -> dict[bytes, RegisteredSigner]:
        return {signer.signer_id: signer for signer in self.signers}

    @cached_property
    def _source_by_principal(self) -> dict[str, str]:
        return {name: signer.source for signer in self.signers for name in signer.vault_principals}


def _check_together(registry: Registry) -> None:
    if len(registry.deployment) != DEPLOYMENT_SIZE:
        raise RegistryInvalid("deployment", f"not {DEPLOYMENT_SIZE} bytes")
    seen: set[bytes] = set()
    owners: dict[str, str] = {}
    for place, signer in enumerate(registry.signers):
        field = f"signers[{place}]"
        _check_alone(field, signer)
        if signer.signer_id in seen:
            raise RegistryInvalid(f"{field}.signer_id", "listed before")
        seen.add(signer.signer_id)
        for name in signer.vault_principals:
            if owners.setdefault(name, signer.source) != signer.source:
                raise RegistryInvalid(f"{field}.vault_principals", "one of them belongs to another source")


def _check_alone(field: str, signer: RegisteredSigner) -> None:
    if len(signer.public_key) != KEY_SIZE:
        raise RegistryInvalid(f"{field}.public_key", f"not {KEY_SIZE} bytes")
    if signer.signer_id != signer_id_of(signer.public_key):
        raise RegistryInvalid(f"{field}.signer_id", "not that of public_key")
    if not _SOURCE.fullmatch(signer.source):
        raise RegistryInvalid(f"{field}.source", "not a source name")
    if not signer.roles:
        raise RegistryInvalid(f"{field}.roles", "empty")
    principals = signer.vault_principals
    if len(principals) > MAX_PRINCIPALS or not all(map(_PRINCIPAL.fullmatch, principals)):
        raise RegistryInvalid(f"{field}.vault_principals", f"not at most {MAX_PRINCIPALS} ids in lower case")
    if len(set(principals)) != len(principals):
        raise RegistryInvalid(f"{field}.vault_principals", "one of them is listed twice")
    if signer.person is not None and not _PERSON.fullmatch(signer.person):
        raise RegistryInvalid(f"{field}.person", "not 1 to 128 printable characters")
    if Role.APPROVE in signer.roles and signer.person is None:
        raise RegistryInvalid(f"{field}.person", "an approver is a person")
    if not 0 <= signer.valid_from_ms < signer.valid_until_ms:
        raise RegistryInvalid(f"{field}.valid_until", "not after valid_from")


def _signer(field: str, item: Any) -> RegisteredSigner:
    _check_names(field, item, _FIELDS)
    return RegisteredSigner(
        signer_id=_hex(f"{field}.signer_id", item["signer_id"], SIGNER_ID_SIZE),
        public_key=_hex(f"{field}.public_key", item["public_key"], KEY_SIZE),
        source=_text(f"{field}.source", item["source"]),
        roles=_roles(f"{field}.roles", item["roles"]),
        vault_principals=tuple(_texts(f"{field}.vault_principals", item["vault_principals"])),
        person=None if item["person"] is None else _text(f"{field}.person", item["person"]),
        valid_from_ms=_time(f"{field}.valid_from", item["valid_from"]),
        valid_until_ms=_time(f"{field}.valid_until", item["valid_until"]),
        compromised_from_ms=None
        if item["compromised_from"] is None
        else _time(f"{field}.compromised_from", item["compromised_from"]),
    )


def _entry(signer: RegisteredSigner) -> dict[str, Any]:
    compromised = signer.compromised_from_ms
    return {
        "signer_id": signer.signer_id.hex(),
        "public_key": signer.public_key.hex(),
        "source": signer.source,
        "roles": sorted(signer.roles),
        "vault_principals": list(signer.vault_principals),
        "person": signer.person,
        "valid_from": rfc3339_ms(signer.valid_from_ms),
        "valid_until": rfc3339_ms(signer.valid_until_ms),
        "compromised_from": None if compromised is None else rfc3339_ms(compromised),
    }


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise RegistryInvalid(next(name for name in names if names.count(name) > 1)[:64], "repeated")
    return members


def _check_names(field: str, item: Any, names: Iterable[str]) -> None:
    if not isinstance(item, dict):
        raise RegistryInvalid(field, "not an object")
    for name in names:
        if name not in item:
            raise RegistryInvalid(f"{field}.{name}", "missing")
    unknown = item.keys() - set(names)
    if unknown:
        raise RegistryInvalid(f"{field}.{min(unknown)[:64]}", "unknown field")


def _text(field: str, item: Any) -> str:
    if not isinstance(item, str):
        raise RegistryInvalid(field, "not a text")
    return item


def _texts(field: str, item: Any) -> list[str]:
    if not isinstance(item, list) or not all(isinstance(text, str) for text in item):
        raise RegistryInvalid(field, "not a list of texts")
    return item


def _roles(field: str, item: Any) -> frozenset[Role]:
    words = _texts(field, item)
    if len(set(words)) != len(words) or not set(words) <= set(Role):
        raise RegistryInvalid(field, "not a list of different roles out of events, keys, approve")
    return frozenset(map(Role, words))


def _hex(field: str, item: Any, size: int) -> bytes:
    text = _text(field, item)
    if not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text):
        raise RegistryInvalid(field, f"not {2 * size} lower-case hex digits")
    return bytes.fromhex(text)


def _time(field: str, item: Any) -> int:
    try:
        ms, rest = divmod(parse_rfc3339(_text(field, item)), 1000)
    except ValueError as err:
        raise RegistryInvalid(field, "not a UTC time with six digits and Z") from err
    if rest:
        raise RegistryInvalid(field, "finer than a millisecond")
    return ms
