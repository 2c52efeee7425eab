"""One verified key event after another: its document, its claim on the vault's log, the key's history, the rules.

The life of a key version is told by sources that have a signer with the role `keys`; uses are held against it.
Nothing here raises for what a sender says: a contradiction is a finding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple, cast

from msgspec import Struct

from alerts import rules
from alerts.model import Evidence, Finding, KeyUse, KeyView, RecentUse
from alerts.rules import revoked_key_decrypt
from alerts.system import system_finding
from alerts.thresholds import MINUTE_MS, Limits
from cryptocore.clock import parse_rfc3339
from cryptocore.event_rules import administers_kek
from cryptocore.events import AuditEvent, KeyRef, Operation, Outcome, OwnerRef, Reason
from cryptocore.keys import KeyState
from cryptocore.vocabulary import LIFE_CYCLE, TOKEN_ACTS, VAULT_CALLS
from streams import correlate
from streams.findings import FindingBook
from streams.key_history import (
    KeyHistory,
    LifeCycle,
    Recent,
    VersionHistory,
    unpack_use,
    view_of,
)
from streams.messages import CORRELATE, Effects
from streams.state import Kind, State

MISSING_MS: Final = 10 * MINUTE_MS
"""A life-cycle event is waited for this long: its outbox relay may be slower than the uses that follow it."""
MAX_WATCHED: Final = 4_096
"""Keys whose missing life-cycle events are watched by the clock; others are looked at when they are next used."""

# Bound once: reading an enum's member costs more than half of a dictionary's look-up.
_KEY: Final = Kind.KEY
_SUCCEEDED: Final = Outcome.SUCCEEDED
_REVOKE: Final = Operation.REVOKE
_recent = cast("Callable[[list[bytes]], list[RecentUse]]", Recent)  # a sequence of RecentUse all the same

_WITHOUT_KEY: Final = b"without key/"
_WATCH: Final = b"watch"
_KEY_ACTS: Final = LIFE_CYCLE - TOKEN_ACTS
_ENDS: Final = frozenset({KeyState.REVOKED, KeyState.DESTROYED})
_AFTER: Final[dict[Operation, KeyState]] = {
    Operation.ACTIVATE: KeyState.ACTIVE,
    Operation.SUSPEND: KeyState.SUSPENDED,
    Operation.RESUME: KeyState.ACTIVE,
    Operation.REVOKE: KeyState.REVOKED,
    Operation.ARCHIVE: KeyState.ARCHIVED,
    Operation.DESTROY: KeyState.DESTROYED,
}
_RECORD_TROUBLE: Final = {
    Reason.RECORD_INVALID: "key_record_invalid",
    Reason.RECORD_ROLLBACK: "key_state_regression",
}


class Watch(Struct, array_like=True):
    """Keys with missing life-cycle events, by id in hex, and when the patience with them ends (append time)."""

    due: dict[str, int] = {}


@dataclass(slots=True, kw_only=True)
class Batch:
    """What all events of one applied batch share. Within [earliest_ms, latest_ms] the sender's clock is believed."""

    source: str
    instance: str
    append_ms: int
    now_ms: int
    earliest_ms: int
    latest_ms: int
    suspect: bool
    changes_keys: bool
    state: State
    effects: Effects
    clock_untrusted: str = ""


class Case(NamedTuple):
    """An event beside what is known of its key."""

    event: AuditEvent
    key_id: str
    history: KeyHistory
    effective_ms: int
    batch: Batch


