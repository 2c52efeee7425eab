"""The life cycle of keys, as sources with the role `keys` tell it: revisions in their places, and those that miss.

A contradiction is a finding. What of the life cycle has a date is rotation_watch's.
"""

from hashlib import sha256
from typing import Final, cast

from msgspec import Struct

from alerts import rules
from alerts.model import Finding
from alerts.rules import revoked_key_decrypt
from alerts.system import system_finding
from alerts.thresholds import MINUTE_MS, Limits
from cryptocore.events import AuditEvent, KeyRef, Operation, Outcome
from cryptocore.keys import KeyState
from streams.findings import FindingBook
from streams.messages import Effects
from streams.state import Kind, State
from streams.trail.key_case import Batch, Case, key_finding, tenant_of
from streams.trail.key_history import KeyHistory, LifeCycle, VersionHistory, unpack_use, view_of
from streams.trail.rotation_watch import RotationWatch

MISSING_MS: Final = 10 * MINUTE_MS
"""A life-cycle event is waited for this long: its outbox relay may be slower than the uses that follow it."""
MAX_WATCHED: Final = 4_096
"""Keys whose missing life-cycle events are watched by the clock; others are looked at when they are next used."""

_WATCH: Final = b"watch"
_ENDS: Final = frozenset({KeyState.REVOKED, KeyState.DESTROYED})
_AFTER: Final[dict[Operation, KeyState]] = {
    Operation.ACTIVATE: KeyState.ACTIVE,
    Operation.SUSPEND: KeyState.SUSPENDED,
    Operation.RESUME: KeyState.ACTIVE,
    Operation.REVOKE: KeyState.REVOKED,
    Operation.ARCHIVE: KeyState.ARCHIVED,
    Operation.DESTROY: KeyState.DESTROYED,
}


class Watch(Struct, array_like=True):
    """Keys with missing life-cycle events, by id in hex, and when the patience with them ends (append time)."""

    due: dict[str, int] = {}


