"""From hits to messages for triage: one fingerprint is opened once, then repeated at most once a minute with its count.

Whoever reports keeps the book in the state of its own partition. What a person does with the alert (acknowledge,
silence, resolve) is triage's and never comes back here.
"""

from heapq import heapify, heappop, heappush
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from alerts import grouping
from alerts.model import Evidence, Finding, FindingMessage, FindingResolved
from alerts.rules import canary
from streams.messages import FINDINGS, Effects
from streams.state import Kind, State

REPEAT_MS: Final = 60_000
"""At most one message a minute and fingerprint (design: findings)."""
REMEMBER_MS: Final = 7 * 24 * 3_600_000
"""An alert closes seven days after its last hit; a later one opens a new finding."""
MAX_EVIDENCE: Final = 16
"""Documents one message names: the newest ones since the last message."""
OF_MANY_PARTITIONS: Final = frozenset({"audit_coverage", "document_refused", "pending_source"})
"""Their fingerprint names no key and no KEK: several partitions may count one of them, from the same millisecond on."""

_encode = msgspec.json.Encoder().encode


class OpenFinding(Struct, kw_only=True, omit_defaults=True):
    """What the book remembers of one fingerprint; `finding` is the worst hit so far, among equals the last."""

    finding_id: str
    opened_ms: int
    count: int
    sent_count: int
    sent_ms: int
    hit_ms: int
    first_ms: int
    last_ms: int
    finding: Finding
    evidence: list[Evidence] = []
    retracted: int = 0


class FindingBook:
    """The fingerprints that one partition has reported.

    Args:
        partition: its number; goes into the ids of what several partitions tell of one cause.
    """

    def __init__(self, partition: int = 0) -> None:
        self._partition = partition
        self._waiting: dict[bytes, None] = {}  # have hits that no message has told yet
        self._expiry: list[tuple[int, bytes]] = []

    def restore(self, state: State) -> None:
        """Rebuild what is derived from the state."""
        self._waiting.clear()
        self._expiry = []
        for fingerprint in state.idents(Kind.FINGERPRINT):
            known = state.get(Kind.FINGERPRINT, fingerprint, OpenFinding)
            if known is None:
                continue
            self._expiry.append((known.hit_ms + REMEMBER_MS, fingerprint))
            if known.sent_count < known.count:
                self._waiting[fingerprint] = None
        heapify(self._expiry)

    def report(self, finding: Finding, now_ms: int, state: State, effects: Effects) -> None:
        """Count one hit: the first of its fingerprint, and one that is worse than what was told, is sent at once.

        So is every canary: it is a sign of life only while it is young.
        """
        fingerprint = grouping.fingerprint(finding)
        known = state.get(Kind.FINGERPRINT, fingerprint, OpenFinding)
        if known is None or now_ms - known.hit_ms >= REMEMBER_MS:
            known = _opened(fingerprint, finding, now_ms, self._partition)
            heappush(self._expiry, (now_ms + REMEMBER_MS, fingerprint))
            self._send(fingerprint, known, now_ms, effects)
        else:
            worse = finding.severity.rank > known.finding.severity.rank
            _count(known, finding, now_ms)
            if worse or finding.rule_id == canary.RULE.id or now_ms - known.sent_ms >= REPEAT_MS:
                self._send(fingerprint, known, now_ms, effects)
            else:
                self._waiting[fingerprint] = None
        state.put(Kind.FINGERPRINT, fingerprint, known)

    def retract(
        self,
        finding: Finding,
        explanation: str,
        now_ms: int,
        state: State,
        effects: Effects,
        *,
        hits: int | None = None,
    ) -> None:
        """Take hits back that were explained after all; when none is left, the next hit opens a new finding.

        Args:
            finding: any finding with the fingerprint.
            explanation: a sentence for the alert.
            now_ms: the step's time.
            state: of the partition that reported it.
            effects: where the message for triage goes.
            hits: how many; None for all.
        """
        fingerprint = grouping.fingerprint(finding)
        known = state.get(Kind.FINGERPRINT, fingerprint, OpenFinding)
        if known is None:
            return
        known.retracted = known.count if hits is None else min(known.retracted + hits, known.count)
        if known.sent_count < known.count:
            self._send(fingerprint, known, now_ms, effects)
        message = FindingResolved(
            finding_id=known.finding_id,
            fingerprint=fingerprint.hex(),
            count=known.count,
            retracted=known.retracted,
            at_ms=now_ms,
            explanation=explanation,
        )
        effects.send(FINDINGS, fingerprint, _encode(message))
        if known.retracted < known.count:
            state.put(Kind.FINGERPRINT, fingerprint, known)
        else:
            state.forget(Kind.FINGERPRINT, fingerprint)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Send the repeats that are due, and forget fingerprints that were quiet for a week."""
        for fingerprint in list(self._waiting):
            known = state.get(Kind.FINGERPRINT, fingerprint, OpenFinding)
            if known is not None and now_ms - known.sent_ms >= REPEAT_MS:
                self._send(fingerprint, known, now_ms, effects)
                state.put(Kind.FINGERPRINT, fingerprint, known)
        while self._expiry and self._expiry[0][0] <= now_ms:
            _, fingerprint = heappop(self._expiry)
            known = state.get(Kind.FINGERPRINT, fingerprint, OpenFinding)
            if known is None:
                continue
            if known.hit_ms + REMEMBER_MS > now_ms:
                heappush(self._expiry, (known.hit_ms + REMEMBER_MS, fingerprint))
            else:
                self._waiting.pop(fingerprint, None)
                state.forget(Kind.FINGERPRINT, fingerprint)

    def _send(self, fingerprint: bytes, known: OpenFinding, now_ms: int, effects: Effects) -> None:
        message = FindingMessage(
            finding_id=known.finding_id,
            fingerprint=fingerprint.hex(),
            opened_ms=known.opened_ms,
            count=known.count,
            first_ms=known.first_ms,
            last_ms=known.last_ms,
            finding=replace(known.finding, evidence=tuple(known.evidence)),
        )
        effects.send(FINDINGS, fingerprint, _encode(message))
        known.sent_count, known.sent_ms, known.evidence = known.count, now_ms, []
        self._waiting.pop(fingerprint, None)


def _opened(fingerprint: bytes, finding: Finding, now_ms: int, partition: int) -> OpenFinding:
    opened_ms = finding.effective_ms
    place = partition if finding.rule_id in OF_MANY_PARTITIONS else 0
    return OpenFinding(
        finding_id=grouping.finding_id(fingerprint, opened_ms, place),
        opened_ms=opened_ms,
        count=1,
        sent_count=0,
        sent_ms=now_ms,
        hit_ms=now_ms,
        first_ms=opened_ms,
        last_ms=opened_ms,
        finding=replace(finding, evidence=()),
        evidence=list(finding.evidence[-MAX_EVIDENCE:]),
    )


def _count(known: OpenFinding, finding: Finding, now_ms: int) -> None:
    """Add a hit; a milder one never hides that a worse one was seen."""
    known.count += 1
    known.hit_ms = max(known.hit_ms, now_ms)
    known.first_ms = min(known.first_ms, finding.effective_ms)
    known.last_ms = max(known.last_ms, finding.effective_ms)
    fresh = [proof for proof in finding.evidence if proof not in known.evidence]
    known.evidence = [*known.evidence, *fresh][-MAX_EVIDENCE:]
    if finding.severity.rank >= known.finding.severity.rank:
        known.finding = replace(finding, evidence=())
