"""What is said of an attempt that a service tells of and the vault's log does not show (join, step 4)."""

from typing import Final

from alerts.model import KekUse
from alerts.thresholds import Limits
from streams.index.documents import kek_use_document
from streams.joining import judgement
from streams.joining.attempts import Attempt
from streams.joining.joinstate import ClaimState
from streams.joining.matching import Matching
from streams.joining.matchrate import Tallies
from streams.joining.standing import StandingFindings
from streams.joining.use_judge import UseJudge
from streams.messages import Effects
from streams.state import Kind, State

KEY: Final = bytes((Kind.CLAIM,))


class ClaimJudge:
    """Judges the claims of one partition; `uses` knows which time is judged at all."""

    def __init__(
        self, *, matching: Matching, findings: StandingFindings, limits: Limits, uses: UseJudge, tallies: Tallies
    ) -> None:
        self._matching = matching
        self._tallies = tallies
        self._findings = findings
        self._limits = limits
        self._uses = uses

    def judge(self, ident: bytes, now_ms: int, state: State, effects: Effects) -> None:
        """Judge a claim whose records had time to come; what changes its word gives a new revision of its document."""
        known = state.get(Kind.CLAIM, ident, ClaimState)
        if known is None:
            return
        if now_ms - known.seen_ms >= self._limits.unlogged_first_look_ms:
            self._tally(ident, known, state)
        if now_ms - known.seen_ms < self._limits.unlogged_ms:
            return
        missing = self._uses.joined(known.claim.effective_ms) and self._missing(ident) is not None
        if missing is known.unlogged:
            return
        known.unlogged = missing
        known.revision += 1
        use = self.unlogged(ident, known)
        if missing:
            finding = judgement.coverage_finding(use)
            known.counted = [self._findings.report(finding, now_ms, state, effects)]
        else:
            hits, known.counted = known.counted, []
            for hit in hits:
                self._findings.retract(hit, "the vault's record came late", now_ms, state, effects)
        state.put(Kind.CLAIM, ident, known)
        effects.document(kek_use_document(use, known.revision, KEY + ident))

    def _tally(self, ident: bytes, known: ClaimState, state: State) -> None:
        """Keep the vault's tally in step with what is found of this claim."""
        claim = known.claim
        if not self._uses.joined(claim.effective_ms):
            return
        expected = [one for one in self._matching.attempts(ident) if one.expected]
        missing = sum(one.taken is None and not one.settled for one in expected)
        if missing == known.tallied or not expected:
            return
        first = known.tallied is None
        more = missing - (known.tallied or 0)
        self._tallies.count(
            claim.vault.lower(), claim.effective_ms, state, expected=len(expected) if first else 0, missing=more
        )
        known.tallied = missing
        state.put(Kind.CLAIM, ident, known)

    def unlogged(self, ident: bytes, known: ClaimState) -> KekUse:
        """Describe the call by the attempt that the log does not show."""
        missing = self._missing(ident)
        return judgement.unlogged(known, 0 if missing is None else missing.number)

    def _missing(self, ident: bytes) -> Attempt | None:
        attempts = self._matching.attempts(ident)
        return next((one for one in attempts if one.expected and one.taken is None and not one.settled), None)