class KeyLife:
    """Follows the life cycle of the keys of one partition."""

    def __init__(self, limits: Limits, book: FindingBook) -> None:
        self._limits = limits
        self._book = book
        self._rotations = RotationWatch(limits, book)
        self._lag_ms = limits.state_max_age_ms + limits.join_slack_ms  # a cache's age, and two clocks
        self._due: dict[str, int] | None = None

    def restore(self, state: State) -> None:
        """Read which keys are watched."""
        watch = state.get(Kind.METER, _WATCH, Watch)
        self._due = dict(watch.due) if watch else {}
        self._rotations.restore(state)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Report life-cycle events that were waited for in vain, and rotations past their date."""
        self._rotations.tick(now_ms, state, effects)
        if not self._due:
            return
        for key_id, due_ms in list(self._due.items()):
            if due_ms > now_ms:
                continue
            del self._due[key_id]
            ident = bytes.fromhex(key_id)
            history = state.get(Kind.KEY, ident, KeyHistory)
            if history is not None:
                for version in history.versions:
                    self._report_overdue(key_id, history, version, now_ms, state, effects)
                waiting = [since for version in history.versions for since in version.waiting()]
                if waiting:
                    self._due[key_id] = min(waiting) + MISSING_MS
                state.put(Kind.KEY, ident, history)
            self._put_watch(state)

    # Acts

    def take(self, event: AuditEvent, key: KeyRef, raw: bytes, effective_ms: int, batch: Batch) -> bool:
        """Give a life-cycle event its place.

        1. Only a source that may change keys, and whose signer is not compromised, changes anything.
        2. The same event again is dropped; another one for a revision that is held is a regression.
        3. Revisions between are waited for.
        4. Nothing leads out of revoked, and nothing at all out of destroyed, but destruction.
        5. A revocation looks back over the uses that came before it.
        6. A rotation is followed to its end.
        """
        state, ident = batch.state, bytes.fromhex(key.id)
        history = state.get(Kind.KEY, ident, KeyHistory) or KeyHistory()
        case = Case(event, key.id, history, effective_ms, batch)
        # 1
        if batch.suspect:
            return True
        if not batch.changes_keys:
            self._report_unauthorised(case)
            return True
        if not key.version or not key.revision:
            return True
        if not history.tenant:
            history.tenant = tenant_of(event.owner)
        version = history.version(key.version, told=True)
        digest = sha256(raw).digest()
        place = version.judge(key.revision, digest)
        # 2
        if place is LifeCycle.REPEATED:
            return False
        if place is LifeCycle.REGRESSION:
            self._report_regression(
                case,
                f"another {event.operation} for revision {key.revision} of version {key.version}, "
                f"of which revision {version.revision} is known",
            )
            return True
        self._change(case, key, version, digest, place)
        state.put(Kind.KEY, ident, history)
        return True

    def take_kek_act(self, event: AuditEvent, key: KeyRef, effective_ms: int, batch: Batch) -> None:
        """A KEK has no key record and so no revisions: what was done to it is the vault's to say, and the join's."""
        if not batch.changes_keys and not batch.suspect:
            self._report_unauthorised(Case(event, key.id, KeyHistory(), effective_ms, batch))

    def _change(self, case: Case, key: KeyRef, version: VersionHistory, digest: bytes, place: LifeCycle) -> None:
        event, history, batch = case.event, case.history, case.batch
        revision = key.revision or 0
        # 3
        history.count(event.operation, Outcome.SUCCEEDED)
        version.note(revision, digest, batch.append_ms)
        if version.skipped or version.ahead_ms:
            self._watch(case.key_id, batch.append_ms + MISSING_MS, batch.state)
        # 4
        if place is LifeCycle.TAKEN:
            after = _AFTER.get(event.operation) or key.state or version.state
            if version.state in _ENDS and after not in (version.state, KeyState.DESTROYED):
                self._report_regression(
                    case, f"version {version.version} went from {version.state} to {after} by {event.operation}"
                )
            version.state, version.changed_ms = None if after is None else str(after), case.effective_ms
        # 5
        if event.operation is Operation.REVOKE:
            batch.effects.revocations += 1
            if version.revoked_in is None or revision < version.revoked_in:
                version.revoked_ms, version.revoked_in = case.effective_ms, revision
                version.revocation_reason = None if event.reason is None else str(event.reason)
                self._look_back(case.key_id, history, version, batch)
        # 6
        self._rotations.follow(case, version)

    def _look_back(self, key_id: str, history: KeyHistory, version: VersionHistory, batch: Batch) -> None:
        recent = [use for use in map(unpack_use, history.uses) if use.version == version.version]
        for finding in rules.look_back(view_of(key_id, version), history.tenant, recent, self._limits):
            self._report(finding, batch)

    def check_revision(self, case: Case, version: VersionHistory, revision: int) -> None:
        """Hold the revision that a use names against the life-cycle events; without any there is nothing to say."""
        version.used = max(version.used, revision)
        if not version.revision:
            return
        batch = case.batch
        if revision < version.revision:
            behind_ms = case.effective_ms - version.changed_ms
            told = revision < (version.revoked_in or 0) and case.event.operation in revoked_key_decrypt.READS
            if behind_ms > self._lag_ms and not told:
                self._report_regression(
                    case,
                    f"used at revision {revision} of version {version.version} although revision {version.revision} "
                    f"is known since {behind_ms // 1000} s",
                )
        elif not version.ahead_ms:
            version.ahead_ms = batch.append_ms
            self._watch(case.key_id, batch.append_ms + MISSING_MS, batch.state)
        else:
            now_ms = batch.append_ms
            self._report_overdue(case.key_id, case.history, version, now_ms, batch.state, batch.effects)

    # Findings and the watch

    def _report_regression(self, case: Case, summary: str) -> None:
        self._report(key_finding("key_state_regression", case, f"key {case.key_id}: {summary}"), case.batch)

    def _report_unauthorised(self, case: Case) -> None:
        event = case.event
        summary = f"{event.service} tells of {event.operation} of key {case.key_id} and may not change keys"
        self._report(key_finding("key_record_invalid", case, summary), case.batch)

    def _report(self, finding: Finding, batch: Batch) -> None:
        self._book.report(finding, batch.now_ms, batch.state, batch.effects)

    def _report_overdue(  # noqa: PLR0917 - from the clock and from a use alike
        self, key_id: str, history: KeyHistory, version: VersionHistory, now_ms: int, state: State, effects: Effects
    ) -> None:
        for text in version.overdue(now_ms, MISSING_MS):
            finding = system_finding(
                "key_state_regression",
                summary=f"key {key_id}: {text}",
                effective_ms=now_ms,
                tenant=history.tenant,
                key=key_id,
            )
            self._book.report(finding, now_ms, state, effects)

    def _watch(self, key_id: str, due_ms: int, state: State) -> None:
        if self._due is None:
            self.restore(state)
        due = cast("dict[str, int]", self._due)
        if key_id not in due and len(due) < MAX_WATCHED:
            due[key_id] = due_ms
            self._put_watch(state)

    def _put_watch(self, state: State) -> None:
        state.put(Kind.METER, _WATCH, Watch(dict(sorted((self._due or {}).items()))))
