"""What may be said aloud about a key version."""

from dataclasses import dataclass

from cryptocore.envelope import Owner
from cryptocore.keys import KeyState
from cryptocore.store.key_store import KeyVersion


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key version without its DEK."""

    key_id: str
    version: int
    revision: int
    state: KeyState
    owner: Owner
    kek_alias: str
    kek_version: str


def key_info(version: KeyVersion) -> KeyInfo:
    """Describe a version."""
    record = version.record
    return KeyInfo(
        key_id=record.key_id.hex(),
        version=record.key_version,
        revision=record.revision,
        state=record.state,
        owner=version.owner,
        kek_alias=record.kek_alias,
        kek_version=record.kek_version,
    )
