"""Rotations and their dates: the old version is to be retired and its wrapped DEK overwritten; late is a finding.

A rotation is opened by the event of the revision that superseded the old version, and ends with the event of its
destruction. Dates are of event time: 30 days, 7 after a suspected compromise. How many rows are left, and so who holds
it up, only the key store knows.
"""

from heapq import heapify, heappop, heappush
from typing import Final

from msgspec import Struct

from alerts.model import Evidence, Finding
from alerts.system import system_finding
from alerts.thresholds import DAY_MS, Limits
from cryptocore.clock import rfc3339_ms
from cryptocore.events import Operation, Reason
from cryptocore.keys import KeyState
from streams.findings import FindingBook
from streams.messages import Effects
from streams.state import Kind, State
from streams.trail.key_case import Case
from streams.trail.key_history import VersionHistory

FINDING: Final = "rotation_unfinished"
AGAIN_MS: Final = DAY_MS
"""Said again once a day, so that the alert stays open and says how things are."""
MAX_OPEN: Final = 64
"""Rotations of one key that are followed, those due first; more are open only where nobody retires anything."""
_NAMED: Final = 8

_RETIRED: Final = frozenset({KeyState.REVOKED, KeyState.ARCHIVED})


class OpenRotation(Struct, array_like=True):
    """One old version on its way out; `event_id` opened it."""

    version: int
    due_ms: int
    reason: str
    event_id: str
    opened_ms: int
    retired: bool = False


class Rotations(Struct, array_like=True):
    """The open rotations of one key, by version, and when the next word about them is due."""

    tenant: str
    open: list[OpenRotation] = []
    next_ms: int = 0
    told: bool = False


class RotationWatch:
    """Follows the rotations of one partition's keys."""

    def __init__(self, limits: Limits, book: FindingBook) -> None:
        self._limits = limits
        self._book = book
        self._due: list[tuple[int, bytes]] = []

    def restore(self, state: State) -> None:
        """Rebuild what is derived from the state."""
        self._due = []
        for ident in state.idents(Kind.ROTATION):
            known = state.get(Kind.ROTATION, ident, Rotations)
            if known is not None:
                self._due.append((known.next_ms, ident))
        heapify(self._due)

    def follow(self, case: Case, version: VersionHistory) -> None:
        """Take an act of the life cycle that has its place in the version's history.

        1. The version is gone: so is its rotation.
        2. It was superseded, or made superseded: a rotation begins.
        3. It is retired: half of the way.
        """
        state, ident = case.batch.state, bytes.fromhex(case.key_id)
        known = state.get(Kind.ROTATION, ident, Rotations)
        # 1
        if version.state == KeyState.DESTROYED:
            if known is not None:
                self._end(case, known, ident, version.version)
            return
        # 2
        if _supersedes(case):
            known = known or Rotations(case.history.tenant)
            self._open(case, known, version.version)
        if known is None:
            return
        # 3
        for rotation in known.open:
            if rotation.version == version.version:
                rotation.retired = rotation.retired or version.state in _RETIRED
        self._schedule(known, ident)
        state.put(Kind.ROTATION, ident, known)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Tell of rotations past their date, and once a day of those that still are."""
        while self._due and self._due[0][0] <= now_ms:
            next_ms, ident = heappop(self._due)
            known = state.get(Kind.ROTATION, ident, Rotations)
            if known is None or known.next_ms != next_ms:
                continue  # ended, or another date came in between and is in the heap as well
            known.told, known.next_ms = True, next_ms + AGAIN_MS
            heappush(self._due, (known.next_ms, ident))
            state.put(Kind.ROTATION, ident, known)
            self._book.report(_finding(ident.hex(), known, next_ms), now_ms, state, effects)

    def _open(self, case: Case, known: Rotations, version: int) -> None:
        reason = case.event.reason
        limits, hurried = self._limits, reason is Reason.COMPROMISE_SUSPECTED
        due_ms = case.effective_ms + (limits.rotation_after_compromise_ms if hurried else limits.rotation_ms)
        if any(rotation.version == version for rotation in known.open):
            return
        opened = OpenRotation(version, due_ms, str(reason or ""), case.event.id, case.effective_ms)
        first = sorted([*known.open, opened], key=lambda rotation: (rotation.due_ms, rotation.version))[:MAX_OPEN]
        known.open = sorted(first, key=lambda rotation: rotation.version)

    def _schedule(self, known: Rotations, ident: bytes) -> None:
        """Be there at the first date; when it is past and told, the daily word goes on."""
        first_ms = min(rotation.due_ms for rotation in known.open)
        if not known.told and known.next_ms != first_ms:
            known.next_ms = first_ms
            heappush(self._due, (first_ms, ident))

    def _end(self, case: Case, known: Rotations, ident: bytes, version: int) -> None:
        batch = case.batch
        left = [rotation for rotation in known.open if rotation.version != version]
        if len(left) == len(known.open):
            return
        told_ms = known.next_ms - AGAIN_MS
        if known.told and not any(rotation.due_ms <= told_ms for rotation in left):
            told = _finding(case.key_id, known, told_ms)
            why = f"version {version} of key {case.key_id} was destroyed; no rotation of this key is late any more"
            self._book.retract(told, why, batch.now_ms, batch.state, batch.effects)
            known.told = False
        known.open = left
        if not left:
            batch.state.forget(Kind.ROTATION, ident)
            return
        self._schedule(known, ident)
        batch.state.put(Kind.ROTATION, ident, known)


def _supersedes(case: Case) -> bool:
    """Say whether this event opens a rotation: `rotate` of a revision, or a version that never encrypts (import)."""
    operation, key = case.event.operation, case.event.key
    born_old = operation is Operation.CREATE and key is not None and key.state is KeyState.ACTIVE
    return operation is Operation.ROTATE or born_old


def _finding(key_id: str, known: Rotations, at_ms: int) -> Finding:
    """Say which old versions of a key are late at this time, the one due first in front."""
    late = sorted(
        (rotation for rotation in known.open if rotation.due_ms <= at_ms),
        key=lambda rotation: (rotation.due_ms, rotation.version),
    )
    first = late[0] if late else known.open[0]
    missing = "is retired, and its wrapped DEK is not overwritten" if first.retired else "is not retired"
    more = f", and {len(late) - 1} more versions" if len(late) > 1 else ""
    why = f" ({first.reason})" if first.reason else ""
    return system_finding(
        FINDING,
        summary=f"key {key_id}: version {first.version}, superseded {rfc3339_ms(first.opened_ms)}{why}, "
        f"was due {rfc3339_ms(first.due_ms)} and {missing}{more}",
        effective_ms=at_ms,
        tenant=known.tenant,
        key=key_id,
        evidence=tuple(Evidence("event", rotation.event_id, rotation.opened_ms) for rotation in late[:_NAMED]),
        facts={
            "versions": ", ".join(str(rotation.version) for rotation in late[:_NAMED]),
            "late": str(len(late)),
            "due": rfc3339_ms(first.due_ms),
        },
    )
