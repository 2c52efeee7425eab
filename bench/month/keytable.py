"""The DEKs of the company: which service uses them, under which KEK they were wrapped, and their revisions in time."""

import random
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bench.month.plan import DAY_S, HOUR_S, KEKS, Calendar
from cryptocore.events import KekRef, KeyRef, OwnerRef
from cryptocore.keys import KeyState

OWNERS: Final = {
    "billing": (6, "tenant-kek", "crm"),
    "crm-sync": (6, "tenant-kek", "sync"),
    "mailer": (5, "tokens-kek", "mail"),
    "invoicing": (5, "eu-kek", "erp"),
    "ledger": (6, "tokens-kek", "bank"),
    "webhooks": (4, "secrets-kek", ""),
    "archiver": (3, "archive-kek", "archive"),
}
"""Service: how many DEKs, under which KEK, for which integration ("" = internal secrets)."""
ACTIVE_REVISION: Final = 2


class Standing(NamedTuple):
    """A key's newest version as it stands: what events of it name."""

    version: int
    revision: int
    kek_version: str
    state: KeyState


@dataclass(slots=True)
class Key:
    """One DEK; `history` holds (from when, in seconds, how it stood), oldest first."""

    id: str
    service: str
    owner: OwnerRef
    alias: str
    history: list[tuple[float, Standing]] = field(default_factory=list)

    def at(self, at_s: float) -> Standing:
        """How it stood at a time."""
        return self.history[bisect_right(self.history, at_s, key=lambda entry: entry[0]) - 1][1]

    def ref(self, standing: Standing) -> KeyRef:
        """What an event says of it."""
        return KeyRef(
            id=self.id, version=standing.version, revision=standing.revision, kind="dek", state=standing.state
        )

    def kek(self, version: str) -> KekRef:
        vault, name = KEKS[self.alias]
        return KekRef(vault=vault, name=name, version=version)


class KekVersions:
    """Which version of each KEK is the current one; a new one with each rotation."""

    def __init__(self, calendar: Calendar, draw: random.Random) -> None:
        self._from_s = [0.0, *(day * DAY_S + 11.5 * HOUR_S for day in calendar.kek_rotations)]
        self._versions = {alias: [draw.randbytes(16).hex() for _ in self._from_s] for alias in KEKS}

    def at(self, alias: str, at_s: float) -> str:
        return self._versions[alias][bisect_right(self._from_s, at_s) - 1]


def draw_keys(draw: random.Random) -> list[Key]:
    """Draw all keys; they have no history yet."""
    keys = []
    for service, (count, alias, integration) in OWNERS.items():
        for number in range(count):
            if integration:
                owner = OwnerRef(tenant_id=f"t-{number + 1:02}", integration_id=integration)
            else:
                owner = OwnerRef(secret_name=f"{service}-{number}")
            keys.append(Key(draw.randbytes(16).hex(), service, owner, alias))
    return keys
