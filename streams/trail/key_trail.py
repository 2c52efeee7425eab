"""One verified key event after another: its document, its claim on the vault's log, the key's history, the rules.

The life of a key version is told by sources that have a signer with the role `keys` (key_life); uses are held
against it here.
Nothing here raises for what a sender says: a contradiction is a finding.
"""

from collections.abc import Callable
from typing import Final, cast

from alerts import rules
from alerts.model import Evidence, Finding, KeyUse, KeyView, RecentUse
from alerts.system import system_finding
from alerts.thresholds import Limits
from cryptocore.clock import parse_rfc3339
from cryptocore.events import AuditEvent, KeyRef, Outcome, Reason
from cryptocore.lines.rules import administers_kek
from cryptocore.lines.vocabulary import LIFE_CYCLE, TOKEN_ACTS, VAULT_CALLS
from streams.findings import FindingBook
from streams.joining import correlate
from streams.messages import CORRELATE, Effects
from streams.state import Kind, State
from streams.trail.key_case import Batch, Case, tenant_of
from streams.trail.key_history import KeyHistory, Recent, view_of
from streams.trail.key_life import KeyLife

# Bound once: reading an enum's member costs more than half of a dictionary's look-up.
_KEY: Final = Kind.KEY
_SUCCEEDED: Final = Outcome.SUCCEEDED
_recent = cast("Callable[[list[bytes]], list[RecentUse]]", Recent)  # a sequence of RecentUse all the same

_WITHOUT_KEY: Final = b"without key/"
_KEY_ACTS: Final = LIFE_CYCLE - TOKEN_ACTS
_RECORD_TROUBLE: Final = {
    Reason.RECORD_INVALID: "key_record_invalid",
    Reason.RECORD_ROLLBACK: "key_state_regression",
}


class KeyTrail:
    """Takes the key events of one partition."""

    def __init__(self, limits: Limits, book: FindingBook) -> None:
        self._limits = limits
        self._book = book
        self._life = KeyLife(limits, book)

    def restore(self, state: State) -> None:
        """Read which keys are watched."""
        self._life.restore(state)

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
                self._life.take_kek_act(event, key, effective_ms, batch)
                return True
            return self._life.take(event, key, raw, effective_ms, batch)
        # 5
        if key is None:
            self._take_without_key(event, outcome, effective_ms, batch)
        else:
            self._take_use(event, key, outcome, effective_ms, batch)
        return True

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Report what of the life cycle was waited for in vain."""
        self._life.tick(now_ms, state, effects)

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
            self._life.check_revision(Case(event, key_id, history, effective_ms, batch), version, revision)
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

    def _report(self, finding: Finding, batch: Batch) -> None:
        self._book.report(finding, batch.now_ms, batch.state, batch.effects)


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