class KeyTrail:
    """Takes the key events of one partition."""

    def __init__(self, limits: Limits, book: FindingBook) -> None:
        self._limits = limits
        self._book = book
        self._lag_ms = limits.state_max_age_ms + limits.join_slack_ms  # a cache's age, and two clocks
        self._due: dict[str, int] | None = None

    def restore(self, state: State) -> None:
        """Read which keys are watched."""
        watch = state.get(Kind.METER, _WATCH, Watch)
        self._due = dict(watch.due) if watch else {}

    def take(self, event: AuditEvent, raw: bytes, batch: Batch) -> bool:
        """Take one event, except for its document.

        1. When it happened, as far as its sender's clock is believed.
        2. A call of the vault claims its record there; so does an act on a KEK, of a source that may change keys.
        3. An intent has not ended yet: nothing more.
        4. An act of the life cycle changes the key's history; one that is held already is dropped. An act on a KEK
           changes none.
        5. Any other act is held against that history, given to the rules, and remembered.

        Returns:
            Whether the event is new.
        """
        # 1
        effective_ms = occurred_ms = _ms_of(event.occurred_at)
        if not batch.earliest_ms <= occurred_ms <= batch.latest_ms:
            effective_ms = batch.append_ms
            if occurred_ms > batch.latest_ms and not batch.clock_untrusted:
                batch.clock_untrusted = f"an event is dated {occurred_ms - batch.latest_ms} ms after it was sealed"
        operation, outcome = event.operation, event.outcome
        # 2
        if event.kek is not None and (operation in VAULT_CALLS or (batch.changes_keys and administers_kek(event))):
            _claim(event, effective_ms, batch)
        # 3
        if outcome is None:
            return True
        # 4
        key = event.key
        if key is not None and operation in _KEY_ACTS and outcome is _SUCCEEDED:
            if key.kind == "kek":
                self._take_kek_act(event, key, effective_ms, batch)
                return True
            return self._take_life_cycle(event, key, raw, effective_ms, batch)
        # 5
        if key is None:
            self._take_without_key(event, outcome, effective_ms, batch)
        else:
            self._take_use(event, key, outcome, effective_ms, batch)
        return True

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Report life-cycle events that were waited for in vain."""
        if not self._due:
            return
        for key_id, due_ms in list(self._due.items()):
            if due_ms > now_ms:
                continue
            del self._due[key_id]
            ident = bytes.fromhex(key_id)
            history = state.get(_KEY, ident, KeyHistory)
            if history is not None:
                for version in history.versions:
                    self._report_overdue(key_id, history, version, now_ms, state, effects)
                waiting = [since for version in history.versions for since in version.waiting()]
                if waiting:
                    self._due[key_id] = min(waiting) + MISSING_MS
                state.put(_KEY, ident, history)
            self._put_watch(state)

    # Uses

    def _take_use(self, event: AuditEvent, key: KeyRef, outcome: Outcome, effective_ms: int, batch: Batch) -> None:
        """The hot path: nine of ten lines of a fleet come here."""
        state, key_id, owner = batch.state, key.id, event.owner
        ident = bytes.fromhex(key_id)
        history = state.get(_KEY, ident, KeyHistory)
        if history is None:
            history = KeyHistory()
        tenant = history.tenant if owner is None else owner.tenant_id or tenant_of(owner)
        if not history.tenant and outcome is _SUCCEEDED:
            history.tenant = tenant
        version = history.version(key.version or 0)
        revision = key.revision or 0
        if revision != version.revision and revision and not batch.suspect:
            self._check_revision(Case(event, key_id, history, effective_ms, batch), version, revision)
        decoy = key_id in self._limits.decoy_keys
        if event.reason is not None or not rules.is_ordinary(outcome, version.revoked_ms, decoy=decoy):
            use = KeyUse(
                event_id=event.id,
                operation=event.operation,
                outcome=outcome,
                reason=event.reason,
                effective_ms=effective_ms,
                service=event.service,
                actor=event.actor,
                purpose=event.purpose,
                tenant=tenant,
                key=view_of(key_id, version, decoy=decoy),
                key_revision=revision,
                recent=_recent(history.uses),
                failed=_recent(history.failures),
                suspect=batch.suspect,
            )
            self._judge(use, batch)
        if not batch.suspect:
            history.remember(event, outcome, effective_ms, self._limits)
        state.put(_KEY, ident, history)

    def _take_without_key(self, event: AuditEvent, outcome: Outcome, effective_ms: int, batch: Batch) -> None:
        """An act that names no key is remembered with its service."""
        ident, claimed = _WITHOUT_KEY + event.service.encode(), event.claimed_key_id
        history = batch.state.get(_KEY, ident, KeyHistory) or KeyHistory()
        use = KeyUse(
            event_id=event.id,
            operation=event.operation,
            outcome=outcome,
            reason=event.reason,
            effective_ms=effective_ms,
            service=event.service,
            actor=event.actor,
            purpose=event.purpose,
            tenant=tenant_of(event.owner),
            key=_decoy(claimed) if claimed in self._limits.decoy_keys else None,
            key_revision=0,
            failed=_recent(history.failures),
            suspect=batch.suspect,
        )
        self._judge(use, batch, claimed)
        if not batch.suspect:
            history.remember(event, outcome, effective_ms, self._limits)
            batch.state.put(_KEY, ident, history)

    def _judge(self, use: KeyUse, batch: Batch, claimed_key_id: str | None = None) -> None:
        for finding in rules.run(use, self._limits):
            self._report(finding, batch)
        trouble = _RECORD_TROUBLE.get(use.reason) if use.reason is not None else None  # type: ignore[call-overload]
        if trouble is not None:
            self._report(_record_trouble(trouble, use, claimed_key_id), batch)

    def _check_revision(self, case: Case, version: VersionHistory, revision: int) -> None:
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

    # The life cycle

    def _take_life_cycle(self, event: AuditEvent, key: KeyRef, raw: bytes, effective_ms: int, batch: Batch) -> bool:
        """Give a life-cycle event its place.

        1. Only a source that may change keys, and whose signer is not compromised, changes anything.
        2. The same event again is dropped; another one for a revision that is held is a regression.
        3. Revisions between are waited for.
        4. Nothing leads out of revoked, and nothing at all out of destroyed, but destruction.
        5. A revocation looks back over the uses that came before it.
        """
        state, ident = batch.state, bytes.fromhex(key.id)
        history = state.get(_KEY, ident, KeyHistory) or KeyHistory()
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
        state.put(_KEY, ident, history)
        return True

    def _take_kek_act(self, event: AuditEvent, key: KeyRef, effective_ms: int, batch: Batch) -> None:
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
        if event.operation is _REVOKE and (version.revoked_in is None or revision < version.revoked_in):
            version.revoked_ms, version.revoked_in = case.effective_ms, revision
            version.revocation_reason = None if event.reason is None else str(event.reason)
            self._look_back(case.key_id, history, version, batch)

    def _look_back(self, key_id: str, history: KeyHistory, version: VersionHistory, batch: Batch) -> None:
        recent = [use for use in map(unpack_use, history.uses) if use.version == version.version]
        for finding in rules.look_back(view_of(key_id, version), history.tenant, recent, self._limits):
            self._report(finding, batch)

    # Findings and the watch

    def _report_regression(self, case: Case, summary: str) -> None:
        self._report(_key_finding("key_state_regression", case, f"key {case.key_id}: {summary}"), case.batch)

    def _report_unauthorised(self, case: Case) -> None:
        event = case.event
        summary = f"{event.service} tells of {event.operation} of key {case.key_id} and may not change keys"
        self._report(_key_finding("key_record_invalid", case, summary), case.batch)

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


def tenant_of(owner: OwnerRef | None) -> str:
    """The owner as fingerprints know it."""
    if owner is None:
        return ""
    return owner.tenant_id or f"secret:{owner.secret_name}"


def _claim(event: AuditEvent, effective_ms: int, batch: Batch) -> None:
    """Tell the join that this call should be in the vault's log."""
    kek = event.kek
    if kek is None:
        return
    claim = correlate.Claim(
        v=1,
        event_id=event.id,
        intent_id=event.intent_id,
        phase=event.phase,
        source=batch.source,
        instance=batch.instance,
        vault=kek.vault,
        name=kek.name,
        version=kek.version,
        operation=event.operation,
        outcome=event.outcome,
        reason=event.reason,
        call_ids=event.call_ids,
        attempts=event.vault_attempts,
        effective_ms=effective_ms,
        append_ms=batch.append_ms,
        key=event.key,
        owner=event.owner,
        actor=event.actor,
        purpose=event.purpose,
        suspect=batch.suspect,
    )
    batch.effects.send(CORRELATE, correlate.partition_key(kek.vault, kek.name), correlate.encode(claim))


