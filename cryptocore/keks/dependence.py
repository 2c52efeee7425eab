"""What would be lost with a KEK: DEKs under it now, and those that declared copies of the key store still hold so.

A copy of the store that was made before a rewrap holds the DEK as it was wrapped then. Who restores it needs the KEK
version of that time, as long as the copy is kept. Destroyed versions need no KEK any more: that is their point.
"""

from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cryptocore.care.inventory import Held, Inventory
from cryptocore.clock import rfc3339_ms
from cryptocore.envelope import Owner
from cryptocore.keys import KeyState
from cryptocore.life.copies import Copies

if TYPE_CHECKING:
    from cryptocore.parts import Parts

LOSS: Final = "kek-loss"
PURGE: Final = "kek-purge"


@dataclass(frozen=True, slots=True)
class Under:
    """A key version that depends on a KEK.

    Attributes:
        kek_version: of the KEK, now or then.
        until_ms: when the last declared copy that holds it so is gone; None where it is under the KEK now.
    """

    key_id: str
    number: int
    owner: Owner
    state: KeyState
    kek_version: str
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Dependence:
    """What depends on a KEK, or on one of its versions.

    Attributes:
        now: key versions under it, archived ones too.
        copies: key versions that were under it and stand so in declared copies.
        unread: key versions whose records are not to be believed: they may be under it.
        undeclared: something was under it, and nobody states that all copies of the store are declared.
    """

    now: tuple[Under, ...]
    copies: tuple[Under, ...]
    unread: tuple[str, ...]
    undeclared: bool

    @property
    def none(self) -> bool:
        """Whether nothing depends on it."""
        return not (self.now or self.copies or self.unread or self.undeclared)

    @property
    def owners(self) -> tuple[Owner, ...]:
        """Whose data could not be read any more."""
        return tuple(dict.fromkeys(one.owner for one in (*self.now, *self.copies)))

    def __str__(self) -> str:
        said = []
        if self.now:
            said.append(f"{_versions(self.now)} under it")
        if self.copies:
            until = max(one.until_ms or 0 for one in self.copies)
            said.append(f"{_versions(self.copies)} under it in declared copies until {rfc3339_ms(until)}")
        if self.unread:
            said.append(f"{_versions(self.unread)} not to be believed")
        if self.undeclared:
            said.append("key versions were under it, and no complete declaration of copies was given (--copies)")
        return "; ".join(said) or "nothing depends on it"


async def dependence(parts: "Parts", alias: str, version: str | None, copies: Copies, *, now_ms: int) -> Dependence:
    """Look at every signed record of the store; raises `KeyUnavailable` when it does not answer."""
    now: list[Under] = []
    held: list[Under] = []
    unread: list[str] = []
    was_under = False
    retention_ms = copies.retention_ms
    async for one in Inventory(parts).each(histories=True):
        if one.version is None or one.problem is not None:
            unread.append(f"{one.key_id}/{one.number}")
            continue
        if one.version.record.state is KeyState.DESTROYED:
            continue
        uses = _uses(one, alias, version)
        if not uses:
            continue
        left_ms = max(uses.values(), key=lambda ms: float("inf") if ms is None else ms)
        kek_version = next(name for name, ms in uses.items() if ms == left_ms)
        if left_ms is None:
            now.append(_under(one, kek_version, None))
        elif retention_ms is None:
            was_under = True
        elif now_ms < left_ms + retention_ms:
            held.append(_under(one, kek_version, left_ms + retention_ms))
        was_under = was_under or left_ms is None
    return Dependence(tuple(now), tuple(held), tuple(unread), was_under and retention_ms is None)


def loss_statement(parts: "Parts", kek: dict[str, str], act: str, lost: Dependence) -> bytes:
    """Write what two people approve before data is given up: every owner, every key version; the same each time."""
    owners: dict[str, list[dict[str, Any]]] = {}
    for one in (*lost.now, *lost.copies):
        entry: dict[str, Any] = {"key_id": one.key_id, "version": one.number, "state": one.state}
        entry["kek_version"] = one.kek_version
        if one.until_ms is not None:
            entry["in_copies_until"] = rfc3339_ms(one.until_ms)
        owners.setdefault(owner_text(one.owner), []).append(entry)
    document = {
        "v": 1,
        "type": LOSS,
        "deployment": parts.deployment.hex(),
        "kek": kek,
        "act": act,
        "owners": [{"owner": owner, "keys": keys} for owner, keys in sorted(owners.items())],
        "unread": list(lost.unread),
        "copies_declared": not lost.undeclared,
    }
    return statement_text(document)


def purge_statement(parts: "Parts", kek: dict[str, str], deleted_ms: int | None) -> bytes:
    """Write what two people approve before a deleted KEK is purged."""
    document: dict[str, Any] = {"v": 1, "type": PURGE, "deployment": parts.deployment.hex(), "kek": kek}
    if deleted_ms is not None:
        document["deleted_at"] = rfc3339_ms(deleted_ms)
    return statement_text(document)


def owner_text(owner: Owner) -> str:
    """Name an owner as commands do."""
    ref = owner.ref()
    return f"secret:{ref.secret_name}" if ref.secret_name is not None else f"{ref.tenant_id}/{ref.integration_id}"


def statement_text(document: dict[str, Any]) -> bytes:
    """Write a statement as people read and approve it; the same document gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _versions(some: Sized) -> str:
    return "1 key version is" if len(some) == 1 else f"{len(some):,} key versions are"


def _uses(one: Held, alias: str, version: str | None) -> dict[str, int | None]:
    """Name the versions of a KEK that a key version was under, and when it left each; None: it is there now."""
    found: dict[str, int | None] = {}
    previous: str | None = None
    for record in one.history:
        this = record.kek_version if record.kek_alias == alias else None
        if previous is not None and this != previous:
            found[previous] = record.changed_at_ms
        if this is not None:
            found[this] = None
        previous = this
    return found if version is None else {name: ms for name, ms in found.items() if name == version}


def _under(one: Held, kek_version: str, until_ms: int | None) -> Under:
    assert one.version is not None
    return Under(one.key_id, one.number, one.version.owner, one.version.record.state, kek_version, until_ms)
