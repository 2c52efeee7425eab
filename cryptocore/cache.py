"""What a process remembers of keys: verified versions and, for a while, their unwrapped DEKs.

Judges age by a clock that never goes back. It decides what is still good; getting something better is the keyring's.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from cryptocore.dek import Dek
from cryptocore.emitter import Emitter
from cryptocore.envelope import Owner
from cryptocore.errors import KeyRecordRollback
from cryptocore.events import AuditEvent, KeyRef, Operation, Outcome, OwnerRef, Phase
from cryptocore.keys import KeyState
from cryptocore.records import KeyRecord, check_successor
from cryptocore.revocations import Heard, Revocations
from cryptocore.spool.entries import Form
from cryptocore.stats import Counts
from cryptocore.store.key_store import KeyVersion

MAX_FORMS: Final = 256
"""Prepared events an entry keeps: one for each operation, actor and purpose lately seen."""


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """How long what is remembered may be used.

    Attributes:
        dek_max_age_s: an unwrapped DEK, before the vault is asked again.
        dek_max_uses: uses of an unwrapped DEK, likewise.
        dek_max_entries: key versions remembered.
        state_recheck_s: before the store is asked again whether the version may still be used.
        state_max_age_s: without an answer from the store, use ends: the guaranteed revocation window.
        store_wait_s: for an answer of the store about a key version; a server that hangs keeps nobody waiting longer.
        failure_s: a failure is remembered this long, so that callers do not storm a store or vault that is down.
        vault_outage_grace_s: past its age, a DEK may live this long while the vault is unreachable (not: denies).
    """

    dek_max_age_s: float = 300
    dek_max_uses: int = 10_000
    dek_max_entries: int = 1_000
    state_recheck_s: float = 15
    state_max_age_s: float = 60
    store_wait_s: float = 20
    failure_s: float = 1
    vault_outage_grace_s: float = 1_800


class Entry:
    """One key version, its DEK when it was unwrapped, and the events that its uses leave, prepared."""

    __slots__ = ("checked_at", "dek", "dek_at", "forms", "key", "owner", "uses", "version")

    def __init__(self, version: KeyVersion, checked_at: float) -> None:
        self.dek: Dek | None = None
        self.dek_at = 0.0
        self.uses = 0
        self.checked_at = checked_at
        self._take(version)

    def _take(self, version: KeyVersion) -> None:
        self.version = version
        self.key = key_ref(version)
        self.owner: OwnerRef = version.owner.ref()
        self.forms: dict[tuple[Operation, str, str], Form] = {}

    def refresh(self, version: KeyVersion, checked_at: float) -> None:
        """Take what the store says now; the DEK of a version never changes.

        Raises:
            RecordInvalid: nothing leads there from the revision before.
        """
        known = self.version
        if version.record.revision == known.record.revision + 1:
            check_successor(known.record, known.signed.record, version.record)
        if version.record.revision != self.version.record.revision:
            self._take(version)
        self.checked_at = checked_at

    def form(self, operation: Operation, actor: str, purpose: str, emitter: Emitter) -> Form:
        """Prepare, or find prepared, the event of a use that succeeded.

        Raises:
            EventInvalid: actor or purpose are not of the format's form.
        """
        name = (operation, actor, purpose)
        form = self.forms.get(name)
        if form is None:
            form = emitter.form(
                AuditEvent(
                    id="00000000-0000-0000-0000-000000000000",
                    phase=Phase.SINGLE,
                    operation=operation,
                    outcome=Outcome.SUCCEEDED,
                    occurred_at="1970-01-01T00:00:00.000000Z",
                    service=emitter.service,
                    key=self.key,
                    owner=self.owner,
                    actor=actor,
                    purpose=purpose,
                    host=emitter.host,
                ),
            )
            if len(self.forms) >= MAX_FORMS:
                self.forms.clear()
            self.forms[name] = form
        return form


class KeyCache:
    """Entries by key version and, for encryption, by owner; the least recently used ones go first."""

    def __init__(
        self, limits: CacheLimits, revocations: Revocations | None = None, counts: Counts | None = None
    ) -> None:
        self.limits = limits
        self.counts = counts or Counts()
        self._revocations = revocations
        self._announced: OrderedDict[tuple[bytes, int], int] = OrderedDict()
        self._entries: OrderedDict[tuple[bytes, int], Entry] = OrderedDict()
        self._newest: dict[bytes, Entry] = {}
        self._seen: OrderedDict[tuple[bytes, int], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key_id: bytes, number: int) -> Entry | None:
        """Find what is remembered of a key version."""
        return self._entries.get((key_id, number))

    def newest(self, owner: Owner) -> Entry | None:
        """Find the version that lately encrypted for an owner."""
        return self._newest.get(owner.encode())

    def put(self, version: KeyVersion, now: float, *, newest: bool = False) -> Entry:
        """Remember a version as the store says it is now.

        Raises:
            KeyRecordRollback: this process has seen a later revision.
        """
        name = (version.key_id, version.number)
        self.saw(version)
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = Entry(version, now)
            if len(self._entries) > self.limits.dek_max_entries:
                self._evict()
        else:
            entry.refresh(version, now)
            self._entries.move_to_end(name)
            if entry.dek is not None and version.record.state is not KeyState.ACTIVE:
                entry.dek = None
                self._note(version.record, Heard.STORE)
        if newest:
            self._newest[version.owner.encode()] = entry
        return entry

    def saw(self, version: KeyVersion) -> None:
        """Remember the revision.

        Raises:
            KeyRecordRollback: a later one was seen.
        """
        name = (version.key_id, version.number)
        if self.is_behind(version):
            raise KeyRecordRollback("the store shows an older revision than this process has seen")
        self._seen[name] = version.record.revision
        self._seen.move_to_end(name)
        if len(self._seen) > _SEEN_PER_ENTRY * self.limits.dek_max_entries:
            self._seen.popitem(last=False)

    def is_behind(self, version: KeyVersion) -> bool:
        """Say whether a later revision was seen."""
        name = (version.key_id, version.number)
        return version.record.revision < max(self._seen.get(name, 0), self._announced.get(name, 0))

    def restrict(self, record: KeyRecord, heard: Heard, now: float) -> None:
        """Take a verified record as news: it ends a use, or has the store asked again; it never permits one."""
        name = (record.key_id, record.key_version)
        if self._announced.get(name, 0) < record.revision:
            self._announced[name] = record.revision  # a read of the store that is under way may still show less
            self._announced.move_to_end(name)
            if len(self._announced) > _ANNOUNCED:
                self._announced.popitem(last=False)
        entry = self._entries.get(name)
        if entry is None or entry.version.record.revision >= record.revision:
            return
        if record.state is KeyState.ACTIVE:
            self._stale(entry, now)
            return
        had_dek = entry.dek is not None
        self._drop(name)
        if had_dek:
            self._note(record, heard)

    def recheck(self, now: float) -> None:
        """Have the store asked again about everything."""
        for entry in self._entries.values():
            self._stale(entry, now)

    def _stale(self, entry: Entry, now: float) -> None:
        entry.checked_at = min(entry.checked_at, now - self.limits.state_recheck_s)

    def _note(self, record: KeyRecord, heard: Heard) -> None:
        if self._revocations is not None:
            self._revocations.dropped(record, heard)

    def forget(self, key_id: bytes) -> None:
        """Drop what is remembered of all versions of a key, DEKs first of all."""
        for name in [name for name in self._entries if name[0] == key_id]:
            self._drop(name)

    def forget_newest(self, owner: Owner) -> None:
        """Ask the store again which version encrypts for an owner."""
        self._newest.pop(owner.encode(), None)

    def clear(self) -> None:
        """Drop everything but the revisions seen."""
        self._entries.clear()
        self._newest.clear()

    def _evict(self) -> None:
        self._drop(next(iter(self._entries)))
        self.counts.cache_evictions += 1

    def _drop(self, name: tuple[bytes, int]) -> None:
        entry = self._entries.pop(name)
        entry.dek = None
        owner = entry.version.owner.encode()
        if self._newest.get(owner) is entry:
            del self._newest[owner]


_ANNOUNCED: Final = 4_096
"""Revisions heard of lately, for reads of the store that began before."""
_SEEN_PER_ENTRY: Final = 32
"""Revisions are small: many more of them are remembered than entries."""


def key_ref(version: KeyVersion) -> KeyRef:
    """Name a key version in an event."""
    record = version.record
    return KeyRef(
        id=record.key_id.hex(),
        version=record.key_version,
        revision=record.revision,
        kind="dek",
        state=record.state,
    )