def _key_finding(finding: str, case: Case, summary: str) -> Finding:
    event = case.event
    return system_finding(
        finding,
        summary=summary,
        effective_ms=case.effective_ms,
        tenant=case.history.tenant,
        key=case.key_id,
        who=f"{event.actor} through {event.service}",
        evidence=(Evidence("event", event.id, case.effective_ms),),
    )


def _record_trouble(finding: str, use: KeyUse, claimed_key_id: str | None) -> Finding:
    """A service met a key record that it could not accept; the key may be known from the envelope alone."""
    what = "whose signature or content does not hold" if finding == "key_record_invalid" else "older than one it knew"
    key_id = use.key.id if use.key is not None else claimed_key_id or ""
    return system_finding(
        finding,
        summary=f"{use.service} met a record of key {key_id or '(unknown)'} {what}",
        effective_ms=use.effective_ms,
        tenant=use.tenant,
        key=key_id,
        who=f"{use.actor} through {use.service}, purpose {use.purpose}",
        evidence=(Evidence("event", use.event_id, use.effective_ms),),
        facts={"operation": str(use.operation), "service": use.service},
    )


def _decoy(key_id: str) -> KeyView:
    """A decoy that a ciphertext claims to be under, in a service that does not know it."""
    return KeyView(id=key_id, version=0, state=None, revision=0, decoy=True)


_REMEMBERED: Final = 4_096
_seconds: dict[str, int] = {}


def _ms_of(text: str) -> int:
    """Milliseconds of a time in the format's form; the events of a batch share their seconds."""
    second = text[:19]
    base = _seconds.get(second)
    if base is None:
        if len(_seconds) >= _REMEMBERED:
            _seconds.clear()
        base = _seconds[second] = parse_rfc3339(f"{second}.000000Z") // 1000
    return base + int(text[20:23])
