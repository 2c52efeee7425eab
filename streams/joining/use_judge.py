"""What is said of a vault record: whether an event explains it, how sure that is, what follows (join, steps 1 to 3).

An administrative act is judged as a use is, in words of its own; only its rules differ.
"""

from typing import Final

from msgspec.structs import replace

from alerts import rules
from alerts.model import Finding, KekAct, KekUse, KekUseStatus, PrincipalKind
from alerts.thresholds import Limits
from streams.index.documents import kek_use_document
from streams.joining import judgement, waiting
from streams.joining.allowed import Allowed
from streams.joining.correlate import partition_key
from streams.joining.join_crowd import Crowd
from streams.joining.joinstate import ClaimState, UseState
from streams.joining.kek_watch import KekWatch
from streams.joining.matching import Matching
from streams.joining.progress import SourceProgress
from streams.joining.standing import StandingFindings
from streams.messages import Effects
from streams.state import Kind, State

KEY: Final = bytes((Kind.USE,))
TOO_MANY: Final = "too_many"
"""Reason of a use that cannot be judged because not all about its KEK was taken (join_crowd)."""
_SERVED: Final = frozenset({"KeyWrap", "KeyUnwrap"})
"""What a service of Azure does with a customer's key; anything else it does is no encryption of its resource."""


class UseJudge:
    """Judges the records of one partition.

    Args:
        matching: which record is which attempt.
        progress: how far sources are heard.
        findings: where hits are counted, and taken back.
        keks: told of each judgement of an act.
        crowd: knows of which KEKs something was not taken.
        limits: the times of the join.
        allowed: principals of no source that may use a KEK all the same.
        joined_ms: only records in this half-open range are judged; None = all.
        evaluate: False where nothing is judged at all.
    """

    def __init__(
        self,
        *,
        matching: Matching,
        progress: SourceProgress,
        findings: StandingFindings,
        keks: KekWatch,
        crowd: Crowd,
        limits: Limits,
        allowed: Allowed | None,
        joined_ms: tuple[int, int] | None,
        evaluate: bool,
    ) -> None:
        self._matching = matching
        self._progress = progress
        self._findings = findings
        self._keks = keks
        self._crowd = crowd
        self._limits = limits
        self._allowed = allowed
        self._joined_ms = joined_ms
        self._evaluate = evaluate

    def joined(self, at_ms: int) -> bool:
        """Say whether events of that time are known at all."""
        span = self._joined_ms
        return self._evaluate and (span is None or span[0] <= at_ms < span[1])

    def judge(self, ident: bytes, now_ms: int, state: State, effects: Effects) -> None:
        """Judge a record; where that says something new, write its document and count or take back its hit."""
        known = state.get(Kind.USE, ident, UseState)
        if known is None or known.settled:
            return
        use = self._verdict(ident, known, now_ms, state)
        if known.act is not None:
            use = judgement.of_act(use)
        if known.revision and judgement.same(use, known.use):
            return
        if use.source is not None and not use.final:
            self._progress.wait(use.source, use.time_us // 1000, ident)
        known.use = use
        known.judged_ms = now_ms
        known.revision += 1
        self._report(known, now_ms, state, effects)
        self._keks.judged(known, now_ms, state, effects)
        state.put(Kind.USE, ident, known)
        effects.document(kek_use_document(use, known.revision, KEY + ident))

    def judge_untaken(self, known: UseState, now_ms: int, state: State, effects: Effects) -> None:
        """Judge a record that is not kept: once, and as far as that can be done without joining it."""
        use = known.use
        if use.source is not None and self.joined(use.time_us // 1000):
            known.use = judgement.judged(use, KekUseStatus.NOT_EVALUATED, TOO_MANY, final=True)
        else:
            known.use = self._verdict(b"", known, now_ms, state)
        known.revision = 1
        self._report(known, now_ms, state, effects)
        effects.document(kek_use_document(known.use, known.revision, KEY))

    def _verdict(self, ident: bytes, known: UseState, now_ms: int, state: State) -> KekUse:
        use, time_ms = known.use, known.use.time_us // 1000
        if not self.joined(time_ms):
            return judgement.judged(use, KekUseStatus.NOT_EVALUATED, "no_batches", final=True)
        access = self._matching.access(ident)
        if access is None:
            return self._foreign(use)
        if access.attempt is not None:
            claim = state.get(Kind.CLAIM, access.attempt.claim, ClaimState)
            return judgement.explained(use, access.strength, claim)
        named = self._matching.named_by(access)
        copied = None if named is None else state.get(Kind.CLAIM, named.claim, ClaimState)
        reason, event_id = ("no_event", None) if copied is None else ("id_reused", copied.claim.event_id)
        crowded = reason == "no_event" and self._crowd.is_crowded(partition_key(use.vault, use.name), state)
        if crowded or (use.final and use.reason == TOO_MANY):
            return judgement.judged(use, KekUseStatus.NOT_EVALUATED, TOO_MANY, final=True)
        heard = self._progress.heard(access.source, time_ms)
        waited_ms = now_ms - known.seen_ms
        settled = use.final and use.status in {KekUseStatus.UNACCOUNTED, KekUseStatus.UNEXPLAINED}
        final = heard.behind_ms == 0 or waited_ms >= self._limits.final_ms or settled
        if not final and waited_ms < self._limits.provisional_ms:
            return judgement.judged(use, KekUseStatus.PENDING, None, final=False)
        judged = judgement.judged(use, KekUseStatus.UNACCOUNTED, reason, final=final)
        behind_ms = heard.silent_ms if heard.behind_ms is None else heard.behind_ms
        return replace(judged, event_id=event_id, behind_ms=behind_ms, instances=heard.instances)

    def _foreign(self, use: KekUse) -> KekUse:
        """Judge an identity of no source: allowed by name, a service of Azure by its resource, or a stranger."""
        entry = None if self._allowed is None else self._allowed.entry_for(use)
        if entry is not None:
            return judgement.judged(use, KekUseStatus.ALLOWED, entry.id, final=True)
        served = use.principal_kind == PrincipalKind.AZURE_SERVICE and use.operation in _SERVED
        reason = "azure_service" if served else "foreign_principal"
        return judgement.judged(use, KekUseStatus.UNACCOUNTED, reason, final=True)

    def _report(self, known: UseState, now_ms: int, state: State, effects: Effects) -> None:
        """Count an unexplained record once, however often it is judged; take it back when it is explained.

        While its source is behind it is a hit of that, and only then one of its own.
        """
        use = known.use
        waits = waiting.waits(use, known.judged_ms, self._limits)
        unexplained = use.status in {KekUseStatus.UNACCOUNTED, KekUseStatus.UNEXPLAINED}
        kept = []
        for hit in known.counted:
            waited = waiting.is_hit(hit[0], use, self._limits)
            if waits or (unexplained and not waited):
                kept.append(hit)
            else:
                why = waiting.explanation(use, self._limits) if waited else "the event came late and explains it"
                self._findings.retract(hit, why, now_ms, state, effects)
        if unexplained and not kept:
            found = [waiting.finding(use, self._limits)] if waits else self._found(known)
            kept = [self._findings.report(finding, now_ms, state, effects) for finding in found]
        known.counted = kept

    def _found(self, known: UseState) -> list[Finding]:
        if known.act is None:
            return rules.run(known.use, self._limits)
        return rules.run(KekAct(access=known.act, judged=known.use), self._limits)
