"""Hits that may be taken back: what the join reported before the explanation came.

A finding's count only grows, and so does the number of its hits that were explained after all; triage subtracts. So a
message that comes twice, or before another, changes nothing.
"""

import msgspec

from alerts import grouping
from alerts.model import Finding, FindingResolved
from streams.findings import FindingBook, OpenFinding
from streams.joining.joinstate import Retracted
from streams.messages import FINDINGS, Effects
from streams.state import Kind, State

Hit = tuple[str, str]
"""Fingerprint and finding id, both hex."""

_encode = msgspec.json.Encoder().encode


class StandingFindings:
    """The findings of one partition, with a way back."""

    def __init__(self, partition: int = 0) -> None:
        self._book = FindingBook(partition)

    def restore(self, state: State) -> None:
        self._book.restore(state)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        self._book.tick(now_ms, state, effects)

    def report(self, finding: Finding, now_ms: int, state: State, effects: Effects) -> Hit:
        """Count one hit; keep what is returned for `retract`."""
        self._book.report(finding, now_ms, state, effects)
        fingerprint = grouping.fingerprint(finding)
        known = state.get(Kind.FINGERPRINT, fingerprint, OpenFinding)
        return fingerprint.hex(), "" if known is None else known.finding_id

    def retract(self, hit: Hit, explanation: str, now_ms: int, state: State, effects: Effects) -> None:
        """Take one hit back; nothing to do where its finding was quiet for so long that it is closed."""
        fingerprint, finding_id = hit
        ident = bytes.fromhex(fingerprint)
        known = state.get(Kind.FINGERPRINT, ident, OpenFinding)
        if known is None or known.finding_id != finding_id:
            return
        before = state.get(Kind.METER, ident, Retracted)
        retracted = 1 if before is None or before.finding_id != finding_id else before.retracted + 1
        state.put(Kind.METER, ident, Retracted(finding_id=finding_id, retracted=retracted))
        message = FindingResolved(
            finding_id=finding_id,
            fingerprint=fingerprint,
            count=known.count,
            retracted=retracted,
            at_ms=now_ms,
            explanation=explanation,
        )
        effects.send(FINDINGS, ident, _encode(message))

    def end(self, finding: Finding, explanation: str, now_ms: int, state: State, effects: Effects) -> None:
        """Take all hits of a finding back; only for one whose hits are never taken back singly."""
        self._book.retract(finding, explanation, now_ms, state, effects)

    @staticmethod
    def prune(state: State) -> None:
        """Forget what was taken back from findings that are closed."""
        for ident in state.idents(Kind.METER):
            if state.get(Kind.FINGERPRINT, ident, OpenFinding) is None:
                state.forget(Kind.METER, ident)
